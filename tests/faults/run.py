#!/usr/bin/env python3
"""Faults at every step: a scripted life of the daemon in which the n-th call of one kind fails.

Usage: run.py [--binary FILE] [--jobs N] [--seed N] [--only CALL] --sample [LIVES]   about 3 minutes on 2 processors
       run.py … --all                          every call of every row, n = 1 … until the script ends without it
       run.py … SCRIPT CALLS OBJECT ERRNO N           one life, as the line of a broken one says; N = 0: none fails

Promised of each life: no end of a program is lost (the daemon's numbers are those that the programs write down), none
runs twice at the same time, nothing is left behind, the daemon goes on or ends with a reason and a documented exit
code, never in a panic, and a later start in the same place is clean. A hang is found.

Root, Linux 5.19 and a C compiler; standard library only.
"""
import argparse
import collections
import concurrent.futures
import itertools
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import damage  # noqa: E402
import life  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# What fails, on which objects, how, and where that comes from. An error that a call cannot have would prove nothing.
#
# Not there: EAGAIN and EINTR of sockets and pipes that never wait, accept4 included. The kernel says EAGAIN only if it tells later when
# to try again; said without that, it is waited for in vain by rights. The errors of the runtime's own signal pipe.
TABLE = [
    ("clone,clone3", "any", "EAGAIN ENOMEM", "pids.max, RLIMIT_NPROC, no memory: threads and newborns alike"),
    ("execve", "any", "ENOMEM EAGAIN EIO EMFILE", "the file cannot be read, RLIMIT_NPROC after a change of user, no memory"),
    ("waitid", "any", "EINTR", "it has no other that could be real: the child is ours"),
    ("pidfd_open", "any", "EMFILE ENFILE ENOMEM", "descriptors or memory exhausted"),
    ("pidfd_send_signal", "any", "EAGAIN EPERM", "the queue of real-time signals is full, a security module refuses"),
    ("kill", "any", "EAGAIN EPERM", "as above, for groups and for descendants"),
    ("epoll_wait,epoll_pwait", "any", "EINTR", "a signal, a debugger, a suspended machine"),
    ("epoll_ctl", "any", "ENOMEM ENOSPC", "no memory, fs.epoll.max_user_watches"),
    ("openat,openat2,open", "any", "EMFILE ENFILE ENOMEM EINTR EIO ENOSPC", "exhaustion; slow and broken file systems"),
    ("read,pread64", "file", "EIO EINTR", "broken disks, slow file systems"),
    ("write", "file", "ENOSPC EIO EDQUOT EINTR", "full and broken disks, quotas, slow file systems"),
    ("write", "event", "EAGAIN", "the counter of an eventfd is at its end, so that who waits is awake"),
    ("writev", "socket", "EPIPE ECONNRESET ENOMEM", "a client that is gone, no memory"),
    ("pwrite64", "file", "ENOSPC EIO EDQUOT EINTR", "as for write"),
    ("rename,renameat,renameat2", "any", "ENOSPC EIO EDQUOT ENOMEM", "a directory that has to grow, broken disks"),
    ("fsync,fdatasync", "any", "EIO ENOSPC EDQUOT EINTR", "what was written is found not to be, on network file systems"),
    ("mmap", "any", "ENOMEM", "RLIMIT_AS, overcommit"),
    ("accept4", "any", "EMFILE ENFILE ENOMEM EINTR ECONNABORTED", "exhaustion; the client has changed its mind"),
    ("sendmsg,sendto", "any", "EAGAIN ENOMEM ENOBUFS", "the service manager's queue is full, no memory"),
    ("recvmsg", "any", "ENOMEM ENOBUFS", "no memory for what comes along"),
    ("pipe2", "any", "EMFILE ENFILE", "exhaustion, fs.pipe-user-pages-hard"),
    ("socket", "any", "EMFILE ENFILE ENOMEM ENOBUFS", "exhaustion"),
    ("flock", "any", "EINTR ENOLCK", "network file systems"),
    ("mkdir,mkdirat", "any", "ENOSPC EIO EROFS", "full, broken and read-only disks"),
    ("unlink,unlinkat", "any", "EIO EROFS", "broken disks"),
]
# What is called otherwise where a killed daemon has left its programs.
SURVIVORS = "clone,clone3 pidfd_open pidfd_send_signal kill epoll_ctl openat,openat2,open".split()
ROWS = [("life", *row) for row in TABLE] + [("survivors", *row) for row in TABLE if row[0] in SURVIVORS]
SAMPLE, SEED = 250, 1


