#!/usr/bin/env python3
"""From a crash to the page, for real: Eternal, Prometheus, Alertmanager, a webhook, all on loopback.

The shipped alerts/eternal.rules.yml and alerts/alertmanager.yml are used, with every duration divided by 7.5
(scale.py), as is the scrape interval: 2 s for 15 s. Expressions, counts, routes and inhibition are as shipped.

Usage: live.py [--binary PATH]               the scenarios, under two and a half minutes
       live.py --unscaled [--mixins]         seconds from a first crash to the webhook with the shipped durations and
                                             15 s scrapes (3 minutes); --mixins: go on until the rules of
                                             alerts/comparison.rules.yml have fired too (20 minutes)
       live.py --self-test                   scale.py alone

Without --binary, the debug build is made. As root, Debian's prometheus and prometheus-alertmanager are installed
where they are missing. Standard library only.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import dashboards  # noqa: E402
import scale_test  # noqa: E402
import unscaled  # noqa: E402
from stack import ROOT, Failure, Stack, until  # noqa: E402

# Scrapes come late by tenths of a second on a busy machine, and a smaller scale makes more of that.
FACTOR, SCRAPE = 7.5, 2
LOOP, GAVE_UP, DOWN = "EternalProgramCrashLooping", "EternalProgramGaveUp", "EternalSupervisorDown"
# Deadlines are for a machine that is busy with other things.
PATIENCE = 150
EAGER = ['restart_delay = "100ms"', 'restart_delay_max = "500ms"']
CHECKED = [*EAGER, 'health_check = "exec:true"', 'health_interval = "1s"']
NEVER_GIVES_UP = [*EAGER, "crash_threshold = 100000"]


def seen_healthy(stack, daemon):
    """Waits until Prometheus knows every program of the daemon at zero crashes: what comes next is an increase."""
    count = f'count(eternal_program_crashes_total{{instance="{daemon.instance}"}} == 0)'
    until(f"Prometheus knows {daemon.name}", lambda: stack.number(count) == len(daemon.programs), PATIENCE)


def a_crash_loop_pages_and_recovery_resolves_it(stack, daemon):
    seen_healthy(stack, daemon)
    broken = daemon.break_program("flapping")
    where = {"instance": daemon.instance, "program": "flapping"}
    paged = stack.hook.wait(PATIENCE, "page", "firing", alertname=LOOP, **where)
    stack.peak = time.time()
    daemon.tell("stop", "spare")
    daemon.tell("start", "spare")
    daemon.mend("flapping")
    mended = time.monotonic()
    resolved = stack.hook.wait(PATIENCE, "page", "resolved", since=mended, alertname=LOOP, **where)
    if others := [a["labels"] for _, a in stack.hook.alerts(instance=daemon.instance, program="steady")]:
        raise Failure(f"its neighbour was told of as well: {others}")
    return f"paged {paged - broken:.1f} s after the first crash, resolved {resolved - mended:.1f} s after it was mended"


def giving_up_pages_although_the_daemon_ends(stack, daemon):
    seen_healthy(stack, daemon)
    broken = daemon.break_program("only")
    paged = stack.hook.wait(PATIENCE, "page", "firing", alertname=GAVE_UP, instance=daemon.instance, program="only")
    if (code := daemon.process.wait(PATIENCE)) != 1:
        raise Failure(f"the daemon ended with {code}, not with 1")
    ended = time.monotonic()
    stack.hook.wait(PATIENCE, "page", "firing", since=broken, alertname=DOWN, instance=daemon.instance)
    return f"paged {paged - broken:.1f} s after the first crash, the daemon ended with 1 after {ended - broken:.1f} s"


def a_give_up_that_is_mended_pages_once(stack, daemon):
    seen_healthy(stack, daemon)
    broken = daemon.break_program("failing")
    where = {"instance": daemon.instance}
    paged = stack.hook.wait(PATIENCE, "page", "firing", alertname=GAVE_UP, program="failing", **where)
    daemon.mend("failing")
    daemon.tell("start", "failing")
    mended = time.monotonic()
    resolved = stack.hook.wait(PATIENCE, "page", "resolved", since=mended, alertname=GAVE_UP, program="failing", **where)
    # One evaluation and one group interval more, for whatever it inhibited.
    quiet = time.time() + 2 * 60 / FACTOR
    until("time passes for Prometheus", lambda: (stack.number("vector(time())") or 0) > quiet, PATIENCE)
    if more := {a["labels"]["alertname"] for _, a in stack.hook.alerts(status="firing", **where)} - {GAVE_UP}:
        raise Failure(f"paged for {more} as well")
    return f"paged {paged - broken:.1f} s after the first crash, resolved {resolved - mended:.1f} s after it was mended"


def a_killed_daemon_pages_and_silences_its_programs(stack, daemon):
    seen_healthy(stack, daemon)
    daemon.break_program("flapping")
    stack.hook.wait(PATIENCE, "page", "firing", alertname=LOOP, instance=daemon.instance, program="flapping")
    orphan = daemon.pid("steady")
    daemon.process.kill()
    killed = time.monotonic()
    paged = stack.hook.wait(PATIENCE, "page", "firing", since=killed, alertname=DOWN, instance=daemon.instance)
    alerts = stack.suppressed(instance=daemon.instance)
    programs = {name: by for name, by in alerts.items() if name.startswith("EternalProgram")}
    if LOOP not in programs or not all(DOWN in by for by in programs.values()):
        raise Failure(f"not every alert of a program is inhibited by {DOWN}: {alerts}")
    daemon.mend("flapping")
    daemon.start()
    stack.hook.wait(PATIENCE, "page", "resolved", since=paged, alertname=DOWN, instance=daemon.instance)
    if pathlib.Path(f"/proc/{orphan}").exists():
        raise Failure(f"pid {orphan} of the killed daemon outlived the start of the next one")
    return f"paged {paged - killed:.1f} s after the kill, inhibited then: {', '.join(sorted(programs))}"


def a_deploy_of_twenty_programs_pages_nobody(stack, daemon):
    seen_healthy(stack, daemon)
    restarts = f'count(eternal_program_restarts_total{{instance="{daemon.instance}", cause="config"}} >= %d)'
    (daemon.folder / "eternal.toml").write_text("nonsense = 1\n")
    daemon.refuses("reload")
    daemon.write_config(RELEASE="2")
    daemon.tell("reload")
    until("Prometheus saw twenty restarts", lambda: stack.number(restarts % 1) == 20, PATIENCE)
    daemon.process.send_signal(signal.SIGHUP)
    until("Prometheus saw twenty more", lambda: stack.number(restarts % 2) == 20, PATIENCE)
    # The longest `for` of a page is 5 minutes; with the minute that its expression looks back it has had its time after this.
    quiet = time.time() + (5 + 1) * 60 / FACTOR + 5
    until("time passes for Prometheus", lambda: (stack.number("vector(time())") or 0) > quiet, PATIENCE)
    since = max(1, int(time.time() - stack.started))
    told = {a["labels"]["alertname"] for _, a in stack.hook.alerts(instance=daemon.instance)}
    fired = stack.query(f'count_over_time(ALERTS{{instance="{daemon.instance}", alertstate="firing"}}[{since}s])')
    if told or fired:
        raise Failure(f"told: {told}, fired: {sorted((s['metric']['alertname'], s['metric'].get('program')) for s in fired)}")
    pending = stack.query(f'count_over_time(ALERTS{{instance="{daemon.instance}", alertstate="pending"}}[{since}s])')
    return f"40 restarts and a refused reload, nothing fired; pending meanwhile: {sorted({s['metric']['alertname'] for s in pending}) or 'nothing'}"


def the_watchdog_arrives_again_and_again(stack, _):
    stack.hook.wait(PATIENCE, "dead-mans-switch", "firing", count=3, alertname="Watchdog")
    came = sorted({at for at, _ in stack.hook.alerts("dead-mans-switch", alertname="Watchdog")})
    if stray := [a for to in ("page", "warning", "nobody") for a in stack.hook.alerts(to, alertname="Watchdog")]:
        raise Failure(f"it came to somebody else too: {stray}")
    return f"{len(came)} times, {came[1] - came[0]:.1f} s apart"


def scenarios(stack):
    """Starts the daemons and returns (scenario, its daemon)."""
    fleet = {f"web{n:02}": EAGER for n in range(20)}
    return [
        (a_crash_loop_pages_and_recovery_resolves_it, stack.daemon("loop", {"flapping": NEVER_GIVES_UP, "steady": EAGER, "spare": CHECKED})),
        (giving_up_pages_although_the_daemon_ends, stack.daemon("giveup", {"only": EAGER})),
        (a_give_up_that_is_mended_pages_once, stack.daemon("mended", {"failing": EAGER, "steady": EAGER})),
        (a_killed_daemon_pages_and_silences_its_programs, stack.daemon("killed", {"flapping": NEVER_GIVES_UP, "steady": EAGER})),
        (a_deploy_of_twenty_programs_pages_nobody, stack.daemon("deploy", fleet)),
        (the_watchdog_arrives_again_and_again, None),
    ]


def run_scenarios(binary):
    """Runs all scenarios side by side against one Prometheus, then asks the dashboards. Returns whether all held."""
    stack, held, begin = Stack(binary, FACTOR, SCRAPE, daemons=5), True, time.monotonic()
    try:
        pairs = scenarios(stack)
        stack.start()
        with concurrent.futures.ThreadPoolExecutor(len(pairs)) as pool:
            running = [(s.__name__, pool.submit(s, stack, daemon)) for s, daemon in pairs]
        running.append(("every_query_of_the_dashboards_is_answered", None))
        for name, future in running:
            try:
                said = future.result() if future else dashboards.check(stack, stack.started, stack.peak, time.time())
                print(f"ok   {name.replace('_', ' ')}: {said}")
            except Exception as failure:  # noqa: BLE001: whatever went wrong, the others are told too
                held = False
                print(f"FAIL {name.replace('_', ' ')}: {type(failure).__name__}: {failure}")
        print(f"{'all held' if held else 'FAILED'} in {time.monotonic() - begin:.0f} s")
        if not held:
            print(stack.logs(), file=sys.stderr)
    finally:
        stack.close()
    return held


def install():
    missing = [p for p in ("prometheus", "prometheus-alertmanager") if not shutil.which(p)]
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"live.py needs {' and '.join(missing)}, and only root can install packages")
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], check=True, **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, **quiet)


def built():
    """Builds Eternal and returns the path of the binary."""
    subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/eternal"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--unscaled", action="store_true")
    parser.add_argument("--mixins", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    # So that `finally` runs when somebody ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scale_test.run()
    if options.self_test:
        return 0
    install()
    binary = (options.binary or built()).resolve()
    if options.unscaled or options.mixins:
        return unscaled.run(binary, options.mixins)
    return 0 if run_scenarios(binary) else 1


if __name__ == "__main__":
    sys.exit(main())
