# Runs in the guest of qemu.sh, which has all controllers of cgroup v2. busybox only.
cd /tmp || exit 1
tree=/sys/fs/cgroup/ours
failed=0

check() { # WHAT CONDITION…: tells whether it holds
  what=$1; shift
  if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failed=1; fi
}
within() { # SECONDS CONDITION…: waits until it holds
  tries=$(($1 * 10)); shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1)); [ "$tries" -gt 0 ] || return 1
    usleep 100000
  done
}
metrics() { wget -qO- http://127.0.0.1:10477/metrics; }
value() { # FAMILY PROGRAM [LABEL]: the value of a series; empty: there is none
  metrics | sed -n "s/^$1{program=\"$2\",replica=\"0\"${3:+,$3}} //p"
}
is() { [ "$(value "$1" "$2" "$3")" = "$4" ]; }
exits() { is eternal_program_exits_total "$1" "reason=\"$2\"" "$3"; }
holds() { [ "$(cat "$tree/$1")" = "$2" ]; }
number() { sed -n "s/^$2 //p" "$tree/$1"; }
# Fractions and more than 31 bits: only awk knows them.
least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a <= b) }'; }
pid_of() { sed -n 1p "$tree/program-$1-0/cgroup.procs"; }
daemon() { # [PLACE]: starts it in a cgroup that was made for it alone
  sh -c "echo 0 >$tree/$1/cgroup.procs && exec eternal run" >>/tmp/out 2>&1 &
  daemon=$!
  within 30 wget -qO- http://127.0.0.1:10477/-/healthy
}
config() { # MEMORY_MAX of the calm one
  cat >eternal.toml <<TOML
[daemon]
cgroups = "required"
[defaults]
restart = "never"
ready = "immediately"
restart_delay = "100ms"
[programs.hog]
command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]
memory_max = "32MiB"
[programs.worker]
command = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; exit 3"]
memory_max = "32MiB"
[programs.lone]
command = ["sh", "-c", "trap '' TERM; dd if=/dev/zero of=/dev/null bs=200M count=1; while :; do sleep 1; done"]
memory_max = "32MiB"
kill_mode = "process"
stop_timeout = "200ms"
autostart = false
[programs.twice]
command = ["sh", "-c", "[ -e /tmp/once ] && kill -9 \$\$; touch /tmp/once; exec dd if=/dev/zero of=/dev/null bs=200M count=1"]
memory_max = "32MiB"
restart = "always"
max_restarts = 1
[programs.forker]
command = ["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all of them"]
pids_max = 5
[programs.spinner]
command = ["sh", "-c", "while :; do :; done"]
cpu_max = "20%"
[programs.holder]
command = ["sh", "-c", "x=\$(dd if=/dev/zero bs=1M count=10 | tr '\\\\0' x); sleep 1000; echo \$x"]
[programs.calm]
command = ["sleep", "1000"]
memory_max = "$1"
[programs.hidden]
command = ["sh", "-c", "env -i setsid sh -c 'echo \$\$ >/tmp/hidden; exec sleep 4321' & sleep 1000"]
TOML
}

echo "+memory +pids +cpu +io" >/sys/fs/cgroup/cgroup.subtree_control
mkdir $tree
config 64MiB
check "the daemon comes up" daemon
check "it says where, and with which controllers" grep -q "below /ours with controllers io, memory, pids" out
check "its own place is apart" holds supervisor/cgroup.procs "$daemon"

check "a program over memory_max ends as oom" within 30 exits hog oom 1
check "that is a crash" is eternal_program_crashes_total hog "" 1
check "the kill is counted" is eternal_program_oom_kills_total hog "" 1
check "the log says why" grep -q "hog: exited: SIGKILL (out of memory)" out
check "a child killed for want of memory is not the end of its program" within 30 exits worker exit_code 1
check "which does not end as oom" exits worker oom 0
check "but the kill is counted" is eternal_program_oom_kills_total worker "" 1
eternal start lone >/dev/null
check "another one lost a child so, long ago" within 30 is eternal_program_oom_kills_total lone "" 1
eternal stop lone >/dev/null
check "our own SIGKILL is not oom for that" exits lone stop_timeout 1
check "and no crash" is eternal_program_crashes_total lone "" 0
check "SIGKILL after an earlier run's oom is a signal" within 30 exits twice signal 1
check "and the earlier run's end was oom" exits twice oom 1
check "a program without limits counts from 0" is eternal_program_oom_kills_total calm "" 0
calm=$(pid_of calm)
kill -9 "$(pid_of holder)"
check "SIGKILL from elsewhere is a signal" within 30 exits holder signal 1
eternal start holder >/dev/null

