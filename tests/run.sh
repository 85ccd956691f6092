#!/bin/bash
# Runs every test; installs what they need on a Debian machine. `tests/run.sh --quick`: the Rust tests only.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # PACKAGE…: installs what is missing, where that is possible
  local missing=()
  for package in "$@"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then echo "not root: cannot install ${missing[*]}; tests that need them are skipped" >&2; return; fi
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need gcc libc6-dev util-linux procps curl iproute2 python3 python3-venv nodejs prometheus prometheus-alertmanager
cargo test --locked --quiet
if [ "${1:-}" != --quick ]; then
  command -v npm >/dev/null || need nodejs npm
  tests/dashboards/types.sh
  tests/alerts.sh
  tests/live/live.py
  deploy/demo/check.sh
  tests/cgroups/qemu.sh
  tests/systemd/run.py
  tests/container/container.py
  tests/kubernetes/kubernetes.sh
  tests/fleet/install.sh
  tests/fleet/fleet.py
fi
