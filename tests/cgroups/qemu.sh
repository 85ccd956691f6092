#!/bin/bash
# Limits, kills for want of memory and exact sums need the controllers of cgroup v2: boots a Debian
# kernel in qemu with nothing in it but busybox, the daemon and guest.sh. No /dev/kvm is needed.
# Usage: tests/cgroups/qemu.sh [BINARY]. Exit status: that of guest.sh; 70: the guest never said.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=${1:-$root/target/debug/eternal}
cache=${CARGO_TARGET_DIR:-$root/target}/qemu
[ "$(uname -m)" = x86_64 ] || { echo "SKIPPED: cgroups in qemu: only for x86_64 so far" >&2; exit 0; }
[ -x "$binary" ] || (cd "$root" && cargo build --locked --quiet)

# qemu and the kernel are unpacked, not installed: nothing of the machine changes.
if [ ! -e "$cache/complete" ]; then
  rm -rf "$cache"; mkdir -p "$cache"/{packages,qemu,kernel}; chmod 777 "$cache/packages"
  apt-get update -qq
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -1)
  mapfile -t wanted < <(apt-get install -s --no-install-recommends qemu-system-x86 busybox-static | sed -n 's/^Inst \([^ ]*\).*/\1/p')
  (cd "$cache/packages" && apt-get download -qq "$kernel" busybox-static "${wanted[@]}" 2>/dev/null)
  for package in "$cache"/packages/*.deb; do
    case $package in
      */linux-image*) dpkg -x "$package" "$cache/kernel" ;;
      *) dpkg -x "$package" "$cache/qemu" ;;
    esac
  done
  rm -rf "$cache/packages" "$cache"/kernel/lib/modules "$cache"/kernel/usr
  touch "$cache/complete"
fi
busybox=$cache/qemu/bin/busybox
[ -x "$busybox" ] || busybox=$cache/qemu/usr/bin/busybox

guest=$(mktemp -d); trap 'rm -rf "$guest"' EXIT
mkdir -p "$guest"/root/{bin,proc,sys,dev,tmp}
cp "$busybox" "$guest/root/bin/busybox"
strip -o "$guest/root/bin/eternal" "$binary"
# The libraries of the binary, where it is not static.
{ ldd "$binary" || true; } | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$guest/root$(dirname "$library")"; cp -L "$library" "$guest/root$library"
done
cp "$here/guest.sh" "$guest/root/guest.sh"
cat >"$guest/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ifconfig lo up
sh /guest.sh
echo "GUEST-STATUS=$?"
reboot -f
INIT
sed -i 's|^#!/bin/busybox|#!/bin/busybox|' "$guest/root/init"; chmod +x "$guest/root/init"
(cd "$guest/root" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1 >"$guest/initramfs")

export LD_LIBRARY_PATH=$cache/qemu/usr/lib/x86_64-linux-gnu:$cache/qemu/lib/x86_64-linux-gnu
timeout 400 "$cache"/qemu/usr/bin/qemu-system-x86_64 -L "$cache/qemu/usr/share/qemu" -L "$cache/qemu/usr/share/seabios" \
  -machine q35 -accel tcg,thread=multi -cpu max -smp 1 -m 512 -nographic -no-reboot -nic none \
  -kernel "$cache"/kernel/boot/vmlinuz-* -initrd "$guest/initramfs" \
  -append "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off random.trust_cpu=on" \
  </dev/null | sed -u 's|\r||g' | tee "$guest/said"
status=$(sed -n 's/^GUEST-STATUS=//p' "$guest/said" | tail -1)
exit "${status:-70}"
