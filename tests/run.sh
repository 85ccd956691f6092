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

hosts_can_be_made() { # The machines, containers and hosts of the tests are namespaces over an overlay of this one.
  # shellcheck disable=SC2016
  [ "$(id -u)" -eq 0 ] && unshare --mount --pid --net --uts --ipc --cgroup --fork sh -euc '
    mount -t tmpfs tmpfs /tmp && mkdir /tmp/upper /tmp/work /tmp/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work /tmp/root
  '
}

need gcc libc6-dev util-linux procps curl iproute2 python3 python3-venv nodejs prometheus prometheus-alertmanager
cargo test --locked --quiet
if [ "${1:-}" != --quick ]; then
  command -v npm >/dev/null || need nodejs npm
  tests/dashboards/types.sh
  tests/alerts.sh
  tests/live/live.py
  tests/import/side_by_side.py
  tests/faults/run.py --sample
  deploy/demo/check.sh
  tests/kubernetes/kubernetes.sh
  if hosts_can_be_made; then
    tests/cgroups/qemu.sh
    tests/systemd/run.py
    tests/container/container.py
    tests/fleet/install.sh
    tests/fleet/fleet.py
  else
    echo "SKIPPED: systemd, cgroups, containers and fleet: they need root, namespaces and overlay mounts" >&2
  fi
fi
