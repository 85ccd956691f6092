#!/bin/bash
# deploy/fleet/install.sh for real, in an overlay of this machine that is thrown away: refuses, installs, does nothing
# the second time, replaces what changed. Nothing is started: that takes systemd. Needs root; $ETERNAL_BINARY or target/debug/eternal.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
  binary=$(realpath "${ETERNAL_BINARY:-$(dirname "$0")/../../target/debug/eternal}")
  exec unshare --mount "$0" --inside "$binary"
fi
binary=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'umount -l "$work" && rmdir "$work"' EXIT
mount -t tmpfs tmpfs "$work"
mkdir "$work"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
mount --rbind /dev "$work/root/dev"
mount --rbind /proc "$work/root/proc"
# A host like any other: without Eternal, with a unit to install.
rm -rf "$work/root/etc/eternal" "$work/root/usr/bin/eternal" "$work/root/etc/systemd/system/eternal.service"
mkdir -p "$work/root/srv"
cp -r "$root/deploy" "$work/root/srv/"
cp "$binary" "$work/root/srv/eternal"
unit=$work/root/srv/deploy/systemd/eternal.service
printf '[metrics]\nlisten = "0.0.0.0:10477"\n[programs.web]\ncommand = ["sleep", "1000"]\n' >"$work/root/srv/good.toml"
sed 's/command/comand/' "$work/root/srv/good.toml" >"$work/root/srv/bad.toml"
sed 's/0.0.0.0:10477/127.0.0.1:10478/' "$work/root/srv/good.toml" >"$work/root/srv/local.toml"

out='' err='' code=0
what=(--binary /srv/eternal)
install_it() { # OPTION…
  code=0
  out=$(chroot "$work/root" /srv/deploy/fleet/install.sh "${what[@]}" --no-start --name web1.example.com "$@" 2>"$work/err") || code=$?
  err=$(cat "$work/err")
}
must() { # WHAT TEST…
  local what=$1
  shift
  if ! "$@"; then
    printf 'FAIL %s: exit code %s\n%s\n%s\n' "$what" "$code" "$out" "$err" >&2
    exit 1
  fi
}
there() { [ -e "$work/root$1" ]; }
is() { [ "$(chroot "$work/root" stat -c "%a %U:%G" "$1")" = "$2" ]; }
user() { chroot "$work/root" getent passwd eternal >/dev/null; }
nothing() { ! there /usr/bin/eternal && ! there /etc/eternal && ! there /etc/systemd/system/eternal.service && ! user; }
says() { [[ $err == *"$1"* ]]; }

must "no user eternal here" nothing
install_it
must "without a configuration it is refused" [ "$code" -eq 1 ]
must "it says which is missing" says "--config FILE is needed"
install_it --config /srv/bad.toml
must "a bad configuration is refused" [ "$code" -eq 1 ]
must "the mistake is shown" says 'did you mean `command`'
must "nothing was touched" nothing

for odd in 'a"b' 'a b' '2001:db8::1' $'a\nb'; do
  install_it --config /srv/good.toml --name "$odd"
  must "the name $odd is refused" [ "$code:$out" = 1: ]
  must "nothing was touched" nothing
done

install_it --config /srv/good.toml
must "it installs" [ "$code" -eq 0 ]
must "the output is for hosts/" [ "$out" = '[{"targets": ["web1.example.com:10477"]}]' ]
must "the program is there" is /usr/bin/eternal "755 root:root"
must "the unit is there" is /etc/systemd/system/eternal.service "644 root:root"
must "the configuration is for root and the daemon" is /etc/eternal/eternal.toml "640 root:eternal"
must "the user is there" user
must "no warning" [ "${err/warning/}" = "$err" ]

install_it --config /srv/good.toml
must "the second time it does nothing" [ "$code:$err" = "0:" ]
must "and says the same" [ "$out" = '[{"targets": ["web1.example.com:10477"]}]' ]
install_it
must "without a configuration, that which is there stays" [ "$code:$err" = "0:" ]

install_it --config /srv/local.toml
must "only the configuration is replaced" [ "$(grep -c installed <<<"$err")" -eq 1 ]
must "it is the configuration" says "/etc/eternal/eternal.toml: installed"
must "loopback is warned of" says 'warning: metrics.listen is "127.0.0.1:10478"'
must "its port is said" [ "$out" = '[{"targets": ["web1.example.com:10478"]}]' ]

for nowhere in unix:/run/eternal/metrics.sock ''; do
  sed "s|0.0.0.0:10477|$nowhere|" "$work/root/srv/good.toml" >"$work/root/srv/nowhere.toml"
  install_it --config /srv/nowhere.toml
  must "without a port there is no target" [ "$code:$out" = "0:[]" ]
  must "which is said" says "warning: metrics.listen is \"$nowhere\": there is no port"
done

# A package, as far as this script can tell one from another: a name, a version, the program and a configuration.
rm -rf "$work/root/etc/eternal" "$work/root/usr/bin/eternal"
package=$work/root/srv/package
install -D "$binary" "$package/usr/bin/eternal"
install -D -m 644 "$work/root/srv/good.toml" "$package/etc/eternal/eternal.toml"
install -d "$package/DEBIAN"
printf 'Package: eternal\nVersion: 1-1\nArchitecture: all\nMaintainer: T <t@example.com>\nDescription: test\n' >"$package/DEBIAN/control"
echo /etc/eternal/eternal.toml >"$package/DEBIAN/conffiles"
dpkg-deb --build --root-owner-group -Znone "$package" "$work/root/srv/eternal.deb" >/dev/null
what=(--deb /srv/eternal.deb)
install_it --config /srv/bad.toml
must "a bad configuration is refused before a package is installed" [ "$code:$(there /usr/bin/eternal && echo there)" = 1: ]
install_it
must "a package is installed" [ "$code:$(chroot "$work/root" dpkg-query -W -f '${Version}' eternal)" = "0:1-1" ]
must "its configuration is read" [ "$out" = '[{"targets": ["web1.example.com:10477"]}]' ]
install_it --config /srv/local.toml
must "of a package, too, only the configuration is replaced" [ "$(grep -c installed <<<"$err")" -eq 1 ]
install_it
must "the package that is there is not installed again" [ "$code:$(grep -vc ^warning <<<"$err")" = "0:0" ]
echo "deploy/fleet/install.sh: all well"
