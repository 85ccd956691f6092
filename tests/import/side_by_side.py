#!/usr/bin/env python3
"""The same configuration under the real supervisord, the real PM2 and, imported, under eternal.

A witness is the program of every section: each start writes down its arguments, directory and a part of its environment, says
a line on both streams and then lives or ends as it is told. What the witnesses saw must be the same, or be among the
differences that `eternal import` names. Needs python3 with venv, node, npm; $ETERNAL_BINARY or target/debug/eternal. Fetches
supervisor from PyPI and pm2 from npm; skips where a registry cannot be reached.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SUPERVISOR, PM2 = "supervisor==4.3.0", "pm2@7.0.4"
HERE = pathlib.Path(__file__).resolve().parent
ETERNAL = os.path.realpath(os.environ.get("ETERNAL_BINARY", HERE.parent.parent / "target/debug/eternal"))
DEADLINE = 60
ENVIRONMENT = ["OWN", "SHARED", "QUOTES", "PERCENT", "NODE_APP_INSTANCE", "PORT", "OUTER"]

WITNESS = """#!/bin/sh
# witness KEY CODE LIFE ARGUMENT…: notes what it sees, lives so many seconds, ends with the code.
exec python3 "$(dirname "$0")/witness.py" "$@"
"""
WITNESS_PY = f"""
import json, os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
key, code, life, *rest = sys.argv[1:]
seen = {{"arguments": rest, "directory": os.getcwd(), "umask": oct(os.umask(0)),
         "environment": {{n: os.environ[n] for n in {ENVIRONMENT} if n in os.environ}}}}
print("out of " + key, flush=True)
print("err of " + key, file=sys.stderr, flush=True)
with open(os.environ["SEEN"], "a") as notes:
    notes.write(json.dumps([key, seen]) + "\\n")
time.sleep(float(life))
sys.exit(int(code))
"""

SUPERVISORD = r"""
[supervisord]
nodaemon = true
logfile = {work}/supervisord.log
pidfile = {work}/supervisord.pid
environment = SHARED="of all"

