#!/bin/bash
# Holds grafana/dashboards/*.json to the types that Grafana publishes (npm @grafana/schema).
# Needs node 18 and npm; the two packages are installed in a directory of their own, which is gone in the end.
set -euo pipefail
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp types/* "$folder"
npm ci --prefix "$folder" --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null
(cd "$folder" && node check.mjs "$OLDPWD/../../grafana/dashboards")
