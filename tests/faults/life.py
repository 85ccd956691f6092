"""One scripted life of a daemon, whatever fails in it, and what is promised of every such life."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# A hang is found by these, in seconds. Generous: the machines of tests are slow at times.
A_STEP = 40
AN_ANSWER = 15
THE_END = 30
# Who is dying when the daemon ends may take this long to be gone.
GONE = 5

CONFIG = """
[daemon]
pid_file = "daemon.pid"
log_file = "logs/daemon.log"
log_max_size = "4KiB"
log_keep = 2
socket = "daemon.sock"
state_dir = "state"

[metrics]
listen = "unix:{directory}/metrics.sock"
linger = 0

[defaults]
restart_delay = "10ms"
restart_delay_max = "50ms"
crash_threshold = 100
stop_timeout = "3s"
working_directory = "{directory}"

[programs.server]
command = ["{program}", "books", "server"]
ready = "notify"
instances = 2

[programs.flaky]
command = ["{program}", "books", "flaky"]
ready = "alive:20ms"
log_file = "logs/flaky.log"
environment = {{ VERSION = "{version}" }}

[programs.once]
command = ["{program}", "books", "once"]
restart = "never"
"""
# How a process ends that gets no memory: the language's own way, which no code of ours can take another turn of.
OUT_OF_MEMORY = ["memory allocation of", "failed to allocate an alternative stack", "failed to allocate a guard page"]
REPLICAS = ["server.0", "server.1", "flaky.0", "once.0"]


class Broken(Exception):
    """A promise is not kept."""


class Ended(Exception):
    """The daemon is gone before it was asked to."""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=AN_ANSWER)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(AN_ANSWER)
        self.sock.connect(self.path)


class Life:
    """`fault`: in which script, of which calls, on which objects, how, and the how-manieth one fails."""

    def __init__(self, binary, tools, fault):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="faults-"))
        self.binary, self.tools, self.fault = binary, tools, fault
        # How often each had begun before the daemon that counts.
        self.before = {}
        self.token = f"FAULTS_LIFE={self.directory.name}"
        self.daemon, self.manager, self.starts, self.refused = None, None, 0, []
        (self.directory / "books").mkdir()
        self.configure(1)

    def configure(self, version):
        text = CONFIG.format(directory=self.directory, program=self.tools / "program", version=version)
        (self.directory / "eternal.toml").write_text(text)

    # --- the daemon ---

    def start(self, fault=None):
        command = [str(self.binary), "run", "--config", str(self.directory / "eternal.toml")]
        if fault:
            _, calls, kind, error, n = fault
            command = [str(self.tools / "inject"), calls, kind, error, str(n), str(self.directory / "report"), "--", *command]
        name, value = self.token.split("=")
        environment = {"PATH": os.environ["PATH"], name: value, "NOTIFY_SOCKET": self.service_manager()}
        self.starts += 1
        with open(self.output(), "wb") as output:
            self.daemon = subprocess.Popen(command, cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
                                           stdout=output, stderr=output, start_new_session=True)

    def service_manager(self):
        """Where the daemon says how it is. Nobody reads it, and what does not fit is dropped."""
        if not self.manager:
            self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.manager.bind(str(self.directory / "manager.sock"))
        return str(self.directory / "manager.sock")

    def output(self):
        return self.directory / f"output.{self.starts}"

    def said(self):
        """The last line that the daemon has said."""
        lines = self.output().read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def ask(self, method, path, where="daemon.sock"):
        """The answer, or nothing where the connection broke: one failing call may cost one client its answer."""
        connection = UnixConnection(self.directory / where)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            raise Broken(f"{method} {path} is not answered within {AN_ANSWER} s") from None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def order(self, path):
        """An order is carried out, at the latest when it is given again: a refusal says why, and is over."""
        def carried_out():
            answer = self.ask("POST", path)
            if answer and answer[0] != 200:
                self.refused.append((path, answer[1].decode()))
                if "error" not in json.loads(answer[1]):
                    raise Broken(f"POST {path}: {answer}")
                # What is asked again at once may still be under way.
                time.sleep(0.02)
            return answer and answer[0] == 200
        self.until(f"POST {path} is carried out", carried_out)

    def status(self):
        answer = self.ask("GET", "/v1/status")
        if not answer or answer[0] != 200:
            return None
        return {f"{p['name']}.{p['replica']}": p for p in json.loads(answer[1])["programs"]}

    def until(self, what, holds):
        deadline = time.monotonic() + A_STEP
        while not (result := holds()):
            if self.daemon.poll() is not None:
                raise Ended(what)
            if time.monotonic() > deadline:
                raise Broken(f"hangs: not within {A_STEP} s: {what}: {self.summary()}")
            time.sleep(0.005)
        return result

    def summary(self):
        status = self.status() or {}
        return "; ".join(f"{name} {p['state']} ({p['why']})" for name, p in status.items())

    def all_well(self):
        status = self.status()
        well = status and len(status) == len(REPLICAS) and all(
            p["ready"] and p["state"] == "running" or name == "once.0" and p["state"] in ("completed", "failed")
            for name, p in status.items())
        return well and status

    # --- the script ---

    def script(self):
        self.until("every program is up", self.all_well)
        flaky_is_settled = lambda: (s := self.all_well()) and self.begun("flaky.0") > 2 and s
        before = self.until("flaky has crashed twice", flaky_is_settled)
        os.kill(before["server.0"]["pid"], signal.SIGKILL)
        self.until("a killed program runs again",
                   lambda: (s := self.all_well()) and s["server.0"]["pid"] != before["server.0"]["pid"])
        self.order("/v1/programs/flaky/restart")
        status = self.until("flaky is restarted", self.all_well)
        for name in ("flaky.0", "server.1"):
            os.kill(status[name]["pid"], signal.SIGUSR1)
        self.daemon.send_signal(signal.SIGUSR1)
        self.until("the page is served", lambda: (self.ask("GET", "/metrics", "metrics.sock") or [0])[0] == 200)
        self.configure(2)
        self.order("/v1/reload")
        self.until("the reload is done", self.all_well)
        self.order("/v1/reload?restart=true")
        self.until("all are replaced", self.all_well)
        self.order("/v1/programs/server/stop?replica=1")
        self.order("/v1/programs/server/start?replica=1")
        self.until("a stopped program runs again", self.all_well)
        self.until("the books agree", self.books_agree)

    # --- the promises ---

    def book(self, replica):
        path = self.directory / "books" / replica
        return path.read_text().splitlines() if path.exists() else []

    def begun(self, replica):
        return len(self.book(replica))

    def disagreement(self):
        """Where the daemon's numbers are not what the programs themselves have written down."""
        status = self.status()
        if not status:
            return "no status"
        for replica in REPLICAS:
            p, begun = status[replica], self.begun(replica) - self.before.get(replica, 0)
            failed = p["exits"].get("spawn_error", 0)
            ends = sum(p["exits"].values()) - failed
            alive = int(p["pid"] is not None)
            if p["starts"] - failed != begun or ends != begun - alive:
                return (f"{replica} has begun {begun} times and {alive} of it runs; the daemon counts {p['starts']} starts, "
                        f"{failed} of them failed, and {ends} ends: {p['exits']}")
        return None

    def books_agree(self):
        return self.disagreement() is None

    def nothing_twice(self):
        for replica in REPLICAS:
            if any(line.startswith("twice") for line in self.book(replica)):
                raise Broken(f"{replica} ran twice at the same time: {self.book(replica)}")

    def left(self):
        """Processes of this life, by their environment."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.token.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    pass
        return found

    def nobody_is_left(self, when):
        deadline = time.monotonic() + GONE
        while left := self.left():
            if time.monotonic() > deadline:
                names = [(pathlib.Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ") for pid in left]
                raise Broken(f"left behind {when}: {names}")
            time.sleep(0.01)

    def no_panic(self):
        texts = [self.output(), *(self.directory / "logs").glob("daemon.log")]
        for text in (path.read_text(errors="replace") for path in texts if path.exists()):
            if "panicked at" in text:
                at = text.index("panicked at")
                raise Broken(f"panic: {text[at:at + 300]}")

    def out_of_memory(self):
        return any(sign in self.output().read_text(errors="replace") for sign in OUT_OF_MEMORY)

    def ended(self):
        """How it ended: a clear reason and a documented exit code, or it is broken."""
        try:
            code = self.daemon.wait(THE_END)
        except subprocess.TimeoutExpired:
            raise Broken(f"hangs: it does not end within {THE_END} s") from None
        if not self.out_of_memory():
            self.no_panic()
        return code

    def stop(self):
        self.daemon.send_signal(signal.SIGTERM)
        if (code := self.ended()) != 0:
            if self.out_of_memory():
                return f"aborted with {code}: {self.said()}"
            if code not in (1, 2) or not self.said():
                raise Broken(f"exit code {code} after SIGTERM: {self.said()}")
            return f"ended with {code}: {self.said()}"
        return "survived"

    def first(self):
        """The life with the fault in it: `survived`, or with which reason it ended."""
        if self.fault[0] == "survivors":
            self.start()
            self.until("every program is up in the life before", self.all_well)
            self.daemon.kill()
            self.daemon.wait()
            self.before = {replica: self.begun(replica) for replica in REPLICAS}
        self.start(self.fault)
        try:
            self.script()
        except Ended as early:
            code, said = self.ended(), self.said()
            if self.out_of_memory():
                return f"aborted with {code}: {said}"
            if code not in (1, 2) or not ("eternal: " in said or "exit code" in said):
                raise Broken(f"it ended with {code} before {early}: {said!r}") from None
            return f"refused with {code}: {said}"
        except Broken as broken:
            raise Broken(f"{broken}; {self.disagreement()}") from None
        return self.stop()

    def run(self):
        """The whole life and the next one on the same state; returns how it went and how often the call was made."""
        outcome = self.first()
        self.nothing_twice()
        # A later start ends what one leaves that could not help ending, and what one found that did not begin.
        if outcome == "survived" or outcome.startswith("ended") or self.fault[0] == "life" and "aborted" not in outcome:
            self.nobody_is_left("at the end")
        counted, hit = self.report()
        self.start()
        try:
            self.until("every program is up in a later start", self.all_well)
        except Ended as early:
            raise Broken(f"a later start ended with {self.ended()} before {early}: {self.said()}") from None
        if (end := self.stop()) != "survived":
            raise Broken(f"a later start {end}")
        self.nothing_twice()
        self.nobody_is_left("after a later start")
        return outcome, counted, hit

    def report(self):
        """How often the call was made, and by whom the one that failed."""
        path = self.directory / "report"
        deadline = time.monotonic() + GONE
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        counted, _, hit = path.read_text().strip().partition(" ") if path.exists() else ("0", "", "")
        return int(counted), hit

    def clean_up(self):
        """Ends what may be left; forgets the directory."""
        for pid in self.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.daemon:
            self.daemon.wait()
        if self.manager:
            self.manager.close()
        shutil.rmtree(self.directory, ignore_errors=True)
