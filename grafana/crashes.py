"""Crash analysis: when, why, how long it had run, across programs and hosts."""

from parts import *

CRASHED = "eternal_program_crashes_total"
WHOLE = "$__range"


def totals():
    reasons = f'count(sum by ({REPLICA}) ({increase(of_program(CRASHED), WHOLE)}) > 0) or vector(0)'
    started = increase(of_program("eternal_program_starts_total"), WHOLE)
    return [
        total("Crashes", "Crashes within the time range.", CRASHED),
        stat("Programs that crashed", "Replicas with a crash within the time range.", now(reasons), unit="none", decimals=0),
        total("Failed starts", "Starts within the time range that never became a process.", "eternal_program_start_failures_total"),
        total("Give-ups", "Times within the time range that a program was given up.", "eternal_program_gave_up_total", alerts=["EternalProgramGaveUp"]),
        stat("Starts", "Starts within the time range, successful or not.", now(f"sum({started})"), unit="none", decimals=0),
        stat(
            "Mean run",
            "Mean length of the runs that ended within the time range.",
            now(
                f'sum({increase(of_program("eternal_program_run_duration_seconds_sum"), WHOLE)})'
                f' / sum({increase(of_program("eternal_program_run_duration_seconds_count"), WHOLE)})'
            ),
            unit="s",
        ),
    ]


def total(title, description, metric, **more):
    return stat(title, description, now(f"sum({increase(of_program(metric), WHOLE)})"), unit="none", decimals=0, **more)


def when():
    by_reason = f'sum by (reason) ({increase(of_program("eternal_program_exits_total", CRASHES))})'
    by_program = f"topk(15, sum by ({REPLICA}) ({increase(of_program(CRASHED))}) > 0)"
    by_host = f"sum by (instance) ({increase(of_program(CRASHED))})"
    shown = {"unit": "short", "stacked": True, "bars": True}
    reasons = colours(CRASH_REASONS)
    return [
        series("Crashes by reason", "Crashes within each step, by reason.", query(by_reason, "{{reason}}"), width=24, overrides=reasons, **shown),
        series(
            "Crashes by program",
            "Crashes within each step: the fifteen worst replicas of each moment.",
            query(by_program, REPLICA_LEGEND),
            data_links=program_link(),
            **shown,
        ),
        series("Crashes by supervisor", "Crashes within each step. All at once points at the machine.", query(by_host, "{{instance}}"), **shown),
    ]


def loops():
    pictures = []
    wanted = [
        ("5m", "5 min", [(3, CRITICAL)], ["EternalProgramCrashLooping"]),
        ("1h", "1 h", [(2, WARNING), (5, CRITICAL)], ["EternalProgramCrashLooping", "EternalProgramCrashLoopingSlow"]),
        ("6h", "6 h", [(8, WARNING)], ["EternalProgramCrashLoopingSlow"]),
    ]
    for window, words, limits, alerts in wanted:
        worst = f"topk(10, sum by ({REPLICA}) ({increase(of_program(CRASHED), window)}) > 0)"
        pictures.append(
            series(
                f"Crashes in {words}",
                f"Crashes in the {words} before each moment, of the ten worst replicas, and where the alerts begin.",
                query(worst, REPLICA_LEGEND),
                unit="short",
                decimals=0,
                width=8,
                height=9,
                names_below=True,
                thresholds=steps(*limits),
                line_at=True,
                data_links=program_link(),
                alerts=alerts,
            )
        )
    return pictures


def why():
    by_reason = f'sort_desc(sum by (reason) ({increase(of_program("eternal_program_exits_total", CRASHES), WHOLE)}) > 0)'
    worst = f"topk(15, sum by (instance, program) ({increase(of_program(CRASHED), WHOLE)}) > 0)"
    obstacles = f'sum by (reason) ({increase(of_program("eternal_program_start_failures_total"))})'
    each = f'sum by ({REPLICA}, reason) ({increase(of_program("eternal_program_exits_total", CRASHES), WHOLE)})'
    return [
        bars(
            "Reasons",
            "Crashes within the time range, by reason.",
            now(by_reason, "{{reason}}"),
            unit="none",
            decimals=0,
            overrides=colours(CRASH_REASONS),
        ),
        bars(
            "Programs",
            "Crashes within the time range: the fifteen worst programs.",
            now(worst, "{{instance}} {{program}}"),
            unit="none",
            decimals=0,
            data_links=program_link(),
        ),
        table(
            "Every program and reason",
            "Crashes within the time range: the fifty most frequent pairs of program and reason.",
            table_now(f"topk(50, {each} > 0)"),
            renamed={"Value": "crashes"},
            unit="none",
            decimals=0,
            width=12,
            height=9,
            overrides=[override("program", links=ROW_LINK), *widths(replica=80)],
        ),
        series(
            "Failed starts by obstacle",
            "Starts within each step that never became a process, by what stood in the way.",
            query(obstacles, "{{reason}}"),
            unit="short",
            stacked=True,
            bars=True,
            height=9,
        ),
    ]


def how_long():
    stuck = f'max by ({REPLICA}) ({of_program("eternal_program_backoff_seconds")}) > 0'
    return [
        heatmap(
            "How long it had run",
            "Length of the runs that ended within each step, crashes or not. A dark band is a program that always dies at the same age.",
            "eternal_program_run_duration_seconds",
        ),
        series(
            "Back-off",
            "The delay in force before the next start of each waiting replica.",
            query(stuck, REPLICA_LEGEND),
            unit="s",
            data_links=program_link(),
            alerts=["EternalProgramStuckInBackoff"],
        ),
    ]


def board():
    sections = {"Time range": totals(), "When": when(), "Loops": loops(), "Why": why(), "How long": how_long()}
    description = "When programs crashed, for which reason and how long they had run, across programs and hosts."
    return dashboard("eternal-crashes", "Eternal / Crash analysis", description, sections)
