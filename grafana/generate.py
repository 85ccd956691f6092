#!/usr/bin/env python3
"""Writes dashboards/*.json from the modules beside this file; with --check only compares.

Python 3.9 or later, standard library only.
"""

import pathlib
import sys

sys.dont_write_bytecode = True

import crashes
import fleet
import parts
import program
import supervisor

DASHBOARDS = pathlib.Path(__file__).parent / "dashboards"


def main():
    stale = []
    for module in (fleet, program, crashes, supervisor):
        path = DASHBOARDS / f"{module.__name__}.json"
        text = parts.text(module.board())
        if sys.argv[1:] == ["--check"]:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"not what generate.py writes: {', '.join(stale)}")


main()