class Lives:
    """Runs lives side by side and keeps the account."""

    def __init__(self, binary, tools, jobs):
        self.binary, self.tools, self.jobs = binary, tools, jobs
        self.outcomes = collections.Counter()
        self.broken = []

    def one(self, fault):
        """How a life went, in a word and in a sentence, and how often the call was made; 0 for not enough."""
        kind = damage.Damaged if fault[0] == "damaged" else life.Life
        one, started = kind(self.binary, self.tools, fault), time.monotonic()
        try:
            outcome, counted, hit = one.run()
            return outcome.split()[0], f"{outcome} [{hit}]", counted, time.monotonic() - started
        except life.Broken as broken:
            return "broken", f"{broken} [{one.report()[1]}]", 0, time.monotonic() - started
        except Exception:  # What was not thought of is no proof either.
            return "broken", traceback.format_exc(), 0, time.monotonic() - started
        finally:
            one.clean_up()

    def all(self, faults):
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            yield from zip(faults, pool.map(self.one, faults))

    def damaged(self):
        """A life after each way to damage each file of a state directory; prints the account."""
        account = collections.Counter()
        files = damage.names(self.binary, self.tools)
        for fault, (word, sentence, _, _) in self.all([("damaged", name, way) for name in files for way in range(len(damage.WAYS))]):
            account[word] += 1
            if word != "survived":
                self.told(fault, word, sentence)
        self.outcomes += account
        said = ", ".join(f"{count} {word}" for word, count in sorted(account.items()))
        print(f"damaged: {', '.join(files)}: {said}", flush=True)

    def told(self, fault, word, sentence):
        line = " ".join(map(str, fault))
        if word == "broken":
            self.broken.append(fault)
            print(f"BROKEN tests/faults/run.py {line}\n       {sentence}", flush=True)
        else:
            print(f"       {line}: {sentence}", flush=True)

    def row(self, script, calls, kind, error, numbers):
        """Lives in which these calls fail, until one is not reached; prints the account."""
        row, reached, numbers = collections.Counter(), 0, iter(numbers)
        while batch := list(itertools.islice(numbers, self.jobs * 4)):
            missed = 0
            lives = self.all([(script, calls, kind, error, n) for n in batch])
            for (*_, n), (word, sentence, counted, _) in lives:
                was_hit = word == "broken" or counted >= n
                missed += not was_hit
                reached = max(reached, n if was_hit else 0)
                row[word if was_hit else "not reached"] += 1
                if word != "survived" and was_hit:
                    self.told((script, calls, kind, error, n), word, sentence)
            if missed > 1:
                break
        self.outcomes += row
        said = ", ".join(f"{count} {word}" for word, count in sorted(row.items()))
        print(f"{script}: {calls} of {kind}, {error}: {said or 'never called'}; up to call {reached}", flush=True)


def build(directory):
    for name, options in (("inject", []), ("program", ["-static"])):
        command = ["cc", "-O2", "-Wall", "-Wextra", *options, "-o", directory / name, HERE / f"{name}.c"]
        subprocess.run(command, check=True)


def wanted(only):
    return [row for row in ROWS if not only or only in row[1].split(",")]


def spread(count, lives, chance):
    """So many numbers from 1 to `count`, one by chance from each of as many equal parts."""
    lives = min(count, lives)
    edges = [count * part // lives for part in range(lives + 1)] if lives else []
    return [chance.randint(low + 1, high) for low, high in zip(edges, edges[1:])]


def sample(lives, arguments):
    chance, rows = random.Random(arguments.seed), wanted(arguments.only)
    print(f"a sample of about {arguments.sample} lives, --seed {arguments.seed}", flush=True)
    counting = [(script, calls, kind, errors.split()[0], 0) for script, calls, kind, errors, _ in rows]
    pairs = sum(len(errors.split()) for *_, errors, _ in rows)
    for (script, calls, kind, errors, _), (fault, (word, sentence, counted, _)) in zip(rows, lives.all(counting)):
        if calls.startswith("openat") and counted == 0:
            word, sentence = "broken", "nothing is counted: the faults are not injected"
        if word != "survived":
            lives.told(fault, "broken", sentence)
        lives.outcomes[word] += 1
        for error in errors.split():
            numbers = spread(counted, max(1, arguments.sample // pairs), chance)
            lives.row(script, calls, kind, error, numbers)


def everything(lives, arguments):
    for script, calls, kind, errors, _ in wanted(arguments.only):
        for error in errors.split():
            lives.row(script, calls, kind, error, range(1, sys.maxsize))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only")
    parser.add_argument("--sample", type=int, nargs="?", const=SAMPLE)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("fault", nargs="*")
    arguments = parser.parse_args()
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if os.geteuid() != 0 or release < (5, 19):
        print("SKIPPED: faults at every step: they need root and Linux 5.19", file=sys.stderr)
        return 0
    if not arguments.binary:
        subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
    binary = (arguments.binary or ROOT / "target/debug/eternal").resolve()
    with tempfile.TemporaryDirectory(prefix="faults-tools-") as tools:
        build(pathlib.Path(tools))
        lives = Lives(binary, pathlib.Path(tools), arguments.jobs)
        if arguments.fault:
            word, sentence, counted, took = lives.one(tuple(arguments.fault))
            print(f"{sentence}; the call was made {counted} times; {took:.1f} s")
            return int(word == "broken")
        if not arguments.only:
            lives.damaged()
        (everything if arguments.all else sample)(lives, arguments)
    failed = len(lives.broken)
    print(", ".join(f"{count} {word}" for word, count in sorted(lives.outcomes.items())))
    print(f"{sum(lives.outcomes.values()) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
