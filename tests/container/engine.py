"""podman with runc, chroot-isolated buildah and storage of their own: nothing of the machine's is touched.

Networks are none but the loopback of each container, cgroups are cgroupfs, storage is vfs: what works without systemd,
without overlay mounts and inside another container.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60
LIMITS = ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096"]


class Failure(Exception):
    """What was promised did not happen."""


def until(what, ask, seconds=PATIENCE):
    """Asks until the answer is true, and returns it."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        if last := ask():
            return last
        time.sleep(0.05)
    raise Failure(f"{what}: not within {seconds} s (last answer: {last!r})")


def must(holds, what):
    if not holds:
        raise Failure(what)


class Engine:
    """Owns a temporary directory, the images and containers in it, and leaves none behind."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="eternal-container-"))
        self.folder.chmod(0o755)
        self.storage = ["--root", f"{self.folder}/storage", "--runroot", f"{self.folder}/run", "--storage-driver", "vfs"]
        self.names, self.binary = [], None

    def build(self, binary):
        """Builds the image with the shipped script, and one with busybox on top, for programs to supervise."""
        environment = {**os.environ, "TOOL_OPTIONS": " ".join(self.storage), "BUILD_OPTIONS": "--isolation chroot --quiet"}
        script, self.binary = ROOT / "deploy/container/build.sh", binary
        run([script, "--tool", "buildah", "--binary", binary, "--tag", "localhost/eternal"], env=environment)
        more = self.folder / "more"
        more.mkdir()
        shutil.copy(shutil.which("busybox"), more / "busybox")
        (more / "Containerfile").write_text("FROM localhost/eternal\nCOPY busybox /bin/busybox\n")
        run(["buildah", *self.storage, "build", "--isolation", "chroot", "--quiet", "--format", "docker", "--tag", "localhost/busy", more])

    def podman(self, *words, check=True):
        command = ["podman", *self.storage, "--tmpdir", f"{self.folder}/tmp", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return run([*command, *words], check=check)

    def start(self, name, *options, image="localhost/eternal", config=None, words=()):
        """Starts a container in the background and returns it."""
        self.names.append(name)
        mounts = []
        if config is not None:
            file = self.folder / f"{name}.toml"
            file.write_text(config)
            mounts = ["--volume", f"{file}:/etc/eternal/eternal.toml:ro"]
        self.podman("run", "--detach", "--name", name, "--network", "none", "--cgroup-parent", self.folder.name, "--log-driver", "k8s-file", *LIMITS, *options, *mounts, image, *words)
        return Container(self, name)

    def close(self):
        for name in self.names:
            self.podman("rm", "--force", "--time", "0", "--volumes", name, check=False)
        for group in pathlib.Path("/sys/fs/cgroup").glob(f"**/{self.folder.name}"):
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        shutil.rmtree(self.folder, ignore_errors=True)


class Container:
    def __init__(self, engine, name):
        self.engine, self.name = engine, name

    def inside(self, *words, check=True):
        return self.engine.podman("exec", self.name, *words, check=check)

    def healthcheck(self, *words):
        """Returns (exit code, what was said) of the health check as a person would run it."""
        done = self.inside("/usr/local/bin/eternal", "healthcheck", *words, check=False)
        return done.returncode, done.stdout + done.stderr

    def healthcheck_of_the_image(self):
        """Runs the HEALTHCHECK of the Containerfile, and returns whether it was well."""
        return self.engine.podman("healthcheck", "run", self.name, check=False).returncode == 0

    def ready(self):
        until(f"{self.name} is ready", lambda: self.ended() or self.healthcheck("--ready")[0] == 0)
        must(not self.ended(), f"{self.name} ended: {self.log()}")

    def state(self):
        return json.loads(self.engine.podman("inspect", self.name).stdout)[0]["State"]

    def ended(self):
        return self.state()["Status"] in ("exited", "stopped")

    def exit_code(self):
        """Waits for the end of the container, and returns its exit code."""
        until(f"{self.name} ends", self.ended)
        return self.state()["ExitCode"]

    def pid(self):
        """Returns the pid of its first process as seen from outside."""
        return self.state()["Pid"]

    def log(self):
        done = self.engine.podman("logs", self.name, check=False)
        return done.stdout + done.stderr

    def logs(self, words):
        return until(f"{self.name} says {words!r}", lambda: words in self.log())

    def status(self):
        return json.loads(self.inside("/usr/local/bin/eternal", "status", "--json").stdout)

    def metric(self, series):
        """Returns the value of a series, scraped from inside, where the only network is."""
        page = self.inside("/bin/busybox", "wget", "-qO-", "http://127.0.0.1:10477/metrics").stdout
        found = [line.rsplit(" ", 1)[1] for line in page.splitlines() if line.rsplit(" ", 1)[0] == series]
        must(len(found) == 1, f"{series} is there {len(found)} times")
        return float(found[0])


def run(command, check=True, **more):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300, **more)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done
