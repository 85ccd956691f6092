"""The neighbours, for real: Prometheus, Alertmanager, a webhook receiver and Eternal, all on loopback.

A Stack owns a temporary directory and every process it started, and leaves neither behind.
"""
import contextlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import scale

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ["no_proxy"] = "127.0.0.1"
RECEIVERS = ("page", "warning", "dead-mans-switch", "nobody")


class Failure(Exception):
    """What was promised did not happen."""


def until(what, ask, seconds):
    """Asks until the answer is true, and returns it. An exception of the network is a no."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if last := ask():
                return last
        except (OSError, urllib.error.URLError) as error:
            last = error
        time.sleep(0.1)
    raise Failure(f"{what}: not within {seconds} s (last answer: {last!r})")


def get(url, **query):
    with urllib.request.urlopen(url + ("?" + urllib.parse.urlencode(query, doseq=True) if query else ""), timeout=20) as answer:
        return json.load(answer)


def free_ports(count):
    """Finds ports nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


class Webhook:
    """Keeps every notification with the monotonic time at which it came."""

    def __init__(self):
        self.came, self.changed = [], threading.Condition()
        hook = self

        class Receive(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with hook.changed:
                    hook.came.append((time.monotonic(), self.path.strip("/"), body))
                    hook.changed.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receive)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def alerts(self, receiver=None, since=0.0, status=None, **labels):
        """Returns (time, alert) of every alert in every notification that fits."""
        with self.changed:
            return [
                (at, alert)
                for at, to, body in self.came
                for alert in body["alerts"]
                if at >= since
                and receiver in (None, to)
                and status in (None, alert["status"])
                and all(alert["labels"].get(name) == value for name, value in labels.items())
            ]

    def wait(self, seconds, receiver, status, count=1, since=0.0, **labels):
        """Waits for the alert and returns the time at which it came."""
        end = time.monotonic() + seconds
        while len(found := self.alerts(receiver, since, status, **labels)) < count:
            with self.changed:
                if not self.changed.wait(timeout=min(1.0, max(0.0, end - time.monotonic()))) and time.monotonic() >= end:
                    heard = sorted({(a["labels"]["alertname"], a["status"], a["labels"].get("instance")) for _, a in self.alerts()})
                    raise Failure(f"{status} {labels} at {receiver}: not within {seconds} s; heard of {heard}")
        return found[count - 1][0]