check "memory_max is in force" holds program-calm-0/memory.max 67108864
check "pids_max is in force" holds program-forker-0/pids.max 5
check "cpu_max is in force" holds program-spinner-0/cpu.max "20000 100000"
check "no limit is no limit" holds program-holder-0/memory.max max

limited() { [ "$(number program-forker-0/pids.events max)" -gt 0 ]; }
check "one process more than pids_max is refused" within 30 limited
check "which its shell takes for an error" within 30 exits forker exit_code 1
check "so that it never had all of them" [ "$(grep -c "all of them" out)" = 0 ]

throttled() { [ "$(number program-spinner-0/cpu.stat nr_throttled)" -gt 5 ]; }
check "cpu_max holds the program back" within 30 throttled
set -- $(cat /proc/uptime); began=$1; before=$(number program-spinner-0/cpu.stat usage_usec)
sleep 3
set -- $(cat /proc/uptime); after=$(number program-spinner-0/cpu.stat usage_usec)
share=$(awk -v b="$before" -v a="$after" -v s="$began" -v e="$1" 'BEGIN { print (a - b) / 1e6 / (e - s) }')
check "to a fifth of a processor: $share" least "$share" 0.25
check "and not to less" least 0.1 "$share"

sum() { metrics | awk 'index($0, "eternal_program_cpu_seconds_total{program=\"spinner\"") == 1 { s += $2 } END { print s }'; }
low=$(number program-spinner-0/cpu.stat usage_usec); cpu=$(sum); high=$(number program-spinner-0/cpu.stat usage_usec)
check "processor time is the kernel's: $low us, $cpu s, $high us" \
  awk -v l="$low" -v c="$cpu" -v h="$high" 'BEGIN { exit !(l / 1e6 - 0.001 <= c && c <= h / 1e6 + 0.001) }'
big() { least 10485760 "$(value eternal_program_resident_memory_bytes holder)"; }
check "memory is that of the cgroup: at least what it holds" within 30 big
check "and at most all of it" least "$(value eternal_program_resident_memory_bytes holder)" "$(cat $tree/program-holder-0/memory.current)"

config 96MiB
check "a reload" eternal reload
check "changes a limit at once" holds program-calm-0/memory.max 100663296
check "without a restart" [ "$(pid_of calm)" = "$calm" ]

check "the hidden one runs" within 30 [ -s hidden ]
hidden=$(cat hidden); rm hidden
kill -9 "$daemon"; wait "$daemon" 2>/dev/null
check "the daemon's death leaves the programs" [ -d "/proc/$hidden" ]
# Now the controllers are on, and only a place below can be entered.
check "the next daemon comes up" daemon supervisor
check "and has ended even who hid from it" [ ! -d "/proc/$hidden" ]
check "then starts anew" within 30 is eternal_program_up calm "" 1
check "with counts that start at 0" is eternal_program_exits_total hog 'reason="exit_code"' 0

kill "$daemon"; wait "$daemon"
check "a stop ends with 0" [ $? = 0 ]
check "and leaves no cgroup of a program" [ -z "$(find $tree -mindepth 1 -type d -name 'program-*')" ]
check "a daemon that found the way in by itself" daemon ""
kill "$daemon"; wait "$daemon"
check "leaves the tree as it was" [ -z "$(find $tree -mindepth 1 -type d)" ]
check "with no controllers on" holds cgroup.subtree_control ""
[ $failed = 0 ] || { echo "--- the log:"; cat out; }
exit $failed
