#!/bin/bash
# Builds the Debian package: binary, unit, configuration, logrotate, completions, man page.
#
# Usage: deploy/debian/build.sh [--binary PATH] [--version VERSION] [DIRECTORY]
#
#   --binary PATH      what to pack; without it the release build, made if need be
#   --version VERSION  of the package; without it the binary's own and -1
#   DIRECTORY          where the package goes (target/debian); its path is the only line on standard output
#
# The maintainer is $DEBFULLNAME <$DEBEMAIL>. Needs dpkg-deb, gzip and, for the dependencies, readelf and strip (binutils). Nothing of it needs root.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
binary='' version='' directory=$root/target/debian
while [ $# -gt 0 ]; do
  case $1 in
  --binary) binary=$(realpath "$2"); shift 2 ;;
  --version) version=$2; shift 2 ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  -*) echo "build.sh: unknown option $1 (--help says which there are)" >&2; exit 2 ;;
  *) directory=$1; shift ;;
  esac
done
if [ -z "$binary" ]; then
  (cd "$root" && CARGO_TARGET_DIR="$root/target" cargo build --locked --release >&2)
  binary=$root/target/release/eternal
fi
[ -n "$version" ] || version=$("$binary" --version | cut -d' ' -f2)-1
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-The Eternal authors} <${DEBEMAIL:-authors@eternal.invalid}>"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
put() { install -D --mode="${3:-644}" "$1" "$stage/$2"; }       # FILE PATH [MODE]
make() { install -d "$stage/$(dirname "$1")" && cat >"$stage/$1"; } # PATH, content on standard input
pack() { gzip -9n >"$stage/$1"; }                                # PATH below a directory that is there

put "$binary" usr/bin/eternal 755
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$stage/usr/bin/eternal"
put "$root/deploy/eternal.toml" etc/eternal/eternal.toml
put "$root/deploy/logrotate/eternal" etc/logrotate.d/eternal
put "$root/deploy/systemd/eternal.service" usr/lib/systemd/system/eternal.service
put "$root/deploy/systemd/eternal.sysusers" usr/lib/sysusers.d/eternal.conf
for example in eternal-users.service notify-reload.conf; do
  put "$root/deploy/systemd/$example" "usr/share/doc/eternal/examples/$example"
done
"$binary" completions bash | make usr/share/bash-completion/completions/eternal
"$binary" completions zsh | make usr/share/zsh/vendor-completions/_eternal
"$binary" completions fish | make usr/share/fish/vendor_completions.d/eternal.fish
install -d "$stage/usr/share/man/man1"
"$binary" man | pack usr/share/man/man1/eternal.1.gz
pack usr/share/doc/eternal/changelog.gz <"$root/CHANGELOG.md"
{
  printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: eternal\n\n'
  printf 'Files: *\nCopyright: %s\nLicense: Expat\n' "$(sed -n 's/^Copyright (c) //p' "$root/LICENSE")"
  sed '1,/^Copyright/d;/./,$!d;s/^$/./;s/^/ /' "$root/LICENSE" | sed '1{/^ \.$/d}'
} | make usr/share/doc/eternal/copyright
pack usr/share/doc/eternal/changelog.Debian.gz <<CHANGELOG
eternal ($version) unstable; urgency=medium

  * What is new is in changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date="@${SOURCE_DATE_EPOCH:-$(stat --format=%Y "$root/CHANGELOG.md")}")
CHANGELOG

# The oldest C library that has every symbol the binary asks for.
libc=$(readelf --version-info "$binary" | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1 | cut -d_ -f2)
depends="systemd | systemd-standalone-sysusers"
[ -z "$libc" ] || depends="libc6 (>= $libc), libgcc-s1, $depends"

make usr/share/lintian/overrides/eternal <<OVERRIDES
# It is nobody's upload to Debian.
eternal: initial-upload-closes-no-bugs
# Nothing is enabled by the package, so there is no state for deb-systemd-helper to keep.
eternal: maintainer-script-calls-systemctl
OVERRIDES
for script in postinst prerm postrm; do put "$root/deploy/debian/$script" "DEBIAN/$script" 755; done
printf '/etc/eternal/eternal.toml\n/etc/logrotate.d/eternal\n' | make DEBIAN/conffiles
make DEBIAN/control <<CONTROL
Package: eternal
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Section: admin
Priority: optional
Installed-Size: $(du --summarize --apparent-size --block-size=1K "$stage" | cut -f1)
Depends: $depends
Suggests: logrotate, prometheus
Description: process supervisor whose observability is the product
 Keeps any number of programs running: starts them in order, waits until they
 are ready, restarts them when they crash, gives up when that is hopeless, and
 ends whole process families without leaving orphans.
 .
 Every exit has its reason, every restart its cause; both are in the log, in
 the status and in the metrics. The service is neither enabled nor started by
 installing the package.
CONTROL
(cd "$stage" && find usr etc -type f -print0 | sort --zero-terminated | xargs -0 md5sum) | make DEBIAN/md5sums

mkdir -p "$directory"
package=$directory/eternal_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$stage" "$package" >&2
echo "$package"
