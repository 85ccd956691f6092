"""What is wrong with the manifests of a tree: deploy/kubernetes rendered by kubectl, and held to schemas, to the files they
come from and to each other. A problem is a sentence."""
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

OVERLAYS = ("base", "overlays/example")
NATIVE_VERSION = "1.37"
RUN = "/run/eternal"


class Problem(Exception):
    """Something that is wrong."""


def problems(root, overlays=OVERLAYS):
    """Returns every problem of the tree, each with the folder it was found in."""
    found = []
    check = subprocess.run([sys.executable, root / "deploy/kubernetes/generate.py", "--check"], capture_output=True, text=True)
    if check.returncode != 0:
        found.append(f"generate.py: {check.stderr.strip()}")
    for folder in overlays:
        try:
            objects = rendered(root / "deploy/kubernetes" / folder)
        except Problem as problem:
            found.append(f"{folder}: {problem}")
            continue
        if folder != "base":
            found += [f"{folder}: {problem}" for problem in image_is_replaced(objects)]
        for look in (schemas, rules, dashboards, deployment, monitor, network):
            try:
                look(objects, root)
            except Problem as problem:
                found.append(f"{folder}: {look.__name__}: {problem}")
            except (KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
                found.append(f"{folder}: {look.__name__}: cannot look: {error!r}")
    return found


def rendered(folder):
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    if done.returncode != 0:
        raise Problem(f"kubectl: {done.stderr.strip()}")
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def one(objects, kind):
    found = [o for o in objects if o["kind"] == kind]
    if len(found) != 1:
        raise Problem(f"there are {len(found)} of kind {kind}")
    return found[0]


def image_is_replaced(objects):
    image = next(o for o in objects if o["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    return ["the image is still that of the base"] if image.startswith("localhost/") else []


def schemas(objects, _):
    for item in objects:
        name = f"{item.get('kind')} {item.get('metadata', {}).get('name')}"
        if item["apiVersion"].startswith("monitoring.coreos.com/"):
            model = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}.get(item["kind"])
            if model is None:
                raise Problem(f"{name}: no such kind")
            against_the_operator(item, model, name)
        else:
            try:
                kubernetes_validate.validate(item, NATIVE_VERSION, strict=True)
            except Exception as error:  # noqa: BLE001: a base of its own for each kind of mistake
                raise Problem(f"{name}: {str(error).splitlines()[0]}") from error


def against_the_operator(item, model, name):
    """The models skip fields they do not know: what does not come back is one."""
    try:
        back = model.model_validate_json(json.dumps(item), strict=True).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValueError as error:
        raise Problem(f"{name}: {' '.join(str(error).split())}") from error
    if lost := sorted(paths(item) - paths(back)):
        raise Problem(f"{name}: unknown field {lost[0]}")


def paths(value, at=""):
    """Returns the path of every field."""
    if isinstance(value, dict):
        return {f"{at}.{key}" for key in value}.union(*(paths(v, f"{at}.{key}") for key, v in value.items()))
    if isinstance(value, list):
        return set().union(*(paths(v, f"{at}[{number}]") for number, v in enumerate(value)))
    return set()


def rules(objects, root):
    """The rules are those that are tested, and Prometheus can read them."""
    spec = one(objects, "PrometheusRule")["spec"]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.dump(spec, file, yaml.CSafeDumper)
        file.flush()
        done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
    if done.returncode != 0:
        raise Problem(f"promtool: {(done.stdout + done.stderr).strip()}")
    shipped = yaml.load((root / "alerts/eternal.rules.yml").read_text(), yaml.CSafeLoader)
    if spec != shipped:
        raise Problem("they are not those of alerts/eternal.rules.yml")


def dashboards(objects, root):
    """Each dashboard is in a ConfigMap of its own, word for word, and small enough for `kubectl apply`."""
    maps = [o for o in objects if o["kind"] == "ConfigMap" and o["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    held = {name: text for o in maps for name, text in o["data"].items()}
    shipped = {p.name: p.read_text() for p in (root / "grafana/dashboards").glob("*.json")}
    if held != shipped:
        wrong = sorted(name for name in held.keys() | shipped.keys() if held.get(name) != shipped.get(name))
        raise Problem(f"not as in grafana/dashboards: {wrong}")
    for o in maps:
        # The annotation that `kubectl apply` keeps holds the whole object.
        if (size := len(json.dumps(json.dumps(o)))) > 262_144:
            raise Problem(f"{o['metadata']['name']}: {size} bytes are too much for an annotation")


def pod_of(objects):
    return one(objects, "Deployment")["spec"]["template"]["spec"]


def config_of(objects):
    """Returns the text of eternal.toml that the pod mounts at /etc/eternal."""
    pod = pod_of(objects)
    mount = next(m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/etc/eternal")
    volume = next(v for v in pod["volumes"] if v["name"] == mount["name"])
    name = volume["configMap"]["name"]
    return next(o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == name)["data"]["eternal.toml"]


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    number = text.rstrip("msh")
    return float(number) * units[text[len(number):]]


def longest_stop(config):
    """Returns the seconds a stop can take: programs that wait for each other stop one after the other."""
    programs = config["programs"]
    default = config.get("defaults", {}).get("stop_timeout", "5s")

    def chain(name):
        program = programs[name]
        return seconds(program.get("stop_timeout", default)) + max((chain(other) for other in program.get("after", [])), default=0)

    return max(chain(name) for name in programs)


def deployment(objects, _):
    """The pod is locked down, and what it is told agrees with the configuration it mounts."""
    pod = pod_of(objects)
    container = pod["containers"][0]
    config = tomllib.loads(config_of(objects))
    wanted = {
        "runAsNonRoot": (pod["securityContext"].get("runAsNonRoot"), True),
        "seccompProfile": (pod["securityContext"].get("seccompProfile"), {"type": "RuntimeDefault"}),
        "readOnlyRootFilesystem": (container["securityContext"].get("readOnlyRootFilesystem"), True),
        "allowPrivilegeEscalation": (container["securityContext"].get("allowPrivilegeEscalation"), False),
        "capabilities": (container["securityContext"].get("capabilities"), {"drop": ["ALL"]}),
        "automountServiceAccountToken": (pod.get("automountServiceAccountToken"), False),
        # Else the pause container is PID 1, and reaps.
        "shareProcessNamespace": (pod.get("shareProcessNamespace", False), False),
        "livenessProbe": (container["livenessProbe"]["httpGet"], {"path": "/-/healthy", "port": "metrics"}),
        "readinessProbe": (container["readinessProbe"]["httpGet"], {"path": "/-/ready", "port": "metrics"}),
        "metrics.listen": (config["metrics"]["listen"], f"0.0.0.0:{port(container, 'metrics')}"),
        "daemon.log_file": (config["daemon"]["log_file"], ""),
    }
    for key, (is_, should) in wanted.items():
        if is_ != should:
            raise Problem(f"{key} is {is_!r}, not {should!r}")
    grace, longest = pod["terminationGracePeriodSeconds"], longest_stop(config)
    if grace <= longest:
        raise Problem(f"terminationGracePeriodSeconds is {grace}, and a stop can take {longest:.0f} s")
    mount = next(m for m in container["volumeMounts"] if m["mountPath"] == RUN)
    volume = next(v for v in pod["volumes"] if v["name"] == mount["name"])
    if mount.get("readOnly") or "emptyDir" not in volume:
        raise Problem(f"nothing can be written to {RUN}")
    for key in ("pid_file", "socket", "state_dir"):
        if not config["daemon"][key].startswith(f"{RUN}/"):
            raise Problem(f"{key} is not below {RUN}, where alone it can be written")


def port(container, name):
    return next(p["containerPort"] for p in container["ports"] if p["name"] == name)


def monitor(objects, _):
    """Prometheus finds the pods, and gives them the job that the alerts ask for."""
    spec = one(objects, "PodMonitor")["spec"]
    template = one(objects, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        raise Problem("it selects other pods")
    if labels.get(spec["jobLabel"]) != "eternal":
        raise Problem(f"the job would be {labels.get(spec['jobLabel'])!r}, not 'eternal'")
    port(template["spec"]["containers"][0], spec["podMetricsEndpoints"][0]["port"])
    if seconds(spec["podMetricsEndpoints"][0]["interval"]) > 15:
        raise Problem("the alerts want a scrape every 15 s")


def network(objects, _):
    """Prometheus gets through to the port of the metrics, and nobody else."""
    template = one(objects, "Deployment")["spec"]["template"]
    spec = one(objects, "NetworkPolicy")["spec"]
    if not spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items():
        raise Problem("it is about other pods")
    for rule in spec["ingress"]:
        for allowed in rule["ports"]:
            port(template["spec"]["containers"][0], allowed["port"])
            if allowed["port"] == "metrics" and not rule.get("from"):
                raise Problem("everybody may read the metrics")
    if not any(allowed["port"] == "metrics" for rule in spec["ingress"] for allowed in rule["ports"]):
        raise Problem("nobody may read the metrics")
