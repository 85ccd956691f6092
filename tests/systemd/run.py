#!/usr/bin/env python3
"""Eternal under a really booted systemd: each scenario boots a machine of its own (machine.py).

Usage: run.py [--binary PATH] [--jobs N] [WORD…]     WORD: only scenarios with one of these words in their names

Without --binary it is the debug build, made if need be. Needs root on a Debian machine, where systemd and the other
packages are installed if they are missing; elsewhere it says so and does nothing. Standard library only.
"""
import argparse
import concurrent.futures
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import logs  # noqa: E402
import package  # noqa: E402
import scenarios  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDED = {"/lib/systemd/systemd": "systemd", "/usr/bin/dbus-daemon": "dbus", "/usr/sbin/logrotate": "logrotate", "/usr/bin/nsenter": "util-linux",
          "/usr/bin/readelf": "binutils", "/usr/bin/lintian": "lintian"}


def all_scenarios():
    found = []
    # The longest first.
    for module in (package, logs, scenarios):
        found += [f for f in vars(module).values() if callable(f) and getattr(f, "__module__", "") == module.__name__
                  and not isinstance(f, type) and f.__code__.co_argcount == 0]
    return {f.__name__: f for f in found}


def play(name):
    began = time.monotonic()
    try:
        said = all_scenarios()[name]()
        return name, True, said or "", time.monotonic() - began
    except Exception:  # noqa: BLE001
        return name, False, traceback.format_exc(), time.monotonic() - began


def install():
    missing = [package for file, package in NEEDED.items() if not pathlib.Path(file).exists()]
    if missing:
        quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], check=True, **quiet)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, **quiet)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("words", nargs="*", metavar="WORD")
    arguments = parser.parse_args()
    if os.geteuid() or not shutil.which("apt-get"):
        print("tests/systemd: not root on a Debian machine: skipped", file=sys.stderr)
        return 0
    install()
    if not arguments.binary:
        subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
    binary = arguments.binary or ROOT / "target/debug/eternal"
    os.environ["ETERNAL_BINARY"] = str(binary.resolve())
    names = [name for name in all_scenarios() if not arguments.words or any(word in name for word in arguments.words)]
    failed, began = [], time.monotonic()
    # A process for each: what a machine is bound to for its life is the thread that boots it.
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("fork")) as pool:
        for done in concurrent.futures.as_completed([pool.submit(play, name) for name in names]):
            name, well, said, took = done.result()
            print(f"{'ok    ' if well else 'FAILED'} {took:5.1f} s  {name.replace('_', ' ')}{': ' + said if said else ''}", flush=True)
            failed += [] if well else [name]
    print(f"tests/systemd: {len(names) - len(failed)} of {len(names)} well in {time.monotonic() - began:.0f} s")
    return 1 if failed or not names else 0


if __name__ == "__main__":
    sys.exit(main())
