"""Hosts of a network that is not there: network namespaces on a bridge, each with one Eternal, and names for them.

Works in a mount and a network namespace of its own, which fleet.py enters: when the test ends, nothing is left.
"""
import json
import os
import pathlib
import signal
import subprocess
import urllib.request

from stack import Failure, until

PORT = 10477


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Network:
    """A bridge with our own end at 10.77.0.1, and a file of names in place of /etc/hosts."""

    def __init__(self, folder):
        self.names = folder / "names"
        self.names.write_text("127.0.0.1 localhost\n")
        subprocess.run(["mount", "--bind", self.names, "/etc/hosts"], check=True)
        os.makedirs("/run/netns", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)
        ip("link", "set", "lo", "up")
        ip("link", "add", "br0", "type", "bridge")
        ip("address", "add", "10.77.0.1/24", "dev", "br0")
        ip("link", "set", "br0", "up")
        self.count = 0

    def join(self, name):
        """Makes a host, and returns its address."""
        self.count += 1
        address = f"10.77.0.{self.count + 10}"
        ip("netns", "add", name)
        ip("link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"v-{name}", "master", "br0", "up")
        ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        with open(self.names, "a", encoding="utf-8") as names:
            names.write(f"{address} {name}.example.com\n")
        return address


class Host:
    """One Eternal on a host of its own. `programs` are lines of its configuration."""

    def __init__(self, stack, network, name, programs):
        self.stack, self.name, self.instance = stack, name, f"{name}.example.com"
        self.address = network.join(name)
        self.folder = stack.folder / name
        self.folder.mkdir()
        head = f'[daemon]\nlog_file = "daemon.log"\n[metrics]\nlisten = "0.0.0.0:{PORT}"\n'
        (self.folder / "eternal.toml").write_text(head + programs)
        command = ["nsenter", f"--net=/run/netns/{name}", stack.binary, "run"]
        self.process = stack.launch(f"{name}.out", command, cwd=self.folder)
        until(f"{name} runs", lambda: (self.folder / "daemon.sock").exists(), 60)

    def is_known(self):
        """Tells Prometheus of it, in the form that install.sh prints."""
        self._tell([{"targets": [f"{self.instance}:{PORT}"]}])

    def is_known_by_address(self):
        self._tell([{"targets": [f"{self.address}:{PORT}"], "labels": {"hostname": self.instance}}])

    def _tell(self, groups):
        # By renaming: it is read as soon as it is there.
        new = self.stack.folder / f"{self.name}.new"
        new.write_text(json.dumps(groups))
        new.rename(self.stack.folder / "hosts" / f"{self.name}.json")

    def is_forgotten(self):
        (self.stack.folder / "hosts" / f"{self.name}.json").unlink()

    def status(self):
        done = subprocess.run([self.stack.binary, "status", "--json"], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise Failure(f"{self.name}: {done.stderr}")
        return {p["name"]: p for p in json.loads(done.stdout)["programs"]}

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.address}:{PORT}/metrics", timeout=20) as answer:
            return answer.read().decode()

    def link(self, state):
        ip("link", "set", f"v-{self.name}", state)

    def dies(self):
        """As if somebody pulled the plug: every process at once, and the network with them."""
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if pathlib.Path(os.readlink(entry / "cwd")) == self.folder:
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        ip("link", "delete", f"v-{self.name}")
