"""Building blocks of the dashboards: selectors, colours, panels, and the dashboard around them."""

import json

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOKS = "https://runbooks.example.com/eternal/"

# Okabe and Ito: distinguishable with every common kind of colour blindness.
GREY, SKY, GREEN, PURPLE = "#999999", "#56B4E9", "#009E73", "#CC79A7"
ORANGE, VERMILLION, BLUE, YELLOW = "#E69F00", "#D55E00", "#0072B2", "#F0E442"
OK, WARNING, CRITICAL = GREEN, ORANGE, VERMILLION

# The index is the number that stands for the state in a timeline.
STATES = {
    "stopped": GREY,
    "starting": SKY,
    "running": GREEN,
    "stopping": PURPLE,
    "backoff": ORANGE,
    "failed": VERMILLION,
    "completed": BLUE,
}
# Crashes: after Paul Tol's muted scheme, its dark tones lighter, so that they stand out on a dark ground too; the
# rest in greys, since nobody has to act on it.
CRASH_REASONS = {
    "exit_code": "#CC6677",
    "signal": "#7F74E0",
    "core_dump": "#DDCC77",
    "oom": "#C2437F",
    "memory_limit": "#D58ACB",
    "watchdog": "#3C9955",
    "health": "#44AA99",
    "startup_timeout": "#88CCEE",
    "spawn_error": "#999933",
}
OTHER_REASONS = {
    "success": "#DDDDDD",
    "stop": "#BBBBBB",
    "restart": "#888888",
    "stop_timeout": "#666666",
    "lost": "#777766",
}
# Of restarts: what went wrong in warm colours, what was asked for in cool ones.
CAUSES = {
    "crash": VERMILLION,
    "exit": GREY,
    "health": CRASH_REASONS["health"],
    "watchdog": CRASH_REASONS["watchdog"],
    "memory": CRASH_REASONS["memory_limit"],
    "operator": SKY,
    "config": BLUE,
    "dependency": PURPLE,
    "schedule": GREEN,
}
REASONS = CRASH_REASONS | OTHER_REASONS
CRASHES = 'reason=~"' + "|".join(CRASH_REASONS) + '"'
REPLICA = "instance, program, replica"
REPLICA_LEGEND = "{{instance}} {{program}}/{{replica}}"


def of_daemon(metric, *matchers, window=None):
    """Selects a metric of the chosen supervisors."""
    return _selector(metric, ['job=~"$job"', 'instance=~"$instance"', *matchers], window)


def of_program(metric, *matchers, window=None):
    """Selects a metric of the chosen programs."""
    return of_daemon(metric, 'program=~"$program"', *matchers, window=window)


def _selector(metric, matchers, window):
    return f"{metric}{{{', '.join(matchers)}}}" + (f"[{window}]" if window else "")


def increase(selector, window="$__rate_interval"):
    return f"increase({selector}[{window}])"


def rate(selector):
    return f"rate({selector}[$__rate_interval])"


def count_of(condition):
    """Counts what a condition finds; 0 where it finds nothing."""
    return f"count({condition}) or vector(0)"


def state_number():
    """The state of each replica as its index in STATES."""
    terms = [of_program("eternal_program_state", f'state="{s}"') + f" * {n}" for n, s in enumerate(STATES)]
    return f"sum by ({REPLICA}) (\n  " + "\n  or ".join(terms) + "\n)"


# --- targets -----------------------------------------------------------------------------------


def query(expr, legend="", **more):
    """A query over the time range of the dashboard."""
    target = {"datasource": DATASOURCE, "editorMode": "code", "expr": expr, "instant": False, "range": True}
    return target | {"legendFormat": legend, "format": "time_series"} | more


def now(expr, legend="", **more):
    """A query for the end of the time range."""
    return query(expr, legend, instant=True, range=False, **more)


def table_now(expr):
    return now(expr, format="table")


# --- options -----------------------------------------------------------------------------------


def steps(*rising, base=OK):
    """Thresholds: (value, colour) from which the colour holds."""
    ladder = [{"color": base, "value": None}]
    return {"mode": "absolute", "steps": ladder + [{"color": c, "value": v} for v, c in rising]}


NO_STEPS = steps(base=BLUE)


def state_mappings():
    return _mappings({str(n): (s, c) for n, (s, c) in enumerate(STATES.items())})


def _mappings(texts):
    options = {v: {"text": t, "color": c, "index": i} for i, (v, (t, c)) in enumerate(texts.items())}
    return [{"type": "value", "options": options}]


def mapped(**texts):
    """Value mappings, from `_1=("text", COLOUR)`."""
    return _mappings({value.lstrip("_"): text for value, text in texts.items()})


