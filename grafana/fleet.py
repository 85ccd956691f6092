"""The fleet: is anything wrong anywhere, and where."""

from parts import *

CRASHED_5M = increase(of_program("eternal_program_crashes_total"), "5m")
CRASHED_1H = increase(of_program("eternal_program_crashes_total"), "1h")
CRASHED_6H = increase(of_program("eternal_program_crashes_total"), "6h")
CRASHED_30M = increase(of_program("eternal_program_crashes_total"), "30m")
CRASHED_BEFORE = f'increase({of_program("eternal_program_crashes_total", window="330m")} offset 30m)'
WORST = f"topk(20, sum by ({REPLICA}) ({CRASHED_1H}) > 0)"
SINCE_1H = of_program("instance_program:eternal_program_unavailable:avg1h")
SINCE_3D = of_program("instance_program:eternal_program_unavailable:avg3d")


def in_state(state):
    seen = of_program("eternal_program_state", f'state="{state}"', window="5m")
    return f"max without (state) (max_over_time({seen})) == 1"


def crash_loops():
    return stat(
        "Crash loops now",
        "Programs that crashed at least 3 times in 5 minutes and at least 5 times in an hour.",
        now(count_of(f"{CRASHED_5M} >= 3 and {CRASHED_1H} >= 5")),
        unit="none",
        thresholds=steps((1, CRITICAL)),
        alerts=["EternalProgramCrashLooping"],
    )


def slow_crash_loops():
    return stat(
        "Slow crash loops",
        "Programs that crashed at least twice in the last hour and at least 8 times in six, in the last half hour and before it: too slowly "
        "for the supervisor to give up.",
        now(count_of(f"{CRASHED_1H} >= 2 and {CRASHED_6H} >= 8 and {CRASHED_30M} >= 1 and {CRASHED_BEFORE} >= 1")),
        unit="none",
        thresholds=steps((1, WARNING)),
        alerts=["EternalProgramCrashLoopingSlow"],
    )


def given_up():
    gave_up = increase(of_program("eternal_program_gave_up_total"), "5m")
    return stat(
        "Given up",
        "Programs in state failed within the last 5 minutes, or given up since: not started again unless somebody does.",
        now(count_of(f"{in_state('failed')} or {gave_up} > 0")),
        unit="none",
        thresholds=steps((1, CRITICAL)),
        alerts=["EternalProgramGaveUp"],
    )


def in_backoff():
    return stat(
        "In back-off",
        "Programs that waited for a restart within the last 5 minutes. Longer than 15 minutes at a time is an alert.",
        now(count_of(in_state("backoff"))),
        unit="none",
        width=6,
        thresholds=steps((1, WARNING)),
        alerts=["EternalProgramStuckInBackoff"],
    )


def not_running():
    wanted = f'min_over_time({of_program("eternal_program_desired_running", window="1m")}) == 1'
    there = f'max_over_time({of_program("eternal_program_up", window="1m")}) == 1'
    return stat(
        "Not running",
        "Programs that somebody wants to run and that have no process. Longer than 5 minutes is an alert.",
        now(count_of(f"{wanted} unless {there}")),
        unit="none",
        width=6,
        thresholds=steps((1, CRITICAL)),
        alerts=["EternalProgramNotRunning"],
    )


def supervisors():
    seen = f'max_over_time({of_daemon("up", window="1m")})'
    return [
        stat(
            "Supervisors up",
            "Supervisors that Prometheus reached within the last minute. No value at all: Prometheus has no such target.",
            now(f"sum({seen})"),
            unit="none",
            alerts=["EternalSupervisorAbsent"],
        ),
        stat(
            "Supervisors down",
            "Supervisors that Prometheus has not reached for a minute. Nothing is known about their programs.",
            now(count_of(f"{seen} == 0")),
            unit="none",
            thresholds=steps((1, CRITICAL)),
            alerts=["EternalSupervisorDown"],
        ),
        stat(
            "Programs",
            "Replicas of programs that the chosen supervisors know.",
            now(f'count({of_program("eternal_program_up")})'),
            unit="none",
        ),
    ]


