"""One program, or a few: how it stands, how it lives, what it uses, what it says."""

from parts import *

STOPS = "eternal_program_stop_escalations_total"
FAILED_CHECKS = "eternal_program_health_check_failures_total"
OOM_EXITS = of_program("eternal_program_exits_total", 'reason="oom"')


def replicas():
    """One row for each: a program may have hundreds."""
    started = f'max by ({REPLICA}) ({of_program("eternal_program_start_time_seconds")})'
    left = f'min by ({REPLICA}) ({of_program("eternal_program_crash_budget_remaining")})'
    next_restart = f'max by ({REPLICA}) ({of_program("eternal_program_next_restart_timestamp_seconds")}) * 1000'
    targets = [state_number(), f"time() - {started}", left, unavailable("1h"), unavailable("3d"), next_restart]
    names = ["State", "Uptime", "Crash budget left", "Availability, 1 h", "Availability, 3 d", "Next restart"]
    coloured = {"custom__cellOptions": {"type": "color-text"}}
    share = {"unit": "percentunit", "decimals": 3, "max": 1, **coloured}
    return table(
        "Replicas",
        "The state of each replica; how long its present run has lasted; crashes left within the crash window before it is given up; of the "
        "time it was wanted, the share it had a process, which needs the recording rules; when the next automatic start is due.",
        [table_now(target) for target in targets],
        renamed={f"Value #{chr(ord('A') + n)}": name for n, name in enumerate(names)},
        unit="none",
        height=7,
        overrides=[
            override("State", mappings=state_mappings(), custom__align="left", **coloured),
            override("Uptime", unit="s"),
            override("Crash budget left", mappings=mapped(_0=("none: it is given up", CRITICAL)), **coloured),
            override("Availability, 1 h", thresholds=steps((0.9856, OK), base=CRITICAL), **share),
            override("Availability, 3 d", thresholds=steps((0.999, OK), base=WARNING), **share),
            override("Next restart", unit="dateTimeFromNow"),
            *widths(replica=80),
        ],
        alerts=["EternalProgramGaveUp", "EternalProgramAvailabilityBurnFast", "EternalProgramAvailabilityBurnSlow"],
    )


def unavailable(window):
    return "1 - max by (%s) (%s)" % (REPLICA, of_program(f"instance_program:eternal_program_unavailable:avg{window}"))


def trouble():
    return [
        crashes("5m", "5 min", (3, CRITICAL), alerts=["EternalProgramCrashLooping"]),
        crashes("1h", "1 h", (2, WARNING), (5, CRITICAL), alerts=["EternalProgramCrashLooping", "EternalProgramCrashLoopingSlow"]),
        crashes("6h", "6 h", (8, WARNING), alerts=["EternalProgramCrashLoopingSlow"]),
        recent(
            "Stops by SIGKILL, 15 min",
            "Stops in the last 15 minutes that outlived the grace period.",
            increase(of_program(STOPS), "15m"),
            "EternalProgramStopEscalated",
        ),
        recent(
            "Starts that hang, 1 min",
            "Replicas of which a start took longer than a second within the last minute.",
            f'max_over_time({of_program("eternal_program_start_hanging")}[1m])',
            "EternalProgramStartHanging",
        ),
        recent(
            "Out-of-memory kills, 15 min",
            "Runs in the last 15 minutes that the kernel ended for want of memory.",
            f'sum without (reason) ({increase(OOM_EXITS, "15m")})',
            "EternalProgramOOMKilled",
        ),
        recent(
            "Lines dropped, 5 min",
            "Lines of output in the last 5 minutes that could not be kept.",
            f'sum without (stream) ({increase(of_program("eternal_program_log_dropped_lines_total"), "5m")})',
            "EternalProgramLogDropping",
        ),
        stat(
            "Failed health checks, 30 min",
            "Health checks that failed in the last 30 minutes, of several replicas the one with the most; empty where none is configured.",
            now(f"max({increase(of_program(FAILED_CHECKS), '30m')})"),
            width=6,
            unit="none",
            decimals=0,
            thresholds=steps((5, WARNING)),
            alerts=["EternalProgramHealthCheckFlapping"],
        ),
    ]


def crashes(window, words, *limits, alerts):
    counted = increase(of_program("eternal_program_crashes_total"), window)
    return stat(
        f"Crashes, {words}",
        f"Crashes in the last {words}; of several replicas, the one with the most.",
        now(f"max({counted})"),
        width=8,
        unit="none",
        decimals=0,
        thresholds=steps(*limits),
        alerts=alerts,
    )


def recent(title, description, counted, alert):
    """A count that should be zero."""
    return stat(
        title,
        description,
        now(f"sum({counted})"),
        width=6,
        unit="none",
        decimals=0,
        thresholds=steps((1, WARNING)),
        alerts=[alert],
    )


def life():
    restarts = f'sum by (cause) ({increase(of_program("eternal_program_restarts_total"))})'
    exits = f'sum by (reason) ({increase(of_program("eternal_program_exits_total"))})'
    shown = {"unit": "short", "stacked": True, "bars": True}
    return [
        timeline(
            "State timeline",
            "The state of each replica at each scrape; states shorter than a scrape interval may be missing here, never in the counters.",
            query(state_number(), REPLICA_LEGEND),
            unit="none",
            mappings=state_mappings(),
            alerts=["EternalProgramStuckInBackoff", "EternalProgramNotRunning"],
        ),
        series("Restarts by cause", "Restarts within each step of the graph.", query(restarts, "{{cause}}"), overrides=colours(CAUSES), **shown),
        series(
            "Exits by reason",
            "Ends of runs and failed starts within each step of the graph.",
            query(exits, "{{reason}}"),
            overrides=colours(REASONS),
            alerts=["EternalProgramStopEscalated"],
            **shown,
        ),
        series(
            "Health checks",
            "Checks within each step of the graph, and those of them that failed; empty where none is configured.",
            [
                query(f'sum by (check) ({increase(of_program("eternal_program_health_checks_total"))})', "{{check}} asked"),
                query(f"sum by (check) ({increase(of_program(FAILED_CHECKS))})", "{{check}} failed"),
            ],
            width=24,
            height=6,
            unit="short",
            bars=True,
            alerts=["EternalProgramHealthCheckFlapping"],
        ),
        last_exit(),
    ]


