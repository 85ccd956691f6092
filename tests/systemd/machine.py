"""A machine with a really booted systemd, without one: this machine's own systemd as PID 1 of private namespaces.

    with Machine({"/usr/bin/eternal": binary}) as machine:
        machine.run("systemctl", "start", "eternal")

The machine sees this machine's files under an overlay that lives in memory, its own network with nothing but loopback, its
own processes, journal and cgroups. It boots in about half a second, needs root and cgroup v2 (a hybrid layout will do), and
leaves nothing behind. Its unit files are this machine's; of them only the journal and the bus are started.
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# Deadlines are for a machine that is busy with other things.
PATIENCE = 60
LOOK = 0.02


class Failure(Exception):
    """What was promised did not happen."""


def until(what, ask, seconds=PATIENCE):
    """Waits until ask() is true, and returns what it is."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > end:
            raise Failure(f"not within {seconds} s: {what}")
        time.sleep(LOOK)
    return answer


class Machine:
    """A booted systemd, from __enter__ to __exit__."""

    def __init__(self, files=None):
        """files: what lies over the machine's own files: absolute path -> text, or the path of a file to copy."""
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="eternal-systemd-"))
        for part in ("files", "root", "changes"):
            (self.work / part).mkdir()
        self.root, self.cgroup, self.process = None, None, None
        for path, content in (files or {}).items():
            target = self.work / "files" / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pathlib.Path):
                shutil.copy2(content, target)
            else:
                target.write_text(content)

    def __enter__(self):
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _boot(self):
        self.cgroup = own_cgroup() / self.work.name
        self.cgroup.mkdir()
        # pdeathsig and kill-child: whatever becomes of us, nothing outlives us.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
        command += ["--net", "--cgroup", "bash", str(HERE / "boot.sh"), str(self.work)]
        join = f'echo $$ >{self.cgroup}/cgroup.procs; exec "$@"'
        with open(self.work / "console.log", "wb") as console:
            self.process = subprocess.Popen(["sh", "-c", join, "sh", *command], stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                                            start_new_session=True)
        try:
            self.init = until("systemd is the first process", self._find_init)
            self.root = pathlib.Path(f"/proc/{self.init}/root")
            state = until("systemd is up", self._state)
        except Failure as failure:
            raise Failure(f"{failure}\n{(self.work / 'console.log').read_text()}") from None
        if state != "running":
            raise Failure(f"the machine is {state}:\n{self.run('systemctl', '--failed', '--no-legend').stdout}")

    def _find_init(self):
        if self.process.poll() is not None:
            raise Failure("the machine did not boot")
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        named = [c for c in children if pathlib.Path(f"/proc/{c}/comm").read_text() == "systemd\n"]
        return int(named[0]) if named else None

    def _state(self):
        if self.process.poll() is not None:
            raise Failure("the machine went down while it booted")
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state if state in ("running", "degraded") else None

    def __exit__(self, *_):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.cgroup:
            until("the machine's cgroups are gone", lambda: remove_cgroup(self.cgroup))
        shutil.rmtree(self.work)

    def run(self, *command, check=True, user=None, timeout=PATIENCE, **options):
        """Runs a command in the machine; its output is text. check: a code other than 0 is a failure."""
        enter = ["nsenter", "--target", str(self.init), "--all"]
        if user is not None:
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment} | options
        done = subprocess.run([*enter, *command], text=True, timeout=timeout, check=False, **options)
        if check and done.returncode:
            raise Failure(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def path(self, path):
        """Where a file of the machine is to be found from here. Links in it are this machine's: use it for plain files."""
        return self.root / path.lstrip("/")

    def show(self, unit, *properties):
        """Properties of a unit; one: its value, more: a dictionary."""
        lines = self.run("systemctl", "show", unit, *(f"--property={p}" for p in properties)).stdout.splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return values[properties[0]] if len(properties) == 1 else values

    def processes(self, unit):
        """Processes in a unit's cgroup and below: pid as seen in the machine -> command line."""
        group = self.show(unit, "ControlGroup")
        if not group:
            return {}
        listing = self.run("sh", "-c", f"cat $(find /sys/fs/cgroup{group} -name cgroup.procs) 2>/dev/null", check=False).stdout.split()
        return {int(pid): command for pid in listing if (command := self.command_line(pid))}

    def command_line(self, pid):
        """A process's command line; empty when there is no such process."""
        try:
            words = self.path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return words.replace(b"\0", b" ").decode(errors="replace").strip()

    def outside(self, pid):
        """The pid by which we know a process of the machine."""
        for group in self.cgroup.rglob("cgroup.procs"):
            for ours in group.read_text().split():
                status = pathlib.Path(f"/proc/{ours}/status").read_text()
                if (found := re.search(r"^NSpid:.*\t(\d+)$", status, re.M)) and int(found[1]) == int(pid):
                    return int(ours)
        raise Failure(f"no process {pid} in the machine")


def own_cgroup():
    """The directory of the v2 cgroup that we are in."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    where = next((m[4] for m in mounts if m[m.index("-") + 1] == "cgroup2"), None)
    if where is None:
        raise Failure("cgroup v2 is not mounted here")
    name = next(line[3:] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return pathlib.Path(where) / name.lstrip("/")


def remove_cgroup(top):
    """Removes a cgroup and those below it; true when they are gone."""
    for group in sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True):
        try:
            group.rmdir()
        except OSError:
            return False
    try:
        top.rmdir()
    except OSError:
        return False
    return True
