#!/bin/bash
# Shows what a person on call sees: Eternal with a few programs, Prometheus and Alertmanager with the shipped
# rules and routes, a crash loop made on purpose, and every notification as it arrives. All on 127.0.0.1.
#
# Usage: deploy/demo/demo.sh [--real-time] [--once] [--help]
#
#   --real-time  the shipped durations and 15 s scrapes; without it all are divided by 15
#   --once       end when the alert has resolved; without it the servers stay up until Ctrl-C
#
# Needs prometheus, prometheus-alertmanager (as root on Debian they are installed), python3 and curl, and cargo unless
# target/release/eternal is there or $ETERNAL_BINARY names one. Leaves nothing behind.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

factor=15 scrape=1 stay=yes
for word in "$@"; do
  case $word in
  --real-time) factor=1 scrape=15 ;;
  --once) stay=no ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  *) echo "demo.sh: unknown option $word (--help says which there are)" >&2; exit 2 ;;
  esac
done

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n%s\n' "$*"; }

need_tools() {
  local missing=()
  command -v prometheus >/dev/null || missing+=(prometheus)
  command -v prometheus-alertmanager >/dev/null || missing+=(prometheus-alertmanager)
  command -v curl >/dev/null || missing+=(curl)
  command -v python3 >/dev/null || missing+=(python3)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "demo.sh: install ${missing[*]} first" >&2
    exit 1
  fi
  say "Installing ${missing[*]}"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

find_binary() {
  binary=${ETERNAL_BINARY:-$root/target/release/eternal}
  [ -x "$binary" ] && return
  say "Building Eternal (once)"
  (cd "$root" && CARGO_TARGET_DIR="$root/target" cargo build --locked --release)
}

# Everything runs in $work; whoever started last ends first.
cleanup() {
  trap - EXIT INT TERM
  say "Cleaning up"
  local i
  for ((i = ${#children[@]} - 1; i >= 0; i--)); do
    kill "${children[i]}" 2>/dev/null || true
    wait "${children[i]}" 2>/dev/null || true
  done
  rm -rf "$work"
}

start() { # NAME COMMAND…: in the background, its output in a file
  local name=$1
  shift
  "$@" >"$work/$name.out" 2>&1 &
  children+=($!)
}

wait_for() { # WHAT URL
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    curl -fsS --noproxy '*' -o /dev/null "$2" 2>/dev/null && return
    sleep 0.2
  done
  echo "demo.sh: $1 does not answer at $2" >&2
  tail -n 20 "$work"/*.out >&2
  exit 1
}

write_configs() {
  read -r eternal prometheus alertmanager hook api < <(python3 -c '
import socket
held = [socket.socket() for _ in range(5)]
for one in held: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))')
  cat >"$work/eternal.toml" <<TOML
[metrics]
listen = "127.0.0.1:$eternal"
[programs.api]
command = ["$binary", "api-server", "--chaos", "--listen", "127.0.0.1:$api"]
ready   = "http://127.0.0.1:$api/health"
[programs.worker]
command = ["sh", "-c", "while :; do echo working; sleep 5; done"]
instances = 2
[programs.mail]
command = ["sh", "-c", "echo waiting for mail; exec sleep 1000000"]
after   = ["api"]
TOML
  "$root/tests/live/scale.py" "$factor" <"$root/alerts/eternal.rules.yml" >"$work/eternal.rules.yml"
  "$root/tests/live/scale.py" "$factor" <"$root/alerts/alertmanager.yml" |
    sed -E "s|^(  - name: )(.*)|\1\2\n    webhook_configs: [{ url: 'http://127.0.0.1:$hook/\2', send_resolved: true }]|" >"$work/alertmanager.yml"
  cat >"$work/prometheus.yml" <<YAML
global: { scrape_interval: ${scrape}s, scrape_timeout: ${scrape}s, evaluation_interval: ${scrape}s }
rule_files: [eternal.rules.yml]
alerting: { alertmanagers: [{ static_configs: [{ targets: ["127.0.0.1:$alertmanager"] }] }] }
scrape_configs:
  - { job_name: eternal, static_configs: [{ targets: ["127.0.0.1:$eternal"] }] }
  - { job_name: programs, static_configs: [{ targets: ["127.0.0.1:$api"] }] }
YAML
}

# The pager: prints every notification. The dead man's switch is told of once.
receiver() {
  exec python3 -u - "$hook" "$work" <<'PYTHON'
import http.server, json, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the script ends us
work, seen = pathlib.Path(sys.argv[2]), set()

class Pager(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in body["alerts"]:
            name, status = alert["labels"]["alertname"], alert["status"]
            news = (name, status, alert["startsAt"], alert["labels"].get("program"))
            if news in seen:
                continue
            seen.add(news)
            to = self.path.strip("/")
            print(f"{time.strftime('%H:%M:%S')}  {to:<16} {status.upper():<8}  {name}\n{'':28}{alert['annotations']['summary']}", flush=True)
            if name != "Watchdog" and status == "firing":
                print(f"{'':28}{alert['annotations']['runbook_url']}", flush=True)
            (work / f"{name}.{status}").touch()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pager).serve_forever()
PYTHON
}

start_all() {
  receiver &
  children+=($!)
  (cd "$work" && exec "$binary" run) >"$work/eternal.out" 2>&1 &
  children+=($!)
  wait_for Eternal "http://127.0.0.1:$eternal/-/ready"
  start alertmanager prometheus-alertmanager --config.file="$work/alertmanager.yml" --storage.path="$work/alertmanager" \
    --web.listen-address="127.0.0.1:$alertmanager" --cluster.listen-address= --log.level=warn
  wait_for Alertmanager "http://127.0.0.1:$alertmanager/-/ready"
  start prometheus prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
    --web.listen-address="127.0.0.1:$prometheus" --log.level=warn \
    --rules.alert.resend-delay=$((60000 / factor))ms --query.lookback-delta=$((300000 / factor))ms
  wait_for Prometheus "http://127.0.0.1:$prometheus/-/ready"
}

ask() { (cd "$work" && "$binary" "$@"); }

await_alert() { # NAME.STATUS
  local tries
  for ((tries = 0; tries < 3000; tries++)); do
    [ -e "$work/$1" ] && return
    sleep 0.2
  done
  echo "demo.sh: $1 did not arrive within ten minutes" >&2
  exit 1
}

# Exits the API server whenever it is up, until the supervisor gives up on it.
crash_loop() {
  local crashes=0
  # status says by its exit code, too, that not all is well.
  until [[ $(ask status --json api || true) == *'"state":"failed"'* ]]; do
    if curl -fsS --noproxy '*' -X POST "http://127.0.0.1:$api/chaos/exit?code=70" -o /dev/null 2>/dev/null; then
      crashes=$((crashes + 1))
      echo "$(date +%H:%M:%S)  POST /chaos/exit: crash $crashes"
    fi
    sleep 0.2
  done
}

need_tools
find_binary
work=$(mktemp -d -t eternal-demo-XXXXXX)
children=()
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
write_configs
start_all

[ "$factor" = 1 ] || say "Durations of the shipped rules, routes and scrapes are divided by $factor (--real-time: as shipped)"
cat <<TEXT
  Eternal       http://127.0.0.1:$eternal/
  API server    http://127.0.0.1:$api/health
  Prometheus    http://127.0.0.1:$prometheus/alerts
  Alertmanager  http://127.0.0.1:$alertmanager/
TEXT
say '$ eternal status'
ask status || true
await_alert Watchdog.firing
say "A crash loop: the API server exits with 70 as soon as it is up"
crash_loop
await_alert EternalProgramGaveUp.firing
say '$ eternal status'
ask status || true
say '$ eternal crashes api'
ask crashes api | tail -n 12
say 'Somebody mends it. $ eternal start api'
ask start api
await_alert EternalProgramGaveUp.resolved
say '$ eternal status'
ask status || true
if [ "$stay" = yes ]; then
  say "Everything stays up until Ctrl-C. Try: curl -X POST http://127.0.0.1:$api/chaos/segfault"
  while sleep 1; do :; done
fi
