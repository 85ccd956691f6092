"""The supervisor itself."""

from parts import *


def each(expr):
    return query(expr, "{{instance}}")


def standing():
    up = f'min(max_over_time({of_daemon("up", window="1m")}))'
    restarted = f'max(changes({of_daemon("process_start_time_seconds", window="30m")}))'
    refused = f'max_over_time({of_daemon("eternal_config_last_reload_successful", window="1m")}) == 0'
    failing = f'avg_over_time({of_daemon("eternal_scrape_collector_success", window="5m")}) < 0.5'
    started = of_daemon("process_start_time_seconds")
    return [
        stat(
            "Answering",
            "Whether every chosen supervisor was scraped within the last minute.",
            now(up),
            unit="bool_yes_no",
            mappings=mapped(_0=("no", CRITICAL), _1=("yes", OK)),
            alerts=["EternalSupervisorDown", "EternalSupervisorAbsent"],
        ),
        stat("Up for", "How long the youngest of the chosen supervisors has run.", now(f"time() - max({started})"), unit="s"),
        stat(
            "Restarts, 30 min",
            "Restarts of the supervisor itself in half an hour: the worst of the chosen ones.",
            now(restarted),
            unit="none",
            thresholds=steps((3, CRITICAL)),
            alerts=["EternalSupervisorRestarting"],
        ),
        stat(
            "Configurations refused",
            "Supervisors whose last reload failed: the old configuration is in force, and a restart would fail.",
            now(count_of(refused)),
            unit="none",
            thresholds=steps((1, WARNING)),
            alerts=["EternalConfigReloadFailed"],
        ),
        stat(
            "Collectors failing",
            "Collectors that failed in most scrapes of 5 minutes: their series are missing or old.",
            now(count_of(failing)),
            unit="none",
            thresholds=steps((1, WARNING)),
            alerts=["EternalCollectorFailing"],
        ),
        stat(
            "Spans dropped",
            "Spans within the time range that could not be exported.",
            now(f'sum({increase(of_daemon("eternal_otlp_spans_dropped_total"), "$__range")})'),
            unit="none",
            decimals=0,
        ),
    ]


def versions():
    loaded = of_daemon("eternal_config_last_reload_success_timestamp_seconds")
    targets = [
        table_now(f'max by (instance, version, revision, rustc) ({of_daemon("eternal_build_info")})'),
        table_now(f'max by (instance) ({of_daemon("process_start_time_seconds")}) * 1000'),
        table_now(f"max by (instance) ({loaded}) * 1000"),
        table_now(f'sum by (instance) ({of_daemon("eternal_programs")})'),
    ]
    return table(
        "Supervisors",
        "What runs where, since when, and with a configuration of when.",
        targets,
        hidden=("Time", "Value #A"),
        renamed={"Value #B": "started", "Value #C": "configuration loaded", "Value #D": "programs"},
        unit="none",
        height=6,
        overrides=[override("started", unit="dateTimeAsIso"), override("configuration loaded", unit="dateTimeAsIso")],
    )


def resources():
    descriptors = f'{of_daemon("process_open_fds")} / {of_daemon("process_max_fds")}'
    memory = [
        query(of_daemon("process_resident_memory_bytes"), "resident {{instance}}"),
        query(of_daemon("process_virtual_memory_bytes"), "virtual {{instance}}"),
    ]
    return [
        series("CPU", "CPU time of the supervisor itself: 1 is one core.", each(rate(of_daemon("process_cpu_seconds_total"))), unit="short"),
        series("Memory", "Memory of the supervisor itself.", memory, unit="bytes", overrides=VIRTUAL_ON_THE_RIGHT),
        series("Descriptors", "Open descriptors of the supervisor, as a share of the limit.", each(descriptors), unit="percentunit"),
        series("Threads", "Threads of the supervisor.", each(of_daemon("process_threads")), unit="none"),
    ]


def loop():
    signals = f'sum by (signal) ({increase(of_daemon("eternal_signals_received_total"))})'
    orphans = f'sum by (instance) ({increase(of_daemon("eternal_orphans_reaped_total"))})'
    reloads = f'sum by (result) ({increase(of_daemon("eternal_config_reloads_total"))})'
    results = colours({"reload success": OK, "reload failure": WARNING})
    shown = {"unit": "short", "stacked": True, "bars": True}
    return [
        quantiles("Loop lag", "How late the supervision loop woke up.", "eternal_event_loop_lag_seconds", select=of_daemon),
        series(
            "Longest turn",
            "Longest turn of the supervision loop within a minute; one under way counts as far as it has come.",
            each(f'max_over_time({of_daemon("eternal_event_loop_turn_seconds")}[1m])'),
            unit="s",
            thresholds=steps((1, CRITICAL)),
            line_at=True,
            alerts=["EternalLoopStalled"],
        ),
        series(
            "Reloads",
            "Reloads of the configuration within each step, by result.",
            query(reloads, "reload {{result}}"),
            overrides=results,
            alerts=["EternalConfigReloadFailed"],
            **shown,
        ),
        series("Signals", "Signals that the supervisor got within each step.", query(signals, "{{signal}}"), **shown),
        series("Orphans reaped", "Ended processes of no program that were reaped within each step.", each(orphans), **shown),
    ]


def scrapes():
    requests = f'sum by (handler, code) ({rate(of_daemon("eternal_http_requests_total"))})'
    took = f'max by (collector) ({of_daemon("eternal_scrape_collector_duration_seconds")})'
    succeeded = f'avg_over_time({of_daemon("eternal_scrape_collector_success", window="5m")})'
    handler = f'sum by (handler, le) ({rate(of_daemon("eternal_http_request_duration_seconds_bucket"))})'
    return [
        series("Scrapes", "How long Prometheus waited for each scrape.", each(of_daemon("scrape_duration_seconds")), unit="s", alerts=["EternalCollectorFailing"]),
        series("Series", "Samples in each scrape.", each(of_daemon("scrape_samples_scraped")), unit="short"),
        series("Collectors", "How long each part of a scrape took in the supervisor: the slowest of the chosen ones.", query(took, "{{collector}}"), unit="s"),
        series(
            "Collector success",
            "The share of scrapes in 5 minutes in which each collector could read all it wanted.",
            query(f"min by (instance, collector) ({succeeded})", "{{instance}} {{collector}}"),
            unit="percentunit",
            max=1,
            thresholds=steps((0.5, OK), base=WARNING),
            line_at=True,
            alerts=["EternalCollectorFailing"],
        ),
        series("HTTP requests", "Requests answered each second, by page and status code.", query(requests, "{{handler}} {{code}}"), unit="reqps"),
        series("HTTP latency", "The 99th percentile of the time to make an answer, by page.", query(f"histogram_quantile(0.99, {handler})", "{{handler}}"), unit="s"),
    ]


def board():
    sections = {
        "Now": [*standing(), versions()],
        "Resources": resources(),
        "Loop": loop(),
        "Exposition": scrapes(),
    }
    return dashboard("eternal-supervisor", "Eternal / Supervisor", "The supervisor itself: what it uses, how late it is, who asks it.", sections, programs=False)