[include]
files = inc/*.conf

[program:quotes]
command = {work}/witness quotes 0 600 'a b' "c \"d\" \$e" f\ g "" '' --x="y z"
directory = {work}/run
environment = OWN="a, b",QUOTES="it's",PERCENT="100%%"

[program:words]
command = {work}/witness words 0 600 %(ENV_WORDS)s --q=%(ENV_WORDS)s "%(ENV_WORDS)s" %(ENV_QUOTED)s
directory = {work}/run
umask = 027

[program:several]
command = {work}/witness several%(process_num)d 0 600 %(program_name)s %(process_num)02d
process_name = %(program_name)s_%(process_num)02d
numprocs = 3
directory = {work}

[program:crasher]
command = {work}/witness crasher 3 0
autorestart = true
startretries = 2
startsecs = 20
directory = {work}

[program:once]
command = {work}/witness once 7 1.5
exitcodes = 7
directory = {work}

[program:joined]
command = {work}/witness joined 0 600
redirect_stderr = true
stdout_logfile = {work}/joined.log
directory = {work}

[program:off]
command = {work}/witness off 0 600
autostart = false
directory = {work}
"""
INCLUDED = """
[program:included]
command = {work}/witness included 0 600 %(here)s
directory = %(here)s
"""

PM2_APPS = {"apps": [
    {"name": "plain", "script": "./witness.py", "interpreter": "python3", "args": "plain 0 600 'a b' c", "env": {"OWN": "1", "PORT": 80}},
    {"name": "cwd", "script": "../witness.py", "interpreter": "python3", "args": ["cwd", "0", "600", "a b"], "cwd": "./run",
     "out_file": "./logs/out.log", "error_file": "./logs/out.log"},
    {"name": "pair", "script": "./witness.py", "interpreter": "python3", "args": "pair 0 600", "exec_mode": "fork", "instances": 2},
    {"name": "once", "script": "./witness.py", "interpreter": "python3", "args": "once 0 0", "autorestart": False},
]}


def until(what, look):
    """Waits until it is true, and returns it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"FAILED: never: {what()}")


def fetched(what, *commands):
    """Runs what fetches from a registry; says why where it cannot."""
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            print(f"SKIPPED: {what}: cannot be fetched: {' '.join(reason)}", file=sys.stderr)
            return False
    return True


class Case:
    """A directory in which one of them runs the configuration; the other runs it in the same after it."""

    def __init__(self, work, wanted):
        self.work, self.seen, self.wanted = work, work / "seen", wanted
        (work / "run").mkdir(parents=True)
        (work / "inc").mkdir()
        (work / "witness").write_text(WITNESS)
        (work / "witness").chmod(0o755)
        (work / "witness.py").write_text(WITNESS_PY)
        self.environment = os.environ | {"SEEN": str(self.seen), "WORDS": "one *", "QUOTED": "--name 'a b' *", "OUTER": "o o"}

    def starts(self):
        """Returns every start, by the key of its witness: how often, and what was seen."""
        starts = {}
        for line in (self.seen.read_text().splitlines() if self.seen.exists() else []):
            key, seen = json.loads(line)
            starts.setdefault(key, []).append(seen)
        return {key: sorted(seen, key=json.dumps) for key, seen in sorted(starts.items())}

    def run(self, command, stop, last="", **environment):
        """Runs until every witness has been seen as often as wanted and the last word is said; returns what was seen."""
        with open(self.work / "said", "w") as said:
            child = subprocess.Popen(command, cwd=self.work, env=self.environment | environment, stdout=said, stderr=said)
        try:
            seen = lambda: {key: len(starts) for key, starts in self.starts().items()}
            said = lambda: (self.work / "said").read_text()
            until(lambda: f"{command[0]}: {self.wanted} and {last!r}, but {seen()} and {said()}",
                  lambda: seen() == self.wanted and last in said())
        finally:
            stop(child)
        starts = self.starts()
        logs = {str(path.relative_to(self.work)): sorted(path.read_text().splitlines()) for path in self.work.rglob("*.log")
                if path.name in ("joined.log", "out.log")}
        self.seen.unlink()
        for log in logs:
            (self.work / log).unlink()
        return {"starts": starts, "logs": logs}


def terminate(child):
    child.send_signal(signal.SIGTERM)
    child.wait(DEADLINE)


def imported(case, *words, **environment):
    """Imports a file of the directory and returns what is said."""
    command = [ETERNAL, "import", *words, "-o", "eternal.toml", "--force"]
    done = subprocess.run(command, cwd=case.work, env=case.environment | environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"FAILED: {' '.join(command)}: {done.stderr}")
    return done.stderr


def run_eternal(case, last=""):
    return case.run([ETERNAL, "run", "--metrics-listen", ""], terminate, last)


def compare(what, theirs, ours):
    if theirs == ours:
        print(f"{what}: the same: {', '.join(theirs['starts'])}; {', '.join(theirs['logs'])}")
        return
    for part in theirs:
        for key in sorted(theirs[part].keys() | ours[part].keys()):
            there, here = theirs[part].get(key), ours[part].get(key)
            if there != here:
                print(f"{what}: {part}: {key}:\n  there {json.dumps(there)}\n  here  {json.dumps(here)}", file=sys.stderr)
    sys.exit(f"FAILED: {what}: differences that are not named")


def supervisord(work):
    venv = work / "venv"
    pip = [venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", SUPERVISOR]
    if not fetched("supervisord", [sys.executable, "-m", "venv", venv], pip):
        return
    once = ["quotes", "words", "several0", "several1", "several2", "once", "joined", "included"]
    case = Case(work / "supervisord", dict.fromkeys(once, 1) | {"crasher": 3})
    (case.work / "a.conf").write_text(SUPERVISORD.replace("{work}", str(case.work)))
    (case.work / "inc/b.conf").write_text(INCLUDED.replace("{work}", str(case.work)))
    notes = imported(case, "supervisord", "a.conf")
    theirs = case.run([venv / "bin/supervisord", "-c", "a.conf"], terminate, "crasher entered FATAL state")
    ours = run_eternal(case, "crasher: gave up")
    for named in ["split at white space at every start", "QUOTED has quotes", "starts a program that ran for startsecs again at once"]:
        if named not in notes:
            sys.exit(f"FAILED: supervisord: not named: {named}\n{notes}")
    compare("supervisord", theirs, ours)


def pm2(work):
    if not shutil.which("npm"):
        print("SKIPPED: pm2: there is no npm", file=sys.stderr)
        return
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", work / "node", PM2]
    if not fetched("pm2", npm):
        return
    case = Case(work / "pm2", {"plain": 1, "cwd": 1, "pair": 2, "once": 1})
    (case.work / "ecosystem.json").write_text(json.dumps(PM2_APPS))
    notes = imported(case, "pm2", "ecosystem.json")
    own = {"HOME": str(work / "home"), "PM2_HOME": str(work / "home/.pm2")}
    (work / "home").mkdir()
    program = str(work / "node/node_modules/.bin/pm2")

    def stop(child):
        child.wait(DEADLINE)
        pid = int((work / "home/.pm2/pm2.pid").read_text())
        subprocess.run([program, "kill"], env=case.environment | own, capture_output=True, timeout=DEADLINE)
        until(lambda: "PM2 ends", lambda: not pathlib.Path(f"/proc/{pid}").exists())

    theirs = case.run([program, "start", "ecosystem.json"], stop, **own)
    ours = run_eternal(case)
    if "only NODE_APP_INSTANCE is set" not in notes:
        sys.exit(f"FAILED: pm2: not named: its variables\n{notes}")
    compare("pm2", theirs, ours)


def main():
    with tempfile.TemporaryDirectory(prefix="side") as work:
        supervisord(pathlib.Path(work))
        pm2(pathlib.Path(work))


main()
