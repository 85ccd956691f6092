#!/bin/bash
# Installs Eternal on this Debian host: program, user, unit, configuration, start. Prints what Prometheus needs to find it,
# so that from the host of Prometheus one line does both:
#
#   tar -c -C /usr/src/eternal deploy | ssh root@web1 'tar -x && deploy/fleet/install.sh --name web1.example.com …' > web1.json && mv web1.json hosts/
#
# Usage: install.sh (--binary FILE | --deb FILE) [--config FILE] [--name NAME] [--no-start]
#
#   --binary FILE  the program; goes to /usr/bin/eternal, with deploy/systemd/eternal.service
#   --deb FILE     the package, which brings its unit
#   --config FILE  goes to /etc/eternal/eternal.toml; without it, what is there stays
#   --name NAME    what Prometheus calls and pages call this host; `hostname --fqdn`
#   --no-start     only lay it out
#
# Run again with the same, it changes nothing; with something else, it replaces that and no more: another program or unit is
# a restart, another configuration a reload. A configuration with a mistake is refused before anything is touched.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
unit_file=$here/../systemd/eternal.service
config_path=/etc/eternal/eternal.toml

fail() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "$*" >&2; }

binary='' deb='' config='' name='' start=yes
while [ $# -gt 0 ]; do
  case $1 in
  --binary) binary=$(realpath -e "${2:?}"); shift ;;
  --deb) deb=$(realpath -e "${2:?}"); shift ;;
  --config) config=$(realpath -e "${2:?}"); shift ;;
  --name) name=${2:?}; shift ;;
  --no-start) start=no ;;
  -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
  *) echo "install.sh: unknown option $1; see --help" >&2; exit 2 ;;
  esac
  shift
done
[ -n "$binary$deb" ] || fail "say what to install: --binary FILE or --deb FILE"
[ -z "$binary" ] || [ -z "$deb" ] || fail "--binary and --deb exclude each other"
[ "$(id -u)" -eq 0 ] || fail "only root can install"
[ -n "$config" ] || [ -n "$deb" ] || [ -e $config_path ] || fail "there is no $config_path yet: --config FILE is needed"
[ -z "$binary" ] || [ -e "$unit_file" ] || fail "there is no $unit_file"
name=${name:-$(hostname --fqdn)}
[[ $name =~ ^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$ ]] || fail "--name: \"$name\" is neither the name of a host nor an address; IPv6 is [2001:db8::1]"

put() { # FILE DEST MODE GROUP: by renaming, so that a program that runs is not written to; true when it was another
  if cmp --silent "$1" "$2" && [ "$(stat -c %a:%G "$2")" = "$3:$4" ]; then return 1; fi
  install -D --mode="$3" --group="$4" "$1" "$2.new"
  mv "$2.new" "$2"
  say "$2: installed"
}

check() { # PROGRAM CONFIG
  "$1" check "$2" >/dev/null || fail "$2 has mistakes; nothing was touched"
}
check_by_package() { # CONFIG: with the program that the package will bring
  local unpacked code=0
  unpacked=$(mktemp -d)
  dpkg-deb --extract "$deb" "$unpacked"
  "$unpacked/usr/bin/eternal" check "$1" >/dev/null || code=$?
  rm -rf "$unpacked"
  [ $code -eq 0 ] || fail "$1 has mistakes; nothing was touched"
}

program_changed=no config_changed=no
if [ -n "$config" ]; then
  if [ -n "$binary" ]; then check "$binary" "$config"; else check_by_package "$config"; fi
fi
if [ -n "$deb" ] && [ "$(dpkg-query -W -f '${Version}' eternal 2>/dev/null)" != "$(dpkg-deb -f "$deb" Version)" ]; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "$deb" >&2
  program_changed=yes
fi
if ! getent passwd eternal >/dev/null; then
  useradd --system --user-group --no-create-home --home-dir /var/lib/eternal --shell /usr/sbin/nologin eternal
  say "user eternal: created"
fi
if [ -n "$binary" ]; then
  if put "$binary" /usr/bin/eternal 755 root; then program_changed=yes; fi
  if put "$unit_file" /etc/systemd/system/eternal.service 644 root; then program_changed=yes; fi
fi
if [ -n "$config" ]; then
  # Readable for the daemon, which is not root, and for nobody else: environments hold secrets.
  if put "$config" $config_path 640 eternal; then config_changed=yes; fi
fi

if [ $start = yes ]; then
  systemctl daemon-reload
  systemctl enable --quiet eternal
  if ! systemctl is-active --quiet eternal; then
    systemctl start eternal
    say "eternal: started"
  elif [ $program_changed = yes ]; then
    systemctl restart eternal
    say "eternal: restarted"
  elif [ $config_changed = yes ]; then
    systemctl reload eternal
    say "eternal: reloaded"
  fi
  eternal --config $config_path healthcheck >/dev/null || fail "eternal does not answer: see journalctl -u eternal"
fi

listen=$(eternal --config $config_path config | sed -n 's/^listen = "\([^"]*\)".*/\1/p')
case $listen in
unix:* | "")
  say "warning: metrics.listen is \"$listen\": there is no port for Prometheus, so no target"
  echo '[]'
  exit 0
  ;;
127.* | "[::1]"*) say "warning: metrics.listen is \"$listen\": Prometheus cannot get there from another host" ;;
esac
printf '[{"targets": ["%s:%s"]}]\n' "$name" "${listen##*:}"
