"""The files of the image as the root of a pid namespace, without a container engine."""
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import time
import urllib.request

from engine import ROOT, Failure, must, run, until


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Bare:
    """`eternal run` as PID 1, with nothing in its root but the image's files, busybox, /proc and /dev/null."""

    def __init__(self, rootfs, config):
        self.port = _free_port()
        (rootfs / "etc/eternal/eternal.toml").write_text(config)
        environment = {"PATH": "/usr/local/bin", "ETERNAL__METRICS__LISTEN": f"127.0.0.1:{self.port}"}
        self.log = open(rootfs.parent / "bare.log", "w+", encoding="utf-8")
        command = [shutil.which("unshare"), "--pid", "--mount", "--fork", "--kill-child", f"--root={rootfs}", "--mount-proc", "--wd=/"]
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            [*command, "/usr/local/bin/eternal", "run"], env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            if self.process.poll() is not None:
                raise Failure(f"it ended with {self.process.returncode}: {self.said()}") from None
            return None

    def ready(self):
        """Waits until it is ready, and returns the seconds since it was started."""
        while not self.get("/-/ready"):
            if time.monotonic() - self.begin > 30:
                raise Failure(f"never ready: {self.said()}")
            time.sleep(0.001)
        return time.monotonic() - self.begin

    def first(self):
        """Returns the pid of the first process as seen from outside."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


CONFIG = (ROOT / "deploy/container/eternal.toml").read_text().partition("[programs.api]")[0]
WAITS = "[programs.web]\ncommand = ['/bin/busybox', 'sleep', '1000']\n"
BROKEN = "[programs.web]\ncommand = ['/bin/busybox', 'false']\nrestart_delay = '10ms'\ncrash_threshold = 2\n"


def orphans_signals_and_a_give_up_without_an_engine(engine):
    stage = engine.folder / "stage"
    run([ROOT / "deploy/container/build.sh", "--binary", engine.binary, "--stage", stage])
    rootfs = stage / "rootfs"
    for folder in ("proc", "bin", "dev"):
        (rootfs / folder).mkdir()
    os.mknod(rootfs / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    shutil.copy(shutil.which("busybox"), rootfs / "bin/busybox")
    one = Bare(rootfs, CONFIG + WAITS)
    try:
        took = one.ready()
        target = ["nsenter", "--target", str(one.first()), "--pid", "--mount", "--root"]
        run([*target, "/bin/busybox", "sh", "-c", "(/bin/busybox sleep 0.05 &)"])
        until("the stranger's orphan is reaped", lambda: "\neternal_orphans_reaped_total 0\n" not in one.get("/metrics"))
        os.kill(one.first(), signal.SIGTERM)
        must(one.process.wait(30) == 0, f"it ended with {one.process.returncode}: {one.said()}")
    finally:
        one.close()
    one = Bare(rootfs, CONFIG + BROKEN)
    try:
        must(one.process.wait(30) == 1, f"it ended with {one.process.returncode}: {one.said()}")
    finally:
        one.close()
    return f"ready {took * 1000:.0f} ms after the start"
