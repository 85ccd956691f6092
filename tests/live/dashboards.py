"""Asks every query of grafana/dashboards/ of a live Prometheus: none may be refused, none may come back empty."""
import json
import math
import re

from stack import ROOT, Failure, get

# Panel title -> why it may have nothing to show in this scenario. A title here that does show something is an error too.
ALLOWED_EMPTY = {
    "Out-of-memory kills": "counted from memory cgroups, and the programs have none here",
}


def queries():
    """Yields (dashboard, title, expression, instant) of every panel and annotation."""
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for note in board["annotations"]["list"]:
            if "expr" in note:
                yield path.stem, f"annotation {note['name']}", note["expr"], False
        for panel in board["panels"]:
            for inner in [panel, *panel.get("panels", [])]:
                for target in inner.get("targets", []):
                    yield path.stem, inner["title"], target["expr"], bool(target.get("instant"))


def filled_in(expression, scrape, seconds):
    """Replaces the variables as Grafana does with All chosen and a range of `seconds`."""
    values = {"__rate_interval": f"{4 * scrape}s", "__interval": f"{scrape}s", "__range": f"{seconds}s"}
    values |= {name: ".+" for name in ("job", "instance", "program")}
    text = re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), expression)
    if "$" in text:
        raise Failure(f"a variable is left in {text!r}")
    return text


def has_a_number(result):
    samples = [s for series in result for s in series.get("values", [series.get("value")])]
    return any(not math.isnan(float(value)) for _, value in samples)


def check_variables(stack):
    """Every template variable offers something to choose. Returns how many there are."""
    count = 0
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json")):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] != "query":
                continue
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            found = get(f"{stack.prometheus}/api/v1/label/{label}/values", **{"match[]": filled_in(metric, stack.scrape, 60)})
            if not found["data"]:
                raise Failure(f"{path.stem}: variable {variable['name']} offers nothing")
            count += 1
    return count


def check(stack, start, peak, end):
    """Asks everything; instant queries as of `peak`, the others over the whole run. Returns a line for people."""
    wrong, seen, allowed = [], 0, set()
    for board, title, expression, instant in queries():
        seconds = math.ceil(end - start)
        query = filled_in(expression, stack.scrape, seconds)
        try:
            result = stack.query(query, time=peak) if instant else stack.query_range(query, start, end, stack.scrape)
        except Failure as failure:
            wrong.append(f"{board}: {title}: {failure}")
            continue
        seen += 1
        filled = has_a_number(result)
        if not filled and title not in ALLOWED_EMPTY:
            wrong.append(f"{board}: {title}: nothing to show: {query}")
        if not filled:
            allowed.add(title)
    wrong += [f"{title}: allowed to be empty ({ALLOWED_EMPTY[title]}), and is not" for title in ALLOWED_EMPTY.keys() - allowed]
    if not seen:
        wrong.append("no query found")
    if wrong:
        raise Failure("\n".join(wrong))
    return f"{seen} queries and {check_variables(stack)} variables answered; allowed to be empty: {len(allowed)}"