class Daemon:
    """One `eternal run` with its own directory, programs that break on request, and a metrics address."""

    def __init__(self, stack, name, port, programs, extra=""):
        self.stack, self.name, self.programs, self.extra = stack, name, programs, extra
        self.folder = stack.folder / name
        self.folder.mkdir()
        self.instance = f"127.0.0.1:{port}"
        self.write_config()
        self.start()

    def write_config(self, **environment):
        lines = ["[daemon]", 'log_file = "daemon.log"', 'stats_interval = "1h"']
        lines += ["[metrics]", f'listen = "{self.instance}"', self.extra]
        for name, keys in self.programs.items():
            # Runs for ever, or dies at once while a file says so.
            script = f"test -e {name}.broken && exit 3; exec sleep 100000"
            pairs = ", ".join(f'{key} = "{value}"' for key, value in environment.items())
            lines += [f"[programs.{name}]", f'command = ["sh", "-c", "{script}"]', f"environment = {{ {pairs} }}", *keys]
        (self.folder / "eternal.toml").write_text("\n".join(lines) + "\n")

    def start(self):
        self.process = self.stack.launch(f"{self.name}.out", [self.stack.binary, "run"], cwd=self.folder)
        until(f"{self.name} answers", lambda: get_text(f"http://{self.instance}/-/ready"), 60)

    def tell(self, *words):
        """Runs a command of the CLI against this daemon and returns what it printed."""
        done = subprocess.run([self.stack.binary, *words], cwd=self.folder, capture_output=True, text=True, timeout=90, check=False)
        if done.returncode != 0:
            raise Failure(f"eternal {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def pid(self, program):
        return next(p["pid"] for p in json.loads(self.tell("status", "--json"))["programs"] if p["name"] == program)

    def break_program(self, program):
        """Makes the program crash, by signal, and at once whenever it is started again. Returns when that was."""
        (self.folder / f"{program}.broken").touch()
        os.kill(self.pid(program), signal.SIGKILL)
        return time.monotonic()

    def mend(self, program):
        (self.folder / f"{program}.broken").unlink()


def get_text(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


class Stack:
    """Prometheus with the shipped rules and Alertmanager with the shipped routes, every duration divided by `factor`."""

    def __init__(self, binary, factor, scrape, daemons, more_rules=()):
        self.binary, self.factor, self.scrape = str(binary), factor, scrape
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="eternal-live-"))
        self.processes, self.daemons, self.hook = [], [], Webhook()
        prometheus, alertmanager, *self.ports = free_ports(2 + daemons)
        self.prometheus, self.alertmanager = f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}"
        self.more_rules, self.where = more_rules, (prometheus, alertmanager)

    def start(self):
        """Starts the neighbours; the daemons first, since a target that is not up yet is a supervisor down."""
        prometheus, alertmanager = self.where
        self.targets = [d.instance for d in self.daemons]
        self._start_alertmanager(alertmanager)
        self._start_prometheus(prometheus, alertmanager)
        self.started = time.time()

    def _start_alertmanager(self, port):
        text = scale.scale((ROOT / "alerts/alertmanager.yml").read_text(), self.factor)
        for receiver in RECEIVERS:
            there = f"  - name: {receiver}\n"
            if text.count(there) != 1:
                raise Failure(f"alertmanager.yml: receiver {receiver} is not there once")
            text = text.replace(there, there + f"    webhook_configs: [{{ url: '{self.hook.url}/{receiver}', send_resolved: true }}]\n")
        (self.folder / "alertmanager.yml").write_text(text)
        self.launch("alertmanager.out", [
            "prometheus-alertmanager", f"--config.file={self.folder}/alertmanager.yml", f"--storage.path={self.folder}/alertmanager",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn"])
        until("Alertmanager answers", lambda: get_text(self.alertmanager + "/-/ready"), 60)

    def _start_prometheus(self, port, alertmanager):
        names = []
        for path in (ROOT / "alerts/eternal.rules.yml", *self.more_rules):
            (self.folder / path.name).write_text(scale.scale(path.read_text(), self.factor))
            names.append(path.name)
        targets = ", ".join(f'"{target}"' for target in self.targets)
        (self.folder / "prometheus.yml").write_text(f"""\
global: {{ scrape_interval: {self.scrape}s, scrape_timeout: {self.scrape}s, evaluation_interval: {self.scrape}s }}
rule_files: [{", ".join(names)}]
alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ["127.0.0.1:{alertmanager}"] }}] }}] }}
scrape_configs: [{{ job_name: eternal, static_configs: [{{ targets: [{targets}] }}] }}]
""")
        subprocess.run(["promtool", "check", "config", self.folder / "prometheus.yml"], check=True, stdout=subprocess.DEVNULL)
        self.launch("prometheus.out", [
            "prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
            # Durations of Prometheus itself that the alerts depend on: defaults 1m and 5m.
            f"--rules.alert.resend-delay={scale.divided('1m', self.factor)}",
            f"--query.lookback-delta={scale.divided('5m', self.factor)}"])
        until("Prometheus answers", lambda: get_text(self.prometheus + "/-/ready"), 60)

    def launch(self, log, command, cwd=None):
        with open(self.folder / log, "ab") as out:
            process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.processes.append(process)
        return process

    def daemon(self, name, programs, extra=""):
        self.daemons.append(Daemon(self, name, self.ports.pop(0), programs, extra))
        return self.daemons[-1]

    def query(self, expression, **more):
        """Returns the result of an instant query; raises Failure with the words of Prometheus when it is refused."""
        return self._ask("query", query=expression, **more)

    def query_range(self, expression, start, end, step):
        return self._ask("query_range", query=expression, start=start, end=end, step=step)

    def _ask(self, kind, **query):
        try:
            return get(f"{self.prometheus}/api/v1/{kind}", **query)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise Failure(f"Prometheus refuses {query['query']!r}: {json.load(error).get('error')}") from error

    def number(self, expression):
        """Returns the one number that an expression yields, or None."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if len(result) == 1 else None

    def suppressed(self, **labels):
        """Returns {name: names of what inhibits it} of the alerts in Alertmanager that fit."""
        alerts = get(self.alertmanager + "/api/v2/alerts")
        names = {a["fingerprint"]: a["labels"]["alertname"] for a in alerts}
        return {
            a["labels"]["alertname"]: {names.get(f) for f in a["status"]["inhibitedBy"]}
            for a in alerts
            if all(a["labels"].get(name) == value for name, value in labels.items())
        }

    def logs(self):
        """Returns the last lines of every process, for whoever has to find out why a test failed."""
        return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-15:]) for p in sorted(self.folder.glob("*.out")))

    def close(self):
        """Ends everything that was started, and whatever a killed daemon left running in our directory."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if pathlib.Path(os.readlink(entry / "cwd")).is_relative_to(self.folder):
                    os.kill(int(entry.name), signal.SIGKILL)
        self.hook.server.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)