def last_exit():
    last = {
        "reason": f'max by ({REPLICA}, reason) ({of_program("eternal_program_last_exit_reason")} == 1)',
        "at": f'max by ({REPLICA}) ({of_program("eternal_program_last_exit_timestamp_seconds")}) * 1000',
        "code": f'max by ({REPLICA}) ({of_program("eternal_program_last_exit_code")})',
        "signal": f'max by ({REPLICA}) ({of_program("eternal_program_last_exit_signal")})',
    }
    return table(
        "Last exit",
        "How the last run of each replica ended: when, why, and with which exit code or signal.",
        [table_now(expr) for expr in last.values()],
        hidden=("Time", "Value #A"),
        renamed={"Value #B": "ended", "Value #C": "exit code", "Value #D": "signal"},
        unit="none",
        height=6,
        overrides=[override("ended", unit="dateTimeAsIso"), *widths(replica=80)],
        alerts=["EternalProgramGaveUp"],
    )


def durations():
    return [
        heatmap("Run duration", "How long runs lasted that ended within each step.", "eternal_program_run_duration_seconds"),
        quantiles(
            "Restart latency",
            "From the end of a run to the next process, without the configured delay: what the supervisor itself adds.",
            "eternal_program_restart_latency_seconds",
        ),
        quantiles("Start-up time", "From spawn to ready.", "eternal_program_startup_duration_seconds"),
        quantiles("Stop time", "From the stop request to the end.", "eternal_program_stop_duration_seconds"),
    ]


def resources():
    total = lambda metric: f"sum by ({REPLICA}) ({of_program(metric)})"
    per_second = lambda metric: f"sum by ({REPLICA}) ({rate(of_program(metric))})"
    per_mode = f'sum by (mode) ({rate(of_program("eternal_program_cpu_seconds_total"))})'
    highest = f'max_over_time({of_program("eternal_program_open_fds", window="1m")})'
    limit = f'min_over_time({of_program("eternal_program_max_fds", window="1m")})'
    memory = [
        query(total("eternal_program_resident_memory_bytes"), "resident " + REPLICA_LEGEND),
        query(total("eternal_program_virtual_memory_bytes"), "virtual " + REPLICA_LEGEND),
    ]
    tree = "of the whole process tree"
    return [
        series("CPU", f"CPU time {tree}: 1 is one core.", query(per_mode, "{{mode}}"), unit="short", stacked=True),
        series("Memory", f"Memory {tree}.", memory, unit="bytes", overrides=VIRTUAL_ON_THE_RIGHT, alerts=["EternalProgramOOMKilled"]),
        series(
            "Descriptors against limits",
            f"Open descriptors {tree}, as a share of the limit.",
            query(f"{highest} / {limit}", REPLICA_LEGEND),
            unit="percentunit",
            thresholds=steps((0.8, WARNING)),
            line_at=True,
            max=1,
            alerts=["EternalProgramFdsNearLimit"],
        ),
        series(
            "Processes and threads",
            f"Processes and threads {tree}.",
            [
                query(total("eternal_program_processes"), "processes " + REPLICA_LEGEND),
                query(total("eternal_program_threads"), "threads " + REPLICA_LEGEND),
            ],
            unit="none",
        ),
        series(
            "Storage",
            f"Bytes read from and written to storage {tree}.",
            [
                query(per_second("eternal_program_read_bytes_total"), "read " + REPLICA_LEGEND),
                query(per_second("eternal_program_written_bytes_total"), "written " + REPLICA_LEGEND),
            ],
            unit="Bps",
        ),
        series(
            "Out-of-memory kills",
            "Kills in the program's cgroup, those of children that the program survived included; empty where it has no cgroup.",
            query(f'sum by ({REPLICA}) ({increase(of_program("eternal_program_oom_kills_total"))})', REPLICA_LEGEND),
            unit="short",
            bars=True,
            alerts=["EternalProgramOOMKilled"],
        ),
    ]


def output():
    by_stream = lambda metric: f"sum by (stream) ({rate(of_program(metric))})"
    return [
        series(
            "Log volume and drops",
            "Lines captured each second, by stream, and lines that could not be kept.",
            [
                query(by_stream("eternal_program_log_lines_total"), "{{stream}}"),
                query(by_stream("eternal_program_log_dropped_lines_total"), "{{stream}} dropped"),
            ],
            unit="suffix: lines/s",
            alerts=["EternalProgramLogDropping"],
        ),
        series("Log bytes", "Bytes captured each second, by stream.", query(by_stream("eternal_program_log_bytes_total"), "{{stream}}"), unit="Bps"),
    ]


def board():
    sections = {
        "Now": [replicas(), *trouble()],
        "Life": life(),
        "Durations": durations(),
        "Resources": resources(),
        "Output": output(),
    }
    return dashboard("eternal-program", "Eternal / Program", "How a program stands, lives, what it uses and what it says.", sections)
