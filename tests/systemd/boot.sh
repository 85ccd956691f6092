#!/bin/bash
# Makes a root directory out of this machine's own and becomes its systemd. machine.py starts it as the first process of
# new mount, pid, uts, ipc, network and cgroup namespaces, so that nothing done here is seen outside.
#
# Usage: boot.sh DIRECTORY     what is in DIRECTORY/files goes over the machine's own files; DIRECTORY/root and
#                              DIRECTORY/changes are empty
set -euo pipefail
work=$1
root=$work/root

# Every change goes into memory and ends with the namespace. mount(8) would tell others about it otherwise.
mount --make-rprivate /
mount -t tmpfs -o mode=755 changes "$work/changes"
mkdir "$work/changes/upper" "$work/changes/work"
mount -t overlay -o "lowerdir=/,upperdir=$work/changes/upper,workdir=$work/changes/work" overlay "$root"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
# The root of this file system is the cgroup that we are in: systemd may do there what it likes.
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"; done
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"

# What this machine would start is not our business: only the journal, temporary files and the bus are left.
units=$root/usr/lib/systemd/system
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/*.requires "$root"/etc/rc?.d "$root"/etc/init.d
rm -rf "$root"/var/log/journal "$root"/etc/systemd/system.conf.d "$root"/etc/systemd/journald.conf.d
find "$units" -path '*.target.wants/*' ! -name 'systemd-journal*' ! -name systemd-tmpfiles-setup.service ! -name dbus.socket -delete
: >"$root/etc/fstab"
: >"$root/etc/machine-id"
echo sandbox >"$root/etc/hostname"

cp -a "$work/files/." "$root/"

cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
rmdir /old
exec env -i container=sandbox PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal-or-kmsg --show-status=0
