"""Eternal as a service of a Machine."""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import threading

from machine import Failure, Machine, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/systemd/eternal.service"
SHIPPED = ROOT / "deploy/eternal.toml"
CONFIG = "/etc/eternal/eternal.toml"
# The daemon's part of the shipped configuration; scenarios add programs.
DAEMON = SHIPPED.read_text().split("# The bundled server")[0]
assert "[programs." not in DAEMON
# The shipped unit waits ten seconds before a restart.
SOON = "RestartSec=100ms"


class Service(Machine):
    """The shipped unit, with a configuration and settings on top of it."""

    unit = "eternal.service"

    def __init__(self, programs, *settings, config=None, unit=UNIT, binary=None, files=None):
        super().__init__({
            "/usr/bin/eternal": binary or pathlib.Path(os.environ["ETERNAL_BINARY"]),
            "/etc/systemd/system/eternal.service": unit,
            "/etc/systemd/system/eternal.service.d/test.conf": "\n".join(["[Service]", *settings, ""]),
            "/etc/sysusers.d/eternal.conf": ROOT / "deploy/systemd/eternal.sysusers",
            CONFIG: config or DAEMON + programs,
        } | (files or {}))

    def __enter__(self):
        super().__enter__()
        try:
            self.run("systemd-sysusers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def configure(self, programs):
        self.path(CONFIG).write_text(DAEMON + programs)

    def start(self):
        self.run("systemctl", "start", self.unit)

    def get(self, name):
        return self.show(self.unit, name)

    @property
    def pid(self):
        return int(self.get("MainPID"))

    def status(self):
        return json.loads(self.run("eternal", "status", "--json").stdout)

    def program(self, name):
        return next(p for p in self.status()["programs"] if p["display_name"] == name)

    def kill(self, pid, signal="KILL"):
        self.run("kill", f"-{signal}", str(pid))

    def journal(self):
        """The service's lines, oldest first."""
        self.run("journalctl", "--sync")
        text = self.run("journalctl", "--unit", self.unit, "--output", "json", "--no-pager").stdout
        return [json.loads(line) for line in text.splitlines()]

    def said(self, words, times=1):
        """Waits until lines with these words are in the journal; returns the last of them."""
        def ask():
            found = [line for line in self.journal() if words in line["MESSAGE"]]
            return found[-1] if len(found) >= times else None
        return until(f"the journal says {words!r}", ask)

    def running(self, words):
        """Every process of the machine whose command line begins with these words, wherever it is."""
        pids = [int(p.name) for p in self.path("/proc").iterdir() if p.name.isdigit()]
        return sorted(pid for pid in pids if self.command_line(pid).startswith(words))

    def is_gone(self):
        """Nothing of the service is left: no process, no cgroup, no socket."""
        expect(self.get("ControlGroup") == "", f"the cgroup is {self.get('ControlGroup')}")
        left = self.path("/sys/fs/cgroup/system.slice/eternal.service")
        expect(not left.exists(), f"{left} is there")
        expect(not self.running("/usr/bin/eternal"), f"{self.running('/usr/bin/eternal')} run")
        expect(not self.path("/run/eternal").exists(), "/run/eternal is there")

    @contextlib.contextmanager
    def stopped_thread(self, pid):
        """Stops one thread of a process, the first, and no other, as a loop that waits for ever would."""
        stop = threading.Event()
        stopped, result = threading.Event(), []
        # A debugger is a thread: the one that attaches has to be there all the time.
        debugger = threading.Thread(target=hold_still, args=(self.outside(pid), stopped, stop, result))
        debugger.start()
        stopped.wait()
        try:
            if result:
                raise result[0]
            yield
        finally:
            stop.set()
            debugger.join()


def hold_still(pid, stopped, stop, result):
    seize, interrupt = 0x4206, 0x4207
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    try:
        for request in (seize, interrupt):
            if libc.ptrace(request, pid, None, None):
                raise Failure(f"cannot stop a thread of {pid}: {os.strerror(ctypes.get_errno())}")
        until("the thread is stopped", lambda: re.search(r"^State:\tt", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M))
    except (Failure, OSError) as failure:
        result.append(failure)
    stopped.set()
    stop.wait()


def expect(what, otherwise):
    """What was promised holds, or the scenario has failed."""
    if not what:
        raise Failure(otherwise)