def availability():
    return [
        stat(
            "Worst availability, 1 h",
            "Of the time a program was wanted in the last hour, the share it had a process: the worst program. Needs the recording rules.",
            now(f"1 - max({SINCE_1H})"),
            unit="percentunit",
            width=6,
            decimals=3,
            max=1,
            thresholds=steps((0.9856, OK), base=CRITICAL),
            alerts=["EternalProgramAvailabilityBurnFast"],
        ),
        stat(
            "Worst availability, 3 d",
            "Of the time a program was wanted in the last three days, the share it had a process: the worst program. Needs the recording rules.",
            now(f"1 - max({SINCE_3D})"),
            unit="percentunit",
            width=6,
            decimals=3,
            max=1,
            thresholds=steps((0.999, OK), base=WARNING),
            alerts=["EternalProgramAvailabilityBurnSlow"],
        ),
    ]


def trends():
    states = f'sum by (state) ({of_program("eternal_program_state")})'
    unavailable = of_program("instance_program:eternal_program_unavailable:avg5m")
    crashed = f'sum by (reason) ({increase(of_program("eternal_program_exits_total", CRASHES))})'
    restarted = f'sum by (cause) ({increase(of_program("eternal_program_restarts_total"))})'
    return [
        series("Programs by state", "Replicas in each state.", query(states, "{{state}}"), unit="none", stacked=True, overrides=colours(STATES)),
        series(
            "Crashes by reason",
            "Crashes within each step of the graph, over all chosen programs.",
            query(crashed, "{{reason}}"),
            unit="short",
            stacked=True,
            bars=True,
            overrides=colours(CRASH_REASONS),
        ),
        series(
            "Availability",
            "Of the time its programs were wanted, the share they had a process, by supervisor over 5 minutes. Needs the recording rules.",
            query(f"1 - avg by (instance) ({unavailable})", "{{instance}}"),
            unit="percentunit",
            min=None,
            max=1,
        ),
        series(
            "Restarts by cause",
            "Restarts within each step of the graph, over all chosen programs.",
            query(restarted, "{{cause}}"),
            unit="short",
            stacked=True,
            bars=True,
            overrides=colours(CAUSES),
        ),
    ]


def worst_programs():
    among = f"and on ({REPLICA}) {WORST}"
    left = of_program("eternal_program_crash_budget_remaining")
    targets = [
        table_now(WORST),
        table_now(f"sum by ({REPLICA}) ({CRASHED_6H}) {among}"),
        table_now(f"min by ({REPLICA}) ({left}) {among}"),
    ]
    renamed = {"Value #A": "Crashes, 1 h", "Value #B": "Crashes, 6 h", "Value #C": "Crashes left"}
    coloured = {"custom__cellOptions": {"type": "color-text"}}
    return table(
        "Worst programs",
        "The twenty programs with the most crashes in the last hour, and how many more each has before it is given up.",
        targets,
        renamed=renamed,
        unit="none",
        decimals=0,
        width=12,
        height=10,
        overrides=[
            override("program", links=ROW_LINK),
            *widths(replica=70, **{"Crashes left": 110}),
            override("Crashes, 1 h", custom__width=110, thresholds=steps((2, WARNING), (5, CRITICAL)), **coloured),
            override("Crashes, 6 h", custom__width=110, thresholds=steps((8, WARNING)), **coloured),
        ],
        alerts=["EternalProgramCrashLooping", "EternalProgramCrashLoopingSlow"],
    )


def firing():
    return table(
        "Alerts firing",
        "Alerts of the chosen supervisors and programs that fire.",
        table_now(of_daemon("ALERTS", 'alertstate="firing"')),
        hidden=("Time", "job", "Value", "__name__", "alertstate"),
        unit="none",
        width=12,
        height=10,
        overrides=[
            override("alertname", custom__width=250, links=[{"title": "Runbook", "url": RUNBOOKS + "${__value.raw}", "targetBlank": True}]),
            *widths(replica=70, severity=80),
        ],
        alerts=["Watchdog"],
    )


def board():
    sections = {
        "Now": [*supervisors(), given_up(), crash_loops(), slow_crash_loops(), in_backoff(), not_running(), *availability()],
        "Where": [worst_programs(), firing()],
        "Trends": trends(),
    }
    return dashboard("eternal-fleet", "Eternal / Fleet", "Is anything wrong anywhere, and where.", sections)
