"""See kubernetes.sh, which makes the environment this runs in."""
import concurrent.futures
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import manifests

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ["ETERNAL_BINARY"])
BASE, EXAMPLE = "deploy/kubernetes/base/", "deploy/kubernetes/overlays/example/"
# file, what is there, what takes its place, words of the problem that must be found.
SEEDS = [
    (BASE + "deployment.yaml", "terminationGracePeriodSeconds:", "terminationGracePeriodSecond:", "terminationGracePeriodSecond"),
    (BASE + "deployment.yaml", "containerPort: 10477", "containerPort: many", "many"),
    (BASE + "deployment.yaml", "apiVersion: apps/v1", "apiVersion: apps/v2", "schemas"),
    (BASE + "deployment.yaml", "path: /-/healthy", "path: /healthy", "livenessProbe"),
    (BASE + "deployment.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
    (BASE + "deployment.yaml", 'drop: ["ALL"]', "drop: []", "capabilities"),
    (BASE + "deployment.yaml", "          readOnly", "          readonly", "readonly"),
    (BASE + "deployment.yaml", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 5", "a stop can take 5 s"),
    (EXAMPLE + "eternal.toml", 'stop_timeout = "1m"', 'stop_timeout = "70s"', "a stop can take 75 s"),
    (BASE + "eternal.toml", "0.0.0.0:10477", "127.0.0.1:10477", "metrics.listen"),
    (BASE + "eternal.toml", "/run/eternal/state", "/var/lib/eternal", "state_dir"),
    (BASE + "podmonitor.yaml", "podMetricsEndpoints:", "podMetricEndpoints:", "podMetricEndpoints"),
    (BASE + "podmonitor.yaml", "scrapeTimeout: 10s", "scrapeTimout: 10s", "scrapeTimout"),
    (BASE + "podmonitor.yaml", "interval: 15s", "interval: 15", "interval"),
    (BASE + "podmonitor.yaml", "monitoring.coreos.com/v1", "monitoring.coreos.com/v9", "schemas"),
    (BASE + "podmonitor.yaml", "jobLabel: app.kubernetes.io/name", "jobLabel: app.kubernetes.io/part-of", "the job would be"),
    (BASE + "networkpolicy.yaml", "- port: metrics", "- port: metric", "network"),
    (BASE + "networkpolicy.yaml", "policyTypes: [Ingress]", "policyTypes: Ingress", "schemas"),
    (BASE + "prometheusrule.yaml", "clamp_min(avg_over_time(", "clamp_min(avg_over_time((", "promtool"),
    (BASE + "prometheusrule.yaml", "> 14.4 * 0.001", "> 15 * 0.001", "not those of alerts/"),
    (BASE + "prometheusrule.yaml", "for: 2m", "four: 2m", "unknown field"),
    ("alerts/eternal.rules.yml", "for: 2m", "for: 3m", "generate.py"),
    ("grafana/kustomization.yaml", "files: [dashboards/fleet.json]", "files: [dashboards/program.json]", "dashboards"),
    (EXAMPLE + "kustomization.yaml", "name: localhost/eternal", "name: localhost/external", "the image is still"),
]


def copied(folder):
    for part in ("deploy/kubernetes", "alerts", "grafana"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))


def a_seeded_error_is_found(seed):
    path, old, new, words = seed
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        copied(root)
        text = (root / path).read_text()
        if old not in text:
            return f"{path}: there is no {old!r} to seed an error in"
        (root / path).write_text(text.replace(old, new, 1))
        found = manifests.problems(root, ["overlays/example"] if path.startswith(EXAMPLE) else ["base"])
    if not any(words in problem for problem in found):
        return f"{path}: {new!r} was not found; found was: {found}"
    return None


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def until(what, ask):
    end = time.monotonic() + 60
    while not ask():
        if time.monotonic() > end:
            raise manifests.Problem(f"{what}: not within 60 s")
        time.sleep(0.02)


def the_probes_are_answered():
    """Runs what the pod of the base would run, with places and ports of its own, and asks what the kubelet would."""
    objects = manifests.rendered(ROOT / BASE)
    container = manifests.pod_of(objects)["containers"][0]
    with tempfile.TemporaryDirectory() as folder:
        ports = {name: free_port() for name in ("metrics", "http")}
        text = manifests.config_of(objects).replace(manifests.RUN, folder)
        for name, number in ports.items():
            text = text.replace(f":{manifests.port(container, name)}", f":{number}")
        (pathlib.Path(folder) / "eternal.toml").write_text(text)
        environment = {"PATH": str(BINARY.parent)}
        with open(pathlib.Path(folder) / "log", "w+", encoding="utf-8") as log:
            command = [BINARY, "--config", f"{folder}/eternal.toml", *container["args"]]
            daemon = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stderr=log)
            try:
                for probe in ("livenessProbe", "readinessProbe"):
                    get = container[probe]["httpGet"]
                    url = f"http://127.0.0.1:{ports[get['port']]}{get['path']}"
                    until(f"{probe} is answered with 200", lambda url=url: status(url) == 200)
                daemon.terminate()
                grace = manifests.pod_of(objects)["terminationGracePeriodSeconds"]
                if (code := daemon.wait(grace)) != 0:
                    raise manifests.Problem(f"it ended with {code}")
                log.seek(0)
                json.loads(log.readline())
            finally:
                daemon.kill()
                daemon.wait()


def configs_are_valid():
    for folder in (BASE, EXAMPLE):
        command = [BINARY, "check", ROOT / folder / "eternal.toml"]
        done = subprocess.run(command, env={"PATH": str(BINARY.parent)}, capture_output=True, text=True)
        if done.returncode != 0:
            raise manifests.Problem(f"{folder}eternal.toml: {done.stderr}")


def main():
    begin = time.monotonic()
    if found := manifests.problems(ROOT):
        sys.exit("\n".join(found))
    configs_are_valid()
    the_probes_are_answered()
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        missed = [miss for miss in pool.map(a_seeded_error_is_found, SEEDS) if miss]
    if missed:
        sys.exit("\n".join(missed))
    print(f"deploy/kubernetes: all well, {len(SEEDS)} seeded errors found, in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