def colours(by_name):
    """Overrides that give series of these names a fixed colour."""
    return [override(name, color={"mode": "fixed", "fixedColor": colour}) for name, colour in by_name.items()]


def override(field, *, by="byName", **properties):
    listed = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": by, "options": field}, "properties": listed}


def widths(**by_column):
    """Overrides that give columns of a table a fixed width in pixels."""
    return [override(column, custom__width=width) for column, width in by_column.items()]


# Address space is far larger than memory: on one axis the lines that matter would lie on the ground.
VIRTUAL_ON_THE_RIGHT = [override("/^virtual/", by="byRegexp", custom__axisPlacement="right", custom__lineStyle={"fill": "dash", "dash": [6, 6]})]


def runbooks(*alerts):
    return [{"title": f"Runbook: {a}", "url": RUNBOOKS + a, "targetBlank": True} for a in alerts]


def program_link(*, instance="${__field.labels.instance}", program="${__field.labels.program}"):
    """A data link to the program's own dashboard."""
    url = (
        "/d/eternal-program?${__url_time_range}&${datasource:queryparam}&${job:queryparam}"
        f"&var-instance={instance}&var-program={program}"
    )
    return [{"title": "Open this program", "url": url}]


ROW_LINK = program_link(instance="${__data.fields.instance}", program="${__data.fields.program}")


# --- panels ------------------------------------------------------------------------------------


def panel(kind, title, description, targets, **more):
    """A panel; `width` and `height` are taken off again by the layout."""
    targets = targets if isinstance(targets, list) else [targets]
    targets = [t | {"refId": chr(ord("A") + n)} for n, t in enumerate(targets)]
    defaults = {"unit": more.pop("unit"), "thresholds": more.pop("thresholds", NO_STEPS)}
    for key in ("min", "max", "decimals", "mappings", "color", "custom", "noValue"):
        if key in more:
            defaults[key] = more.pop(key)
    if "data_links" in more:
        defaults["links"] = more.pop("data_links")
    made = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
    }
    if "alerts" in more:
        made["links"] = runbooks(*more.pop("alerts"))
    return made | more


def stat(title, description, target, **more):
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    options = {"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "auto", "reduceOptions": reduce}
    more = {"width": 4, "height": 4, "color": {"mode": "thresholds"}, "options": options} | more
    return panel("stat", title, description, target, **more)


def series(title, description, targets, *, stacked=False, bars=False, line_at=False, names_below=False, **more):
    if bars:
        # At least three scrapes of 15 s: $__rate_interval is the step and one scrape more then, and each event is in one
        # bar and in no other. With shorter steps it would be in several, with a range as long as the step in none at times.
        targets = [t | {"interval": "45s"} for t in (targets if isinstance(targets, list) else [targets])]
        more = {"decimals": 0} | more
    custom = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 80 if bars else (40 if stacked else 0),
        "lineWidth": 0 if bars else 1,
        # A sample between two gaps is a point or nothing.
        "showPoints": "never" if bars else "auto",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if line_at else "off"},
    }
    options = {
        "legend": {"displayMode": "table", "placement": "right", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if names_below:
        options["legend"] |= {"displayMode": "list", "placement": "bottom", "calcs": []}
    else:
        options["legend"] |= {"sortBy": "Max", "sortDesc": True}
    more = {"width": 12, "height": 8, "min": 0, "color": {"mode": "palette-classic"}} | more
    if more["min"] is None:
        del more["min"]
    return panel("timeseries", title, description, targets, custom=custom, options=options, **more)


def table(title, description, targets, *, hidden=("Time", "job"), renamed=None, **more):
    organize = {"excludeByName": {h: True for h in hidden}, "indexByName": {}, "renameByName": renamed or {}}
    transformations = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    more = {"width": 24, "height": 8, "custom": {"align": "auto", "cellOptions": {"type": "auto"}}} | more
    options = {"showHeader": True, "cellHeight": "sm"}
    return panel("table", title, description, targets, transformations=transformations, options=options, **more)


def heatmap(title, description, histogram, **more):
    expr = f"sum by (le) ({increase(of_program(histogram + '_bucket'))})"
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Viridis", "steps": 64, "reverse": False, "exponent": 0.5, "fill": BLUE},
        "cellGap": 1,
        "exemplars": {"color": ORANGE},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
    }
    more = {"width": 12, "height": 8, "unit": "none"} | more
    return panel("heatmap", title, description, query(expr, "{{le}}", format="heatmap"), options=options, **more)


def bars(title, description, target, **more):
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    options = {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": reduce, "valueMode": "color"}
    more = {"width": 12, "height": 8, "min": 0, "color": {"mode": "fixed", "fixedColor": BLUE}} | more
    return panel("bargauge", title, description, target, options=options, **more)


def timeline(title, description, target, **more):
    options = {"mergeValues": True, "showValue": "auto", "rowHeight": 0.85, "alignValue": "left"}
    options |= {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}}
    options |= {"tooltip": {"mode": "single", "sort": "none"}}
    more = {"width": 24, "height": 9, "custom": {"fillOpacity": 85, "lineWidth": 0}} | more
    return panel("state-timeline", title, description, target, options=options, **more)


def quantiles(title, description, histogram, *, select=of_program, **more):
    """The median, the 90th and the 99th percentile of a histogram."""
    total = f"sum by (le) ({rate(select(histogram + '_bucket'))})"
    targets = [query(f"histogram_quantile({q}, {total})", n) for q, n in ((0.5, "median"), (0.9, "90 %"), (0.99, "99 %"))]
    # What happens seldom has a quantile seldom: points between gaps.
    points = {"custom__showPoints": "always", "custom__pointSize": 4}
    shown = {"median": BLUE, "90 %": SKY, "99 %": ORANGE}
    overrides = [override(name, color={"mode": "fixed", "fixedColor": colour}, **points) for name, colour in shown.items()]
    return series(title, description, targets, unit="s", overrides=overrides, **more)


# --- dashboards --------------------------------------------------------------------------------


def place(sections):
    """Gives every panel its id and a place in the 24 columns; `sections` is {title: [panels]}."""
    placed, y = [], 0
    for title, panels in sections.items():
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _grid(0, y, 24, 1)})
        y, x, tallest = y + 1, 0, 0
        for p in panels:
            width, height = p.pop("width"), p.pop("height")
            if x + width > 24:
                x, y, tallest = 0, y + tallest, 0
            placed.append(p | {"gridPos": _grid(x, y, width, height)})
            x, tallest = x + width, max(tallest, height)
        y += tallest
    return [{"id": n} | p for n, p in enumerate(placed, start=1)]


