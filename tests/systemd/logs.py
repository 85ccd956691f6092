"""The shipped logrotate configuration, with the real logrotate."""
import collections
import gzip
import time

from machine import until
from service import ROOT, Service, expect

LOGROTATE = ROOT / "deploy/logrotate/eternal"
ROTATIONS = 4
ENOUGH = "/var/lib/eternal/enough"
# Fast, but with a breath between batches: this is about the moment of a rotation, not about throughput.
WRITER = f"""
import itertools, os, sys, time
for batch in itertools.count():
    for n in range(batch * 100, batch * 100 + 100):
        print(f'line {{n}} of {{sys.argv[1]}}')
    sys.stdout.flush()
    if os.path.exists('{ENOUGH}'):
        break
    time.sleep(0.002)
print(f'lines of {{sys.argv[1]}}: {{n + 1}}')
"""
NAMES = {"shared": "daemon.log", "own": "own.log"}


def logrotate_loses_no_line_while_programs_write():
    programs = "".join(f'''
[programs.{name}]
command = ["python3", "/etc/eternal/writer.py", "{name}"]
restart = "never"
ready = "immediately"
log_file = "{"" if name == "shared" else "/var/log/eternal/" + file}"
''' for name, file in NAMES.items())
    steady = '[programs.steady]\ncommand = ["sleep", "1001"]\n'
    # The journal's copy costs time and is not what this is about.
    with Service(steady + programs, "StandardError=null",
                 files={"/etc/logrotate.d/eternal": LOGROTATE, "/etc/eternal/writer.py": WRITER}) as service:
        service.start()
        for _ in range(ROTATIONS):
            before = current(service)
            until("more is written", lambda: all(current(service)[f].st_size > before[f].st_size for f in NAMES.values()))
            # The names of rotated files have seconds in them.
            until("there is no file of this second", lambda: not list(service.path("/var/log/eternal").glob(f"*-{int(time.time())}*")))
            said = service.run("logrotate", "--force", "--verbose", "/etc/logrotate.d/eternal")
            expect("error" not in said.stderr, said.stderr)
            until("both files are new ones", lambda: all((now := current(service).get(f)) and now.st_ino != before[f].st_ino for f in NAMES.values()))
        service.path(ENOUGH).touch()
        for name in NAMES:
            until(f"{name} has ended", lambda n=name: service.program(n)["state"] == "completed")
        service.run("systemctl", "stop", service.unit)
        files = sorted(service.path("/var/log/eternal").iterdir())
        compressed = sum(path.name.endswith(".gz") for path in files)
        expect(compressed == 2 * (ROTATIONS - 1) and len(files) == 2 * (ROTATIONS + 1), f"{[p.name for p in files]}")
        seen = collections.Counter(line.rsplit("line", 1)[-1] for path in files for line in read(path) if "line" in line)
        total = 0
        for name in NAMES:
            count = next(int(line.split(": ")[1]) for line in seen if line.startswith(f"s of {name}: "))
            lost = {f" {n} of {name}" for n in range(count)} - seen.keys()
            expect(not lost, f"{len(lost)} of {count} lines of {name} are lost, such as {sorted(lost)[:3]}")
            total += count
        twice = [line for line, times in seen.items() if times != 1]
        expect(not twice and len(seen) == total + 2, f"not written once: {twice[:3]}")
        return f"{total} lines over {ROTATIONS} rotations, none lost"


def current(service):
    """The files that are written to, by name."""
    return {path.name: path.stat() for path in service.path("/var/log/eternal").iterdir() if path.name in NAMES.values()}


def read(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
