#!/usr/bin/env python3
"""The image for real: built by deploy/container/build.sh with buildah, run by podman with runc; and the same files as
the root of a bare pid namespace.

Usage: container.py [--binary FILE]      FILE is a static binary; without it the debug build is linked statically

As root on Debian, buildah, podman, runc and busybox-static are installed where they are missing. Standard library only.
"""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import bare  # noqa: E402
from engine import ROOT, Engine, Failure, must, until  # noqa: E402

ETERNAL = "/usr/local/bin/eternal"
TMPFS = ["--tmpfs", "/run/eternal:mode=1777"]
# As tight as it gets. podman would otherwise put a tmpfs over all of /run.
LOCKED = ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
PLACES = '[daemon]\nlog_file = ""\npid_file = "/run/eternal/pid"\nsocket = "/run/eternal/sock"\nstate_dir = "/run/eternal/state"\n'
METRICS = '[metrics]\nlisten = "0.0.0.0:10477"\n'


def program(name, script, *keys):
    return f"[programs.{name}]\ncommand = ['/bin/busybox', 'sh', '-c', '''{script}''']\n" + "\n".join(keys) + "\n"


def it_holds_the_binary_and_a_config_and_nothing_else(engine):
    where = engine.podman("image", "mount", "localhost/eternal").stdout.strip()
    files = {str(p.relative_to(where)): p for p in pathlib.Path(where).rglob("*") if not p.is_dir()}
    must(set(files) == {"usr/local/bin/eternal", "etc/eternal/eternal.toml"}, f"it holds {sorted(files)}")
    must((pathlib.Path(where) / "run/eternal").stat().st_mode & 0o7777 == 0o1777, "/run/eternal is not for everyone")
    size = sum(p.stat().st_size for p in files.values())
    return f"{size / 2**20:.1f} MiB"


def a_read_only_root_and_a_user_nobody_knows_are_enough(engine):
    begin = time.monotonic()
    one = engine.start("locked", *LOCKED, *TMPFS, "--user", "1234567:7654321")
    one.ready()
    took = time.monotonic() - begin
    must(one.healthcheck() == (0, "healthy\n"), f"the health check says {one.healthcheck()}")
    must(one.healthcheck_of_the_image(), "the HEALTHCHECK of the image fails")
    status = one.status()
    must(status["daemon"]["pid"] == 1, f"it is pid {status['daemon']['pid']}")
    must([p["state"] for p in status["programs"]] == ["running"], f"{status['programs']}")
    ids = pathlib.Path(f"/proc/{one.pid()}/status").read_text()
    for line in ("Uid:\t1234567\t1234567\t1234567\t1234567", "Gid:\t7654321\t7654321\t7654321\t7654321", "CapEff:\t0000000000000000"):
        must(line in ids, f"not {line!r}:\n{ids}")
    return f"ready, as seen through podman, after {took:.2f} s"


def the_image_works_without_any_option(engine):
    one = engine.start("plain")
    one.ready()
    ids = pathlib.Path(f"/proc/{one.pid()}/status").read_text()
    must("Uid:\t65532\t" in ids, ids)
    return "as user 65532"


def a_place_it_cannot_write_to_is_named(engine):
    one = engine.start("nowhere", *LOCKED)
    code = one.exit_code()
    must(code == 2 and "/run/eternal" in one.log(), f"{code}: {one.log()}")
    return one.log().strip().splitlines()[-1]


def a_stop_is_graceful_and_ends_with_0(engine):
    trap = program("web", "trap 'echo bye; exit 0' TERM; echo up; while :; do /bin/busybox sleep 0.05; done")
    one = engine.start("stop", *LOCKED, *TMPFS, image="localhost/busy", config=PLACES + METRICS + trap)
    one.ready()
    one.logs("up")
    begin = time.monotonic()
    # podman would kill after 30 s, and the exit code would be 137.
    engine.podman("stop", "--time", "30", "stop")
    took = time.monotonic() - begin
    must(one.exit_code() == 0, f"exit code {one.exit_code()}: {one.log()}")
    must("bye" in one.log(), f"its program was not asked: {one.log()}")
    return f"{took:.2f} s"


def signals_reach_the_first_process(engine):
    web = program("web", "exec /bin/busybox sleep 1000")
    one = engine.start("signals", *LOCKED, *TMPFS, image="localhost/busy", config=PLACES + METRICS + web)
    one.ready()
    engine.podman("kill", "--signal", "USR2", "signals")
    one.logs("web: statistics")
    engine.podman("kill", "--signal", "HUP", "signals")
    until("SIGHUP restarts", lambda: one.status()["programs"][0]["restarts_by_cause"].get("config") == 1)
    engine.podman("kill", "--signal", "INT", "signals")
    must(one.exit_code() == 0, f"exit code {one.exit_code()}")
    return "USR2, HUP, INT"


def orphans_are_reaped(engine):
    forks = program("web", "for i in 1 2 3; do (/bin/busybox sleep 0.05 &) ; done; exec /bin/busybox sleep 1000")
    one = engine.start("orphans", *LOCKED, *TMPFS, image="localhost/busy", config=PLACES + METRICS + forks)
    one.ready()
    one.inside("/bin/busybox", "sh", "-c", "(/bin/busybox sleep 0.05 &)")
    reaped = until("the stranger's orphan is counted", lambda: one.metric("eternal_orphans_reaped_total"))
    until("no zombie is left", lambda: not zombies(one.pid()))
    return f"{reaped:.0f} of strangers"


