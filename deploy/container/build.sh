#!/bin/bash
# Builds the static binary and the image. Needs cargo, and buildah, podman or docker.
#
# Usage: deploy/container/build.sh [--binary FILE] [--tool TOOL] [--tag NAME] [--stage DIR]
#
#   --binary FILE  this static binary, instead of building one
#   --tool TOOL    buildah, podman or docker; the first that is there
#   --tag NAME     name of the image; localhost/eternal
#   --stage DIR    lay out the build context in DIR and stop: for another builder
#
# TOOL_OPTIONS go to the tool before its command, BUILD_OPTIONS after it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=x86_64-unknown-linux-gnu
binary='' tool='' tag=localhost/eternal stage=''

while [ $# -gt 0 ]; do
  case $1 in
  --binary) binary=${2:?} ;;
  --tool) tool=${2:?} ;;
  --tag) tag=${2:?} ;;
  --stage) stage=${2:?} ;;
  -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
  *) echo "build.sh: unknown option $1; see --help" >&2; exit 2 ;;
  esac
  shift 2
done

if [ -z "$binary" ]; then
  (cd "$root" && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $target)
  binary=${CARGO_TARGET_DIR:-$root/target}/$target/release/eternal
fi
# The image has no dynamic linker: a binary that wants one would only fail with "no such file".
if readelf -lW "$binary" | grep -q INTERP; then
  echo "build.sh: $binary is not static: build it with RUSTFLAGS='-C target-feature=+crt-static' and --target $target" >&2
  exit 1
fi

context=${stage:-$(mktemp -d)}
[ -n "$stage" ] || trap 'rm -rf "$context"' EXIT
rootfs=$context/rootfs
install -D -m 755 "$binary" "$rootfs/usr/local/bin/eternal"
install -D -m 644 "$root/deploy/container/eternal.toml" "$rootfs/etc/eternal/eternal.toml"
install -d -m 755 "$rootfs/run"
# For any user, where no tmpfs lies over it.
install -d -m 1777 "$rootfs/run/eternal"
install -m 644 "$root/deploy/container/Containerfile" "$context/Containerfile"
[ -z "$stage" ] || exit 0

if [ -z "$tool" ]; then
  for tool in buildah podman docker none; do command -v "$tool" >/dev/null && break; done
  [ "$tool" != none ] || { echo "build.sh: neither buildah nor podman nor docker is there" >&2; exit 1; }
fi
# A health check is no part of the OCI format.
format=(--format docker)
[ "$tool" != docker ] || format=()
# shellcheck disable=SC2086 # both are lists of options
"$tool" ${TOOL_OPTIONS:-} build ${BUILD_OPTIONS:-} "${format[@]}" --tag "$tag" --file "$context/Containerfile" "$context"
