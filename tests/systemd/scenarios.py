"""What is promised of Eternal under systemd, each on a machine of its own. A scenario returns what it measured, or nothing."""
import re
import time

from machine import until
from service import DAEMON, ROOT, SHIPPED, SOON, UNIT, Service, expect

SLEEPER = '''
[programs.{0}]
command = ["sleep", "{1}"]
'''


def the_shipped_unit_runs_the_shipped_configuration():
    with Service("", config=SHIPPED) as service:
        for path in sorted((ROOT / "deploy/systemd").glob("*.service")):
            installed = f"/etc/systemd/system/{path.name}"
            service.path(installed).write_text(path.read_text())
            said = service.run("systemd-analyze", "verify", "--recursive-errors=no", installed)
            expect(not said.stdout + said.stderr, f"verify {path.name}: {said.stdout}{said.stderr}")
        score = exposure(service, "/etc/systemd/system/eternal.service", 20)
        users = exposure(service, "/etc/systemd/system/eternal-users.service", 30)
        printed = service.run("eternal", "systemd-unit")
        expect(printed.stdout == UNIT.read_text(), f"systemd-unit does not print {UNIT.name}:\n{printed.stdout}")
        expect(not printed.stderr, f"systemd-unit complains: {printed.stderr}")
        printed = service.run("eternal", "systemd-unit", "--users")
        expect(printed.stdout == UNIT.with_name("eternal-users.service").read_text(), f"--users prints\n{printed.stdout}")
        began = time.monotonic()
        service.start()
        took = time.monotonic() - began
        expect(service.program("api")["ready"], "active, and the program is not ready")
        expect(service.get("StatusText") == "1 of 1 programs up, 0 failed, 0 restarting", service.get("StatusText"))
        wanted = {"Delegate": "yes", "OOMPolicy": "continue", "KillMode": "mixed", "Type": "notify"}
        expect((got := service.show(service.unit, *wanted)) == wanted, f"{got}")
        service.run("systemctl", "stop", service.unit)
        service.is_gone()
        return f"exposure {score} (--users: {users}), active after {took:.2f} s"