def zombies(pid):
    """Returns the children of a process that nobody waited for."""
    threads = pathlib.Path(f"/proc/{pid}/task").iterdir()
    children = [child for thread in threads for child in (thread / "children").read_text().split()]
    stats = [pathlib.Path(f"/proc/{child}/stat") for child in children]
    return [s for s in stats if s.exists() and s.read_text().rsplit(")", 1)[1].split()[0] == "Z"]


def a_give_up_ends_with_1(engine):
    broken = program("web", "exit 3", 'restart_delay = "10ms"', "crash_threshold = 2")
    one = engine.start("gaveup", *LOCKED, *TMPFS, image="localhost/busy", config=PLACES + METRICS + broken)
    must(one.exit_code() == 1, f"exit code {one.exit_code()}: {one.log()}")
    must("gave up" in one.log(), one.log())
    return "exit code 1"


def users_are_numbers_where_there_is_no_user_database(engine):
    shows = "echo is $(/bin/busybox id -u):$(/bin/busybox id -g); exec /bin/busybox sleep 1000"
    config = PLACES + METRICS + "[defaults]\nrestart = 'never'\nready = 'immediately'\n"
    config += program("number", shows, 'user = "1000"', 'group = "2000"')
    config += program("alone", shows, 'user = "1000"')
    config += program("named", shows, 'user = "web"')
    rights = ["--user", "0:0", "--cap-drop", "all", "--cap-add", "setuid,setgid,kill"]
    one = engine.start("users", "--read-only", *TMPFS, *rights, image="localhost/busy", config=config)
    for words in ("number: is 1000:2000", "user web does not exist", "user 1000 is in no user database, so its group must be configured"):
        one.logs(words)
    # The C library would look where nsswitch.conf says, which is nowhere here.
    for name, text in {"passwd": "web:x:1000:2000::/:/none\n", "group": "web:x:2000:\nlog:x:3000:web\n", "nsswitch.conf": "passwd: systemd\ngroup: systemd\n"}.items():
        (engine.folder / name).write_text(text)
        rights += ["--volume", f"{engine.folder}/{name}:/etc/{name}:ro"]
    config = PLACES + METRICS + program("named", shows.replace("-u)", "-un)").replace("-g)", "-G)"), 'user = "web"')
    engine.start("named", "--read-only", *TMPFS, *rights, image="localhost/busy", config=config).logs("named: is web:2000 3000")
    return "1000:2000; web of /etc/passwd, whatever nsswitch.conf says"


def the_health_check_tells_ill_from_not_ready(engine):
    slow = program("slow", "exec /bin/busybox sleep 1000", 'ready = "exec:/bin/busybox test -e /run/eternal/go"', 'start_timeout = "1h"')
    one = engine.start("health", *LOCKED, *TMPFS, image="localhost/busy", config=PLACES + METRICS + slow)
    until("it is healthy", lambda: one.healthcheck()[0] == 0)
    must(one.healthcheck("--ready") == (1, "eternal: unhealthy: not ready: slow\n"), f"{one.healthcheck('--ready')}")
    one.inside("/bin/busybox", "touch", "/run/eternal/go")
    one.ready()
    os.kill(one.pid(), signal.SIGSTOP)
    must(not one.healthcheck_of_the_image(), "a stopped daemon is healthy")
    os.kill(one.pid(), signal.SIGCONT)
    must(one.healthcheck_of_the_image(), "a daemon that goes on is not healthy")
    return "healthy while not ready, unhealthy while stopped"


SCENARIOS = [
    it_holds_the_binary_and_a_config_and_nothing_else,
    a_read_only_root_and_a_user_nobody_knows_are_enough,
    the_image_works_without_any_option,
    a_place_it_cannot_write_to_is_named,
    a_stop_is_graceful_and_ends_with_0,
    signals_reach_the_first_process,
    orphans_are_reaped,
    a_give_up_ends_with_1,
    users_are_numbers_where_there_is_no_user_database,
    the_health_check_tells_ill_from_not_ready,
    bare.orphans_signals_and_a_give_up_without_an_engine,
]


def install():
    needed = {"buildah": "buildah", "podman": "podman", "runc": "runc", "busybox": "busybox-static"}
    missing = [package for tool, package in needed.items() if not shutil.which(tool)]
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"container.py needs {', '.join(missing)}, and only root can install packages")
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], check=True, **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, **quiet)


def built(folder):
    """Links the debug build once more, statically, and returns where a copy of that is."""
    where = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/eternal"
    cargo = ["--locked", "--quiet", "--bin", "eternal"]
    try:
        # Only the last step takes the flag, so nothing else is built again.
        subprocess.run(["cargo", "rustc", *cargo, "--", "-C", "target-feature=+crt-static"], cwd=ROOT, check=True)
        return pathlib.Path(shutil.copy(where, folder / "eternal-static"))
    finally:
        subprocess.run(["cargo", "build", *cargo], cwd=ROOT, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path)
    options = parser.parse_args()
    # So that `finally` runs when somebody ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0:
        sys.exit("container.py: only root can run containers here")
    install()
    engine, held, begin = Engine(), True, time.monotonic()
    try:
        engine.build((options.binary or built(engine.folder)).resolve())
        for scenario in SCENARIOS:
            name = scenario.__name__.replace("_", " ")
            try:
                print(f"ok   {name}: {scenario(engine)}", flush=True)
            except Exception as failure:  # noqa: BLE001: whatever went wrong, the others are told too
                held = False
                print(f"FAIL {name}: {type(failure).__name__}: {failure}", flush=True)
    finally:
        engine.close()
    print(f"containers: {'all held' if held else 'FAILED'} in {time.monotonic() - begin:.0f} s")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
