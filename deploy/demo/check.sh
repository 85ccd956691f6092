#!/bin/bash
# Checks what lies here without running containers: compose.yml against the schema of the Compose specification and
# against the files it mounts, its inline configurations with promtool and eternal, demo.sh's syntax and help.
# Needs python3 with venv, promtool; $ETERNAL_BINARY or target/debug/eternal. Fetches check-jsonschema from PyPI.
set -euo pipefail
binary=$(realpath "${ETERNAL_BINARY:-$(dirname "$0")/../../target/debug/eternal}")
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check check-jsonschema pyyaml
"$work/venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec compose.yml
"$work/venv/bin/python" - "$work" <<'PYTHON'
import pathlib, sys, yaml
work, compose = pathlib.Path(sys.argv[1]), yaml.safe_load(open("compose.yml"))
for name, service in compose["services"].items():
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if not pathlib.Path(source).exists():
            sys.exit(f"{name} mounts {source}, which is not there")
    for config in service.get("configs", []):
        if config["source"] not in compose["configs"]:
            sys.exit(f"{name} wants config {config['source']}, which is not there")
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:"):
            sys.exit(f"{name} publishes {port} beyond loopback")
for name, config in compose["configs"].items():
    (work / name).write_text(config["content"])
inline, shipped = (yaml.safe_load(open(p))["datasources"][0] for p in (work / "datasource", "../../grafana/provisioning/datasources/prometheus.yml"))
if inline | {"url": ""} != shipped | {"url": ""}:
    sys.exit("the datasource is not the one of grafana/provisioning/")
PYTHON
cp ../../alerts/eternal.rules.yml "$work/"
mv "$work/prometheus" "$work/prometheus.yml"
promtool check config "$work/prometheus.yml" >/dev/null
mv "$work/eternal" "$work/eternal.toml"
PATH="$(dirname "$binary"):$PATH" "$binary" check "$work/eternal.toml" >/dev/null
bash -n demo.sh
./demo.sh --help | grep -q -- --real-time
if ./demo.sh --nonsense 2>/dev/null; then echo "demo.sh takes any option" >&2; exit 1; fi
echo "deploy/demo: all well"