def _grid(x, y, w, h):
    return {"x": x, "y": y, "w": w, "h": h}


def _variable(name, label, metric):
    text = f"label_values({metric}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"qryType": 1, "query": text, "refId": f"variable-{name}"},
        "definition": text,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "sort": 1,
        "hide": 0,
        "skipUrlSync": False,
    }


def _variables(programs):
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "options": [],
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "skipUrlSync": False,
    }
    chain = [
        _variable("job", "Job", "eternal_build_info"),
        _variable("instance", "Instance", 'eternal_build_info{job=~"$job"}'),
    ]
    if programs:
        chain.append(_variable("program", "Program", of_daemon("eternal_program_info")))
    return {"list": [datasource, *chain]}


def _annotation(name, colour, expr, title, **more):
    shown = {"datasource": DATASOURCE, "enable": True, "hide": False, "name": name, "iconColor": colour, "expr": expr}
    return shown | {"titleFormat": title, "textFormat": "", "tagKeys": "instance", "step": "", "useValueForTime": False} | more


def _annotations(programs):
    reloaded = of_daemon("eternal_config_last_reload_success_timestamp_seconds")
    refused = increase(of_daemon("eternal_config_reloads_total", 'result="failure"'))
    started = of_daemon("process_start_time_seconds")
    listed = [
        _annotation("Supervisor starts", PURPLE, f"{started} * 1000", "{{instance}}: supervisor started", useValueForTime=True),
        _annotation("Reloads", BLUE, f"{reloaded} * 1000", "{{instance}}: configuration loaded", useValueForTime=True),
        _annotation("Refused reloads", ORANGE, f"{refused} > 0", "{{instance}}: configuration refused"),
    ]
    if programs:
        # Those that somebody asked for: crashes are in the graphs already, and a crash loop would paint over them.
        restarted = increase(of_program("eternal_program_restarts_total", 'cause=~"operator|config"'))
        expr = f"sum by ({REPLICA}, cause) ({restarted}) > 0"
        title = "{{program}}/{{replica}} on {{instance}}: restart ({{cause}})"
        listed.append(_annotation("Restarts", SKY, expr, title, tagKeys="program,cause"))
    return {"list": listed}


def dashboard(uid, title, description, sections, *, programs=True):
    """The whole dashboard."""
    others = {
        "title": "Eternal",
        "type": "dashboards",
        "tags": ["eternal"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["eternal"],
        "schemaVersion": 42,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "preload": False,
        "links": [others],
        "annotations": _annotations(programs),
        "templating": _variables(programs),
        "panels": place(sections),
    }


def text(made):
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"