def exposure(machine, unit, threshold):
    said = machine.run("systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={threshold}", unit, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    expect(found and said.returncode == 0, f"security {unit}: {said.stdout}{said.stderr}")
    return found[1]


def it_is_active_when_every_program_is_ready_or_has_said_why_not():
    gate = "/var/lib/eternal/go"
    programs = f'''
[programs.slow]
command = ["sleep", "1000"]
ready   = "exec:test -e {gate}"
[programs.second]
command = ["sleep", "1001"]
after   = ["slow"]
[programs.broken]
command = ["false"]
restart = "never"
[programs.flapping]
command       = ["false"]
restart_delay = "1h"
restart_delay_max = "1h"
[programs.later]
command   = ["sleep", "1002"]
autostart = false
'''
    with Service(programs) as service:
        service.run("systemctl", "start", "--no-block", service.unit)
        status = until("all that can be decided is", lambda: "1 failed, 1 restarting" in (s := service.get("StatusText")) and s)
        expect(status.startswith("0 of 5 programs up"), status)
        # A reload ends with READY=1 as well, which must not be taken for the start. systemd hears things in order: when it
        # knows what the second reload added, it has heard all that the first one said.
        for number in (6, 7):
            programs += f'[programs.extra-{number}]\ncommand = ["true"]\nautostart = false\n'
            service.configure(programs)
            service.run("eternal", "reload")
            until("STATUS= has the new one", lambda n=number: f" of {n} programs" in service.get("StatusText"))
        expect(service.get("ActiveState") == "activating", f"{service.get('ActiveState')} before slow is ready")
        expect(not service.running("sleep 1001"), "second runs before slow is ready")
        service.path(gate).touch()
        until("it is active", lambda: service.get("ActiveState") == "active")
        expect(service.running("sleep 1001"), "active, and second does not run")
        expect(service.get("StatusText") == "2 of 7 programs up, 1 failed, 1 restarting", service.get("StatusText"))


def a_reload_puts_in_force_what_changed_and_a_bad_one_nothing():
    with Service(SLEEPER.format("one", 1001) + SLEEPER.format("two", 1002)) as service:
        service.start()
        daemon, one, two = service.pid, service.program("one")["pid"], service.program("two")["pid"]
        service.configure(SLEEPER.format("one", 1001) + SLEEPER.format("two", 1012) + SLEEPER.format("three", 1003))
        service.run("systemctl", "reload", service.unit)
        expect(service.pid == daemon and service.program("one")["pid"] == one, "what had not changed was restarted")
        expect(service.running("sleep 1012") and not service.running("sleep 1002"), "what had changed was not restarted")
        expect(service.running("sleep 1003"), "what was added does not run")
        expect(service.get("ActiveState") == "active", service.get("ActiveState"))
        until("STATUS= has the new one", lambda: service.get("StatusText").startswith("3 of 3 programs up"))

        before = service.processes(service.unit)
        service.configure(SLEEPER.format("one", 1021) + "nonsense = 1\n")
        failed = service.run("systemctl", "reload", service.unit, check=False)
        expect(failed.returncode != 0, "systemctl reload did well with a bad configuration")
        until("it is active again", lambda: service.get("ActiveState") == "active")
        expect(service.get("ReloadResult") == "exit-code", service.get("ReloadResult"))
        expect(service.processes(service.unit) == before, "a bad configuration touched something")
        expect("nonsense" in service.said("reload failed")["MESSAGE"], "the journal does not say what is wrong")
        expect(two not in service.processes(service.unit), f"{two} is there")

        service.configure(SLEEPER.format("one", 1031))
        service.run("systemctl", "reload", service.unit)
        expect(list(service.processes(service.unit).values())[1:] == ["sleep 1031"], f"{service.processes(service.unit)}")


def a_rolling_restart_is_a_reload_until_its_end():
    gate = "/var/lib/eternal/go"
    with Service(SLEEPER.format("one", 1001) + f'ready = "exec:test -e {gate}"\n') as service:
        service.run("systemctl", "start", "--no-block", service.unit)
        until("its directory is there", lambda: service.path(gate).parent.exists())
        service.path(gate).touch()
        until("it is active", lambda: service.get("ActiveState") == "active")
        service.path(gate).unlink()
        service.run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", service.unit)
        until("it restarts", lambda: service.get("StatusText").startswith("0 of 1 programs up"))
        expect(service.get("ActiveState") == "reloading", f"{service.get('ActiveState')} while a program is on its way back")
        service.path(gate).touch()
        until("it is active", lambda: service.get("ActiveState") == "active")
        expect(service.program("one")["restarts_by_cause"]["config"] == 1, "it was not restarted")


def a_killed_program_is_the_daemons_to_restart():
    with Service(SLEEPER.format("one", 1001) + 'restart_delay = "50ms"\n' + SLEEPER.format("two", 1002)) as service:
        service.start()
        daemon, one, two = service.pid, service.program("one")["pid"], service.program("two")["pid"]
        service.kill(one)
        until("it is back", lambda: service.running("sleep 1001") not in ([], [one]))
        expect(service.pid == daemon and service.running("sleep 1002") == [two], "more than the one was restarted")
        expect(service.get("NRestarts") == "0", "systemd took part")
        crash = until("it is on record", lambda: (p := service.program("one"))["last_exit"] and p)
        expect(crash["last_exit"]["signal"] == 9 and crash["crashes"] == 1, f"{crash}")


# Runs only while nobody else does, and says so otherwise; has a child that left its process group, and outlives SIGTERM.
JEALOUS = '''
[programs.jealous]
command = ["sh", "-c", """
exec 9>>/var/lib/eternal/lock
flock --nonblock 9 || { echo two of us; exit 1; }
trap '' TERM
setsid sh -c 'trap "" TERM; sleep 1001' &
echo alone
while :; do sleep 1002; done
"""]
stop_timeout  = "300ms"
restart_delay = "50ms"
'''


def a_killed_daemon_is_brought_back_and_no_program_runs_twice():
    with Service(JEALOUS, SOON) as service:
        service.start()
        service.said("jealous: alone")
        for restarts in (1, 2, 3):
            until("its whole family is there", lambda: len(service.processes(service.unit)) == 5)
            before = set(service.processes(service.unit))
            service.kill(service.pid)
            until("systemd brings it back", lambda: service.get("NRestarts") == str(restarts) and service.get("ActiveState") == "active")
            service.said("jealous: alone", times=restarts + 1)
            expect(not before & set(service.processes(service.unit)), "something outlived the daemon")
        expect(not any("two of us" in line["MESSAGE"] for line in service.journal()), "two ran at once")


def a_wedged_loop_is_killed_by_the_watchdog():
    with Service(SLEEPER.format("one", 1001), SOON, "WatchdogSec=1", "LimitCORE=0") as service:
        service.start()
        # While the loop turns, systemd hears of it.
        daemon, heard = service.pid, set()
        until("five signs of life", lambda: heard.add(service.get("WatchdogTimestampMonotonic")) or len(heard) > 5)
        expect(service.pid == daemon and service.get("NRestarts") == "0", "it was killed while its loop turned")
        with service.stopped_thread(daemon):
            stopped = time.monotonic()
            service.said("Watchdog timeout")
            took = time.monotonic() - stopped
        until("systemd brings it back", lambda: service.get("NRestarts") == "1" and service.get("ActiveState") == "active")
        expect(service.pid != daemon and len(service.running("sleep 1001")) == 1, f"{service.processes(service.unit)}")
        expect("watchdog" in service.said("Failed with result")["MESSAGE"], "it did not end by the watchdog")
        # Said to be alive by nobody but the loop: other threads went on.
        expect(took < 10, f"the watchdog took {took:.1f} s")
        return f"killed {took:.1f} s after its loop stood still, with WatchdogSec=1"


def a_flood_of_news_does_not_keep_the_watchdog_waiting():
    with Service('''
[programs.flood]
instances = 8
command = ["python3", "-c", """
import os, socket
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect(os.environ['NOTIFY_SOCKET'].replace('@', chr(0)))
to.send(b'READY=1')
while True: to.send(b'STATUS=busy')
"""]
ready = "notify"
[programs.flapping]
command = ["false"]
restart_delay = "50ms"
crash_threshold = 1000
''', "WatchdogSec=2") as service:
        service.start()
        daemon, heard = service.pid, set()
        until("five signs of life", lambda: heard.add(service.get("WatchdogTimestampMonotonic")) or len(heard) > 5)
        expect(service.pid == daemon and service.get("NRestarts") == "0", "it was killed while its loop turned")
        until("back-offs end", lambda: service.program("flapping")["crashes"] > 1)


LOOP = '''
[programs.looping]
command         = ["false"]
restart_delay   = "50ms"
crash_threshold = 3
'''


def a_crash_loop_ends_the_daemon_with_1_and_systemd_starts_it_again():
    with Service(LOOP, SOON, "WatchdogSec=1", config=DAEMON + '[metrics]\nlinger = "4s"\n' + LOOP) as service:
        service.run("systemctl", "start", "--no-block", service.unit)
        service.said("looping: gave up: crash loop", times=2)
        until("systemd counts", lambda: int(service.get("NRestarts")) >= 1)
        expect("status=1/FAILURE" in service.said("Main process exited")["MESSAGE"], "it did not end with 1")
        service.run("systemctl", "stop", service.unit)
        service.is_gone()
        # Whoever scraped it gets the final numbers; waiting for that is neither a failed stop nor a wedged loop.
        service.configure('[metrics]\nlinger = "4s"\n' + LOOP + SLEEPER.format("steady", 1001) + 'critical = true\nrestart = "never"\nready = "alive:1s"\n')
        before = int(service.get("NRestarts"))
        service.start()
        service.run("python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:10477/metrics').read()")
        service.kill(service.program("steady")["pid"])
        service.said("serving the final metrics")
        began = time.monotonic()
        until("systemd starts it again", lambda: int(service.get("NRestarts")) > before)
        waited = time.monotonic() - began
        expect("result 'exit-code'" in service.said("Failed with result")["MESSAGE"], "the linger was cut short")
        expect(waited > 3, f"it served the final metrics for {waited:.1f} s only")


def a_configuration_that_cannot_work_is_not_tried_again():
    with Service("nonsense = 1\n", SOON) as service:
        failed = service.run("systemctl", "start", service.unit, check=False)
        expect(failed.returncode != 0, "it started")
        expect(service.show(service.unit, "ActiveState", "Result", "ExecMainStatus", "NRestarts") ==
               {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "2", "NRestarts": "0"}, "it was tried again")
        expect("nonsense" in service.said("nonsense")["MESSAGE"], "the journal does not say what is wrong")


def the_journal_has_every_line_with_its_level():
    talker = '''
[programs.talker]
command = ["sh", "-c", "echo to stdout; echo to stderr >&2; echo '<0>forged'; exec sleep 1001"]
[programs.broken]
command = ["false"]
restart = "never"
[programs.killed]
command = ["sh", "-c", "kill -9 $$"]
crash_threshold = 1
'''
    with Service("", config=DAEMON.replace("/var/log/eternal/daemon.log", "") + talker) as service:
        unit = service.run("eternal", "systemd-unit").stdout
        expect("LogRateLimitIntervalSec=0" in unit and "LogsDirectory" not in unit, f"not a unit for the journal alone:\n{unit}")
        service.path("/etc/systemd/system/eternal.service").write_text(unit)
        service.run("systemctl", "daemon-reload")
        service.start()
        for words, level in {
            "talker: to stdout": 6, "talker: to stderr": 5, "talker: <0>forged": 6, "talker: started": 6,
            "killed: exited: SIGKILL": 4, "killed: gave up": 3, "broken: failed": 3,
        }.items():
            line = service.said(words)
            expect(line["PRIORITY"] == str(level), f"{line['MESSAGE']!r} has level {line['PRIORITY']}, not {level}")
            expect(line["MESSAGE"].startswith(words), f"{line['MESSAGE']!r} has more than its words before it")
        expect("to stdout" in service.run("eternal", "logs", "talker").stdout, "`eternal logs` does not know it")
        expect(not service.path("/var/log/eternal").exists(), "/var/log/eternal is there")
        errors = service.run("journalctl", "--unit", service.unit, "--priority=err", "--output=cat", "--no-pager").stdout
        expect("killed: gave up" in errors and "talker" not in errors, errors)


def a_stop_leaves_nothing_and_systemd_has_nothing_to_kill():
    with Service(JEALOUS + SLEEPER.format("one", 1003)) as service:
        service.start()
        service.said("jealous: alone")
        began = time.monotonic()
        service.run("systemctl", "stop", service.unit)
        took = time.monotonic() - began
        expect(service.show(service.unit, "ActiveState", "Result", "ExecMainStatus") ==
               {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}, "it did not end well")
        for words in ("sleep 1001", "sleep 1002", "sleep 1003"):
            expect(not service.running(words), f"{words} is there")
        service.is_gone()
        lines = [line["MESSAGE"] for line in service.journal()]
        expect(not any("Killing process" in line for line in lines), "\n".join(lines))
        expect(any("one: statistics" in line for line in lines), "no final statistics")
        return f"{took:.2f} s with a grace of 0.3 s"


def programs_live_in_the_sandbox_and_have_a_delegated_cgroup():
    group = "/sys/fs/cgroup/system.slice"
    checks = {
        "writes where it runs": "touch /var/lib/eternal/mine",
        "makes a cgroup below its own": f"mkdir {group}/eternal.service/mine && rmdir {group}/eternal.service/mine",
        "makes no cgroup elsewhere": f"! mkdir {group}/other",
        "does not write to /etc": "! touch /etc/other",
        "does not write to /usr": "! touch /usr/other",
        "has a /tmp of its own": "test ! -e /tmp/outside && touch /tmp/inside",
        "sees no homes": "! ls /root",
        "is not root": "test $(id -un) = eternal",
        "has no capabilities": "grep -q '^CapEff:.0*$' /proc/self/status",
        "makes no namespaces": "! unshare --user true",
        "reads /proc": "cat /proc/stat /proc/uptime /proc/sys/kernel/random/boot_id",
        "is not spoken to by systemd": 'test -z "$WATCHDOG_USEC" && test "$NOTIFY_SOCKET" != /run/systemd/notify',
    }
    script = "".join(f"( {command} ) >/dev/null 2>&1 && echo 'yes: {what}' || echo 'no: {what}'\n" for what, command in checks.items())
    program = '[programs.check]\ncommand = ["sh", "-c", "sh /etc/eternal/check.sh; exec sleep 1001"]\n'
    with Service(program, files={"/etc/eternal/check.sh": script}) as service:
        service.path("/tmp/outside").touch()
        service.start()
        for what in checks:
            service.said(f": {what}")
            expect(any(line["MESSAGE"] == f"check: yes: {what}" for line in service.journal()), f"not so: {what}")
        expect(not service.path("/tmp/inside").exists(), "/tmp is everybody's")


def programs_of_other_users():
    config = DAEMON + '''
[programs.worker]
command = ["sh", "-c", """
id -un; id -gn; grep ^CapEff /proc/self/status
touch /srv/worker/mine
test -r /etc/shadow && echo reads shadow
setsid sh -c 'sleep 1001 &'
exec sleep 1002
"""]
user = "worker"
working_directory = "/srv/worker"
restart_delay = "50ms"
[programs.notifier]
command = ["sh", "-c", "systemd-notify --ready; exec sleep 1003"]
ready   = "notify"
user    = "nobody"
'''
    with Service("", config=config) as service:
        service.run("useradd", "--system", "--create-home", "--home-dir", "/srv/worker", "worker")
        printed = service.run("eternal", "systemd-unit")
        expect("User=" not in printed.stdout and "CAP_SETUID" in printed.stdout, f"not a unit for users:\n{printed.stdout}")
        expect("ReadWritePaths=/srv/worker\n" in printed.stdout, "the working directory cannot be written to")
        service.path("/etc/systemd/system/eternal.service").write_text(printed.stdout.replace("RestartSec=10", SOON))
        said = service.run("systemd-analyze", "verify", "--recursive-errors=no", "/etc/systemd/system/eternal.service")
        expect(not said.stderr, said.stderr)
        service.run("systemctl", "daemon-reload")
        service.start()
        uid = service.run("id", "-u", "worker").stdout.strip()
        worker = service.program("worker")
        status = service.path(f"/proc/{worker['pid']}/status").read_text()
        expect(f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status, status)
        expect(re.search(r"^CapEff:\t0+$", status, re.M) and re.search(r"^CapPrm:\t0+$", status, re.M), status)
        expect(service.path("/srv/worker/mine").stat().st_uid == int(uid), "its file is not its own")
        expect(not any("reads shadow" in line["MESSAGE"] for line in service.journal()), "it reads what is root's")
        # What another user's processes use, descriptors too, can be read.
        def measured():
            page = service.run("python3", "-c", "import urllib.request as u; print(u.urlopen('http://127.0.0.1:10477/metrics').read().decode())").stdout
            found = dict(re.findall(r'^eternal_program_(processes|open_fds|resident_memory_bytes|read_bytes_total)\{program="worker".*\} (\S+)$', page, re.M))
            return found if float(found.get("processes", 0)) == 2 else None
        usage = until("the process that left the group is counted", measured)
        expect(len(usage) == 4 and all(float(value) > 0 for key, value in usage.items() if key != "read_bytes_total"), f"{usage}")
        # A stop finds what left the group, and whose it was is in its environment alone.
        service.run("eternal", "stop", "worker")
        expect(not service.running("sleep 1001") and not service.running("sleep 1002"), "a stop left something")
        service.run("eternal", "start", "worker")
        service.kill(service.pid)
        until("systemd brings it back", lambda: service.get("NRestarts") == "1" and service.get("ActiveState") == "active")
        for words in ("sleep 1001", "sleep 1002", "sleep 1003"):
            until(f"{words} is back", lambda w=words: len(service.running(w)) == 1)
        service.run("systemctl", "reload", service.unit)
        service.run("systemctl", "stop", service.unit)
        expect(service.get("Result") == "success", service.get("Result"))
        service.is_gone()
