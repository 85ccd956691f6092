"""How long it takes to page with the shipped durations: 15 s scrapes, nothing scaled.

Two daemons with the default restart policy: in one the only program dies at once and is given up (five crashes
in 15 s); in the other the limit is out of reach and the back-off doubles to 30 s. The rules of
alerts/comparison.rules.yml, which are written after those of two well-known mixins, watch the same series.
"""
import time

from stack import ROOT, Failure, Stack, until

OURS = {"given up": ("EternalProgramGaveUp", "EternalProgramCrashLooping"), "never given up": ("EternalProgramCrashLooping",)}
THEIRS = ("LikeKubePodCrashLooping", "LikeNodeSystemdServiceCrashlooping")
SCRAPE = 15


def run(binary, mixins):
    """Prints the table. Returns 0, or 1 when a page of ours did not come."""
    stack = Stack(binary, 1, SCRAPE, daemons=2, more_rules=[ROOT / "alerts/comparison.rules.yml"])
    try:
        daemons = {
            "given up": stack.daemon("giveup", {"web": []}),
            "never given up": stack.daemon("loop", {"web": ["crash_threshold = 100000"]}),
        }
        stack.start()
        for daemon in daemons.values():
            known = f'count_over_time(eternal_program_crashes_total{{instance="{daemon.instance}"}}[10m]) >= 2'
            until("Prometheus scraped it twice", lambda known=known: stack.query(known), 120)
        crashed = {history: (daemon.break_program("web"), time.time()) for history, daemon in daemons.items()}
        print("history, alert: seconds from the first crash to the firing alert, and to the webhook", flush=True)
        for history, names in OURS.items():
            for name in names:
                print(_line(stack, history, name, daemons[history], crashed[history]), flush=True)
        end = time.monotonic() + (1200 if mixins else 0)
        for name in THEIRS:
            for history in daemons:
                print(_mixin(stack, history, name, daemons[history], crashed[history], end), flush=True)
    except Failure as failure:
        print(f"FAIL {failure}\n{stack.logs()}")
        return 1
    finally:
        stack.close()
    return 0


def _fired(stack, name, daemon, crashed):
    """Returns seconds from the crash until the alert first fired for Prometheus, or None."""
    selector = f'ALERTS{{alertname="{name}", alertstate="firing", instance="{daemon.instance}"}}'
    first = stack.number(f"min(min_over_time(timestamp({selector})[1h:{SCRAPE}s]))")
    return first and first - crashed[1]


def _line(stack, history, name, daemon, crashed):
    # Inhibited alerts do not come to the webhook: giving up implies the loop, and its page is the first one.
    if history == "given up" and name == "EternalProgramCrashLooping":
        fired = until(f"{name} fires", lambda: _fired(stack, name, daemon, crashed), 300)
        return f"{history}, {name}: {fired:.0f}, inhibited by EternalProgramGaveUp"
    came = stack.hook.wait(300, "page", "firing", alertname=name, instance=daemon.instance)
    fired = until(f"{name} is recorded", lambda: _fired(stack, name, daemon, crashed), 60)
    return f"{history}, {name}: {fired:.0f}, {came - crashed[0]:.1f}"


def _mixin(stack, history, name, daemon, crashed, end):
    # The history of a program that was given up is over: whatever has not fired when the other has never will.
    while history != "given up" and _fired(stack, name, daemon, crashed) is None and time.monotonic() < end:
        time.sleep(SCRAPE)
    fired = _fired(stack, name, daemon, crashed)
    return f"{history}, {name}: " + (f"{fired:.0f}" if fired is not None else f"not in {time.time() - crashed[1]:.0f}")
