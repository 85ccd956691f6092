#!/usr/bin/env python3
"""Makes a bad quarter of an hour and writes down what every panel of grafana/dashboards/ has to show of it.

Two supervisors with programs that crash, hang, flood and finish, a real Prometheus that scrapes them every second,
and a person who restarts, reloads and kills. The answers of Prometheus to the panels' own queries go into a JSON
file, which render.sh draws.

Usage: scenario.py OUTPUT.json [--binary PATH] [--seconds N]
"""
import argparse
import contextlib
import json
import pathlib
import random
import signal
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "live"))
import dashboards  # noqa: E402
from live import built, install  # noqa: E402
from stack import ROOT, Daemon, Failure, Stack, free_ports, get_text, until  # noqa: E402

SCRAPE = 1
# Where the value of a variable is not All.
CHOSEN = {"program": {"program": "(api|flaky|worker)"}}
LASTS = ["crash_threshold = 100000", 'restart_delay_max = "6s"']


def shell(script):
    return f"command = ['sh', '-c', '{script}']"


def web(api):
    """The programs of the first supervisor: one of every fate."""
    return {
        "api": [f'command = ["eternal", "api-server", "--listen", "127.0.0.1:{api}", "--chaos"]', f'ready = "http://127.0.0.1:{api}/health"',
                f'metrics_address = "127.0.0.1:{api}"', f'health_check = "http://127.0.0.1:{api}/health"', 'health_interval = "2s"', *LASTS],
        "worker": [shell("while :; do echo job done; echo slow job >&2; sleep 0.$((RANDOM % 8 + 2)); done").replace("'sh'", "'bash'"),
                   "instances = 3", 'after = ["api"]'],
        # Dies of this and that, after one to twenty seconds.
        "flaky": [shell("echo up; sleep $((RANDOM % 20 + 1)); case $((RANDOM % 5)) in 0) exit 3;; 1) exit 70;; 2) kill -SEGV $$;; "
                        "3) kill -KILL $$;; *) exit 1;; esac").replace("'sh'", "'bash'"), *LASTS],
        "batch": [shell("sleep 12"), 'restart_delay = "3s"'],
        "broken": [shell("sleep 1; echo no database >&2; exit 2"), 'restart_delay = "500ms"', 'on_crash_loop = "retry"', 'retry_after = "2m"'],
        "missing": ["command = ['/usr/lib/nothing-here']", 'on_crash_loop = "retry"', 'retry_after = "3m"'],
        "sluggish": [shell("sleep 100000"), 'ready = "tcp://127.0.0.1:1"', 'start_timeout = "4s"', 'restart_delay = "5s"', 'restart_delay_max = "40s"',
                     "crash_threshold = 100000"],
        "deaf": [shell('trap "" TERM; while :; do sleep 1; done'), 'stop_timeout = "1500ms"'],
        "chatty": [shell("while :; do seq 1 400000; sleep 20; done")],
        "migrate": [shell("sleep 2"), 'restart = "never"'],
    }


JOBS = {
    "mailer": [shell("sleep 100000"), "instances = 2"],
    "indexer": [shell("sleep $((RANDOM % 40 + 15)); kill -ABRT $$").replace("'sh'", "'bash'"), *LASTS],
    "report": [shell("sleep 25"), 'restart_delay = "5s"'],
}


class Supervisor(Daemon):
    """One `eternal run` whose programs say themselves what they run."""

    def write_config(self, note="first"):
        lines = ["[daemon]", 'log_file = "daemon.log"', "[metrics]", f'listen = "{self.instance}"', "[defaults]", f'environment = {{ NOTE = "{note}" }}']
        for name, keys in self.programs.items():
            lines += [f"[programs.{name}]", *keys]
        (self.folder / "eternal.toml").write_text("\n".join(lines) + "\n")

    def start(self):
        # Not every program ever gets ready here.
        self.process = self.stack.launch(f"{self.name}.out", [self.stack.binary, "run"], cwd=self.folder)
        until(f"{self.name} answers", lambda: get_text(f"http://{self.instance}/-/healthy"), 60)


def ask(url, **more):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(urllib.request.Request(url, **more), timeout=5).close()


def visit(api, over):
    """A visitor of the API server, who now and then makes it die."""
    chance = random.Random(1)
    while not over.wait(0.25):
        ask(f"http://127.0.0.1:{api}/health")
        if chance.random() < 0.012:
            ask(f"http://127.0.0.1:{api}/chaos/{chance.choice(['exit', 'abort', 'segfault'])}", method="POST")


def operate(first, second, seconds):
    """What people do meanwhile, at shares of the time."""
    begin = time.monotonic()

    def at(share):
        time.sleep(max(0.0, begin + share * seconds - time.monotonic()))

    at(0.15)
    first.tell("restart", "deaf")
    at(0.25)
    (first.folder / "eternal.toml").write_text("nonsense = 1\n")
    first.refuses("reload")
    at(0.35)
    first.write_config()
    first.tell("reload")
    at(0.45)
    first.tell("restart", "deaf", "worker")
    at(0.55)
    second.process.kill()
    second.process.wait()
    time.sleep(8)
    second.start()
    at(0.7)
    second.write_config(note="second")
    second.tell("reload")
    first.tell("stop", "batch")
    first.process.send_signal(signal.SIGUSR2)
    second.process.send_signal(signal.SIGHUP)
    at(0.8)
    first.tell("start", "batch")
    at(1)


def answers(stack, board, name, start, end):
    """The answers to every query of a dashboard, by panel, and of its annotations."""
    chosen, width = CHOSEN.get(name, {}), end - start

    def filled(expression):
        for variable, value in chosen.items():
            expression = expression.replace(f"${variable}", value)
        return dashboards.filled_in(expression, SCRAPE, round(width))

    def result(target):
        # A least step is made for scrapes of 15 s.
        query, step = filled(target["expr"]), int(target.get("interval", "15s")[:-1]) / 15 * SCRAPE
        return stack.query(query, time=end) if target.get("instant") else stack.query_range(query, start, end, step)

    panels = {p["id"]: {t["refId"]: result(t) for t in p.get("targets", [])} for p in board["panels"]}
    notes = [stack.query_range(filled(a["expr"]), start, end, SCRAPE) for a in board["annotations"]["list"]]
    return {"board": board, "chosen": chosen, "panels": panels, "annotations": notes}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    install()
    binary = (options.binary or built()).resolve()
    stack, over, api = Stack(binary, 1, SCRAPE, daemons=2), threading.Event(), free_ports(1)[0]
    try:
        programs = web(api)
        programs["api"] = [key.replace('"eternal"', f'"{binary}"') for key in programs["api"]]
        first, second = (Supervisor(stack, name, stack.ports.pop(0), them) for name, them in (("web", programs), ("jobs", JOBS)))
        stack.daemons += [first, second]
        stack.start()
        until("Prometheus has scraped", lambda: stack.number("sum(up)") == 2, 60)
        begin = time.time()
        threading.Thread(target=visit, args=(api, over), daemon=True).start()
        operate(first, second, options.seconds)
        end = time.time()
        written = {}
        for path in sorted((ROOT / "grafana/dashboards").glob("*.json")):
            written[path.stem] = answers(stack, json.loads(path.read_text()), path.stem, begin, end)
        options.output.write_text(json.dumps({"from": begin, "to": end, "scrape": SCRAPE, "dashboards": written}))
    except Failure:
        print(stack.logs(), file=sys.stderr)
        raise
    finally:
        over.set()
        stack.close()


if __name__ == "__main__":
    main()
