#!/bin/bash
# Tests alerts/: rules, routes, inhibition in a live Alertmanager, runbooks, metric names, mutants.
# Usage: tests/alerts.sh [--quick | --full | --no-mutants]
#   --quick, the default, tries a sample of the mutants; --full tries all (6 minutes), and has amlint (PyPI) look at the routes
# Run as root it installs what it needs (Debian: prometheus, prometheus-alertmanager, python3-yaml).
set -euo pipefail
cd "$(dirname "$0")/../alerts"

mode=${1:---quick}
case $mode in --quick | --full | --no-mutants) ;; *) echo "usage: $0 [--quick | --full | --no-mutants]" >&2; exit 2 ;; esac

fail() { echo "FAILED: $*" >&2; exit 1; }
step() { echo "== $*"; }

install_tools() {
    local missing=()
    command -v promtool >/dev/null || missing+=(prometheus)
    command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
    python3 -c 'import yaml' 2>/dev/null || missing+=(python3 python3-yaml)
    [ ${#missing[@]} -eq 0 ] && return
    apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { apt-get update >/dev/null && apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null; }
}

check_rules() {
    promtool check rules --lint=all --lint-fatal eternal.rules.yml comparison.rules.yml
    promtool test rules eternal.rules_test.yml hours.rules_test.yml days.rules_test.yml comparison_test.yml
}

# route RECEIVER LABEL=VALUE…: an alert with these labels goes there and nowhere else.
route() {
    local receiver=$1
    shift
    amtool config routes test --config.file=alertmanager.yml --verify.receivers="$receiver" "$@" >/dev/null 2>&1 ||
        fail "route of $* is not $receiver"
}

check_routes() {
    amtool check-config alertmanager.yml >/dev/null
    route page alertname=EternalProgramGaveUp severity=critical job=eternal
    route page alertname=EternalSupervisorAbsent severity=critical job=eternal
    route warning alertname=EternalProgramOOMKilled severity=warning job=eternal
    route dead-mans-switch alertname=Watchdog severity=none
    route nobody alertname=SomethingElse severity=none
    route warning alertname=Unlabelled
}

# Knows which alerts the rules can raise. The receivers are empty on purpose.
check_lint() {
    local folder
    folder=$(mktemp -d)
    python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check amlint==0.8.5 &&
        "$folder/bin/amlint" check alertmanager.yml --strict --ignore empty-receiver --rules eternal.rules.yml >"$folder/said" ||
        { cat "$folder/said"; rm -rf "$folder"; fail "amlint"; }
    rm -rf "$folder"
}

check_catalogue() {
    python3 - <<'PYTHON'
import pathlib, re, sys, yaml
wrong = []
rules = [r for g in yaml.safe_load(open("eternal.rules.yml"))["groups"] for r in g["rules"]]
alerts = {r["alert"]: r for r in rules if "alert" in r}
recorded = {r["record"] for r in rules if "record" in r}
known = set(pathlib.Path("metrics.txt").read_text().split("\n")[1:]) - {""}
used = set()
for r in rules:
    name = r.get("alert") or r["record"]
    selectors = re.findall(r"([a-z_:0-9A-Z]+)\{([^}]*)\}", r["expr"])
    used |= {m for m, _ in selectors}
    wrong += [f"{name}: {m} is not of job eternal" for m, labels in selectors if 'job="eternal"' not in labels]
    wrong += [f"{name}: {m} has no selector" for m in re.findall(r"\b(?:eternal_|process_|instance_program:)[\w:]+(?![{\w:])", r["expr"])]
    wrong += [f"{name}: range {n}s is under four scrapes" for n, u in re.findall(r"\[(\d+)(s)\]", r["expr"]) if int(n) < 60]
    wrong += [f"{name}: a value in a label" for v in r.get("labels", {}).values() if "$value" in v]
for name, r in alerts.items():
    notes = r["annotations"]
    wrong += [f"{name}: no {key}" for key in ("summary", "description", "dashboard") if not notes.get(key)]
    if not notes["runbook_url"].endswith("/" + name):
        wrong.append(f"{name}: runbook_url does not end in its name")
    if r["labels"]["severity"] not in ("critical", "warning", "none"):
        wrong.append(f"{name}: severity")
if len({r["annotations"]["runbook_url"].rsplit("/", 1)[0] for r in alerts.values()}) != 1:
    wrong.append("more than one base of runbook_url")
wrong += [f"{m} is used and not in metrics.txt" for m in used - known - recorded]
wrong += [f"{m} is in metrics.txt and not used" for m in known - used]
runbooks = {p.stem: p for p in pathlib.Path("runbooks").glob("*.md")}
wrong += [f"{n}: no runbook" for n in alerts.keys() - runbooks.keys()]
wrong += [f"{n}: a runbook without an alert" for n in runbooks.keys() - alerts.keys()]
for name, path in runbooks.items():
    if re.findall(r"^## (.*)", path.read_text(), re.M) != ["Meaning", "Impact", "Diagnosis", "Mitigation"]:
        wrong.append(f"runbooks/{path.name}: not the four headings")
tests = "".join(p.read_text() for p in pathlib.Path(".").glob("*.rules_test.yml"))
wrong += [f"{n}: no test" for n in alerts if f'"{n}"' not in tests]
print("\n".join(wrong) or f"{len(alerts)} alerts, {len(runbooks)} runbooks, {len(used & known)} series")
sys.exit(bool(wrong))
PYTHON
}

# Inhibition is nothing amtool can test on paper: ask an Alertmanager on loopback.
check_inhibition() {
    local folder port url pid
    folder=$(mktemp -d)
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    prometheus-alertmanager --config.file=alertmanager.yml --storage.path="$folder" --web.listen-address="127.0.0.1:$port" \
        --cluster.listen-address= --log.level=error &
    pid=$!
    # shellcheck disable=SC2064
    trap "kill $pid 2>/dev/null && wait $pid 2>/dev/null; rm -rf '$folder'" EXIT
    python3 - "$url" <<'PYTHON'
import json, sys, time, urllib.error, urllib.request
url = sys.argv[1] + "/api/v2/alerts"

def until(what, ask, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if (answer := ask()) is not None:
                return answer
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    sys.exit(f"FAILED: {what} within {seconds} s")

def get():
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)

until("Alertmanager answers", get)
programs = ["GaveUp", "CrashLooping", "CrashLoopingSlow", "NotRunning", "StuckInBackoff", "AvailabilityBurnFast", "OOMKilled"]
def alert(name, host, job, program=None, replica="0"):
    labels = {"alertname": name, "job": job, "case": f"{job}/{host}/{program}/{replica}"}
    labels |= {"instance": host} if host else {}
    labels |= {"program": program, "replica": replica} if program else {}
    return {"labels": labels}

def program(short, *place, **more):
    return alert("EternalProgram" + short, *place, **more)

# (alert, whether it has to be inhibited)
cases = [(program(p, "a", "eternal", "web"), p not in ("GaveUp", "OOMKilled")) for p in programs]
cases += [(program(p, "a", "eternal", "db"), p not in ("CrashLooping", "OOMKilled")) for p in programs if p != "GaveUp"]
cases += [(program("StuckInBackoff", "a", "eternal", "web", replica="1"), False), (program("StuckInBackoff", "b", "eternal", "web"), False)]
cases += [(program("NotRunning", "c", "eternal", "x"), False), (program("StuckInBackoff", "c", "eternal", "x"), True)]
cases += [(alert("EternalSupervisorDown", "d", "eternal"), False), (alert("EternalSupervisorRestarting", "d", "eternal"), False)]
cases += [(alert(n, "d", "eternal", "web"), True) for n in ("EternalProgramGaveUp", "EternalProgramOOMKilled", "EternalConfigReloadFailed")]
cases += [(alert("EternalSupervisorAbsent", None, "gone"), False), (alert("Watchdog", None, "gone"), False)]
cases += [(alert("EternalSupervisorDown", "e", "gone"), True), (program("GaveUp", "e", "gone", "web"), True)]
body = json.dumps([a for a, _ in cases]).encode()
urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).close()
key = lambda labels: (labels["alertname"], labels["case"])
expected = {key(a["labels"]): inhibited for a, inhibited in cases}

def settled():
    got = {key(a["labels"]): bool(a["status"]["inhibitedBy"]) for a in get()}
    settled.got = got
    return got if got == expected else None

settled.got = {}
try:
    until("inhibition is as expected", settled)
finally:
    for k, want in expected.items():
        if settled.got.get(k) != want:
            print(f"{k}: inhibited {settled.got.get(k)}, expected {want}", file=sys.stderr)
print(f"{len(cases)} alerts, {sum(expected.values())} inhibited")
PYTHON
    kill "$pid" && wait "$pid" 2>/dev/null || true
    rm -rf "$folder"
    trap - EXIT
}

install_tools
step rules && check_rules
step routes && check_routes
step "names, annotations, runbooks" && check_catalogue
step inhibition && check_inhibition
case $mode in
--quick) step "mutants (a sample)" && python3 mutate.py --sample 24 ;;
--full) step amlint && check_lint && step mutants && python3 mutate.py ;;
esac
echo "alerts: all well"
