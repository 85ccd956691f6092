#!/usr/bin/env python3
"""Divides every duration of a rule file or an Alertmanager configuration by a factor, and nothing else.

Usage: scale.py FACTOR < alerts/eternal.rules.yml > fast.rules.yml

Scaled are `for`, `keep_firing_for`, `interval` and the waits of Alertmanager, ranges such as [5m] with their
offsets and subquery steps. Counts and ratios stay: at a scrape interval divided by the same factor, a scaled
rule sees as many scrapes as the shipped one does. A duration in any other place is an error: a rule that is
scaled in part would say something else. Standard library only, on text, so that comments and layout stay.
"""
import re
import sys

DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
KEY = re.compile(rf"^(\s*(?:- )?(?:for|keep_firing_for|interval|group_wait|group_interval|repeat_interval|resolve_timeout):\s*)({DURATION})\s*$")
RANGE = re.compile(rf"\[({DURATION})(?::({DURATION})?)?\]")
OFFSET = re.compile(rf"(\boffset\s+-?)({DURATION})")
LEFT_OVER = re.compile(rf"(?<![\w.]){DURATION}(?!\w)")
PROSE = ("summary:", "description:", "dashboard:", "runbook_url:")


class ScaleError(Exception):
    """A duration that this script does not know how to scale."""


def milliseconds(duration):
    return sum(int(n) * MILLISECONDS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def divided(duration, factor):
    """Returns `duration` divided, rounded to milliseconds; zero stays zero, nothing else becomes zero."""
    if milliseconds(duration) == 0:
        return duration
    return f"{max(1, round(milliseconds(duration) / factor))}ms"


def _ranges(line, factor):
    def one(found):
        size, step = found.groups()
        colon = ":" if ":" in found[0] else ""
        return f"[{divided(size, factor)}{colon}{divided(step, factor) if step else ''}]"

    line = RANGE.sub(one, line)
    return OFFSET.sub(lambda found: found[1] + divided(found[2], factor), line)


def scale(text, factor):
    """Returns `text` with every duration divided by `factor`. Raises ScaleError where one is left."""
    out, prose = [], None
    for number, line in enumerate(text.splitlines(), 1):
        code = line.split(" #")[0].rstrip()
        indent = len(line) - len(line.lstrip())
        if prose is not None and code and indent <= prose:
            prose = None
        if code.lstrip().startswith(PROSE):
            prose = indent
        if prose is not None or code.lstrip().startswith("#"):
            out.append(line)
            continue
        if key := KEY.match(code):
            out.append(key[1] + divided(key[2], factor))
            continue
        without = OFFSET.sub("", RANGE.sub("", code))
        if left := LEFT_OVER.search(without):
            raise ScaleError(f"line {number}: do not know how to scale {left[0]!r} in {code.strip()!r}")
        out.append(_ranges(line, factor))
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    try:
        sys.stdout.write(scale(sys.stdin.read(), float(sys.argv[1])))
    except ScaleError as error:
        print(f"cannot scale: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
