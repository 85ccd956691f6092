#!/usr/bin/env python3
"""Computes from a real /metrics what a fleet costs Prometheus: series, samples per second, memory, disk.

Usage: sizing.py [--hosts N] [--programs N] [--interval SECONDS] [--retention DAYS] URL|FILE
       sizing.py --readme README.md URL|FILE     writes the table into it, between its two marks

URL is that of a daemon, such as http://web1:10477/metrics, FILE a saved answer. What a program and what the daemon has is
counted in it; hosts and programs per host are what you say, else the table shows some. Standard library only.
"""
import argparse
import pathlib
import re
import sys
import urllib.request

RULES = pathlib.Path(__file__).resolve().parents[2] / "alerts/eternal.rules.yml"
# up, scrape_duration_seconds, scrape_samples_scraped, scrape_samples_post_metric_relabeling, scrape_series_added: what
# Prometheus adds to each target.
SCRAPE_SERIES = 5
# Of a Prometheus 2.42 with these rules: see "How the memory was measured" in README.md.
BYTES_PER_SERIES = 8 * 1024
# "1 to 2 bytes per sample", says the page on storage of Prometheus' manual.
BYTES_PER_SAMPLE = 2
START, END = "<!-- sizing.py writes this -->\n", "<!-- to here -->\n"
EXAMPLES = [(1, 10), (10, 10), (100, 10), (1000, 10), (10_000, 10), (100, 100), (1000, 100)]
# A head of this many series is about where one Prometheus ends on one machine: 64 GiB at 8 KiB each.
ONE_PROMETHEUS = 8_000_000


class Counts:
    """Series of one daemon and of one program, as counted in an exposition."""

    def __init__(self, exposition, rules):
        daemon, programs = 0, {}
        for line in exposition.splitlines():
            if not line or line.startswith("#"):
                continue
            labels = dict(re.findall(r'(program|replica)="([^"]*)"', line))
            if "program" in labels and "replica" in labels:
                key = (labels["program"], labels["replica"])
                programs[key] = programs.get(key, 0) + 1
            else:
                daemon += 1
        if not programs:
            raise ValueError("there is no program in it")
        self.daemon = daemon + SCRAPE_SERIES
        # The fullest: one that has exited once has series more than one that never did.
        self.program = max(programs.values())
        self.recorded = len(re.findall(r"^\s*- record: instance_program:", rules, re.MULTILINE))

    def series(self, hosts, programs):
        return hosts * (self.daemon + programs * (self.program + self.recorded))


def short(number):
    """Writes a number with two significant digits: 1,500 and 0.15 say all that is known."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{short(count)} {unit}"
        count /= 1024
    return f"{short(count)} TiB"


def row(counts, hosts, programs, interval, retention):
    series = counts.series(hosts, programs)
    samples = series / interval
    disk = samples * 86400 * retention * BYTES_PER_SAMPLE
    who = "one Prometheus" if series <= ONE_PROMETHEUS else f"{-(-series // ONE_PROMETHEUS)} shards"
    cells = [f"{hosts:,}", f"{programs:,}", short(series), short(samples), size(series * BYTES_PER_SERIES), size(disk), who]
    return "| " + " | ".join(cells) + " |\n"


def table(counts, pairs, interval=15, retention=15):
    text = f"A daemon has {counts.daemon} series (the {SCRAPE_SERIES} that Prometheus adds to a target among them), a program {counts.program}, "
    text += f"and the recording rules add {counts.recorded} to each program.\n\n"
    text += f"| hosts | programs on each | series | samples a second, every {interval:g} s | memory | disk, {retention:g} days | takes |\n"
    text += "|---|---|---|---|---|---|---|\n"
    return text + "".join(row(counts, *pair, interval, retention) for pair in pairs)


def written_into(readme, text):
    """Returns the page with the table between its marks. Raises ValueError when they are not there."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"there is no {START.strip()} … {END.strip()} in it")
    return f"{before}{START}{text}{END}{after}"


def read(where):
    if where.startswith(("http://", "https://")):
        with urllib.request.urlopen(where, timeout=20) as answer:
            return answer.read().decode()
    return pathlib.Path(where).read_text(encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", metavar="URL|FILE")
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--programs", type=int)
    parser.add_argument("--interval", type=float, default=15)
    parser.add_argument("--retention", type=float, default=15)
    parser.add_argument("--readme", type=pathlib.Path)
    options = parser.parse_args()
    try:
        counts = Counts(read(options.where), RULES.read_text(encoding="utf-8"))
        if options.readme:
            page = options.readme.read_text(encoding="utf-8")
            options.readme.write_text(written_into(page, table(counts, EXAMPLES)), encoding="utf-8")
            return 0
    except (OSError, ValueError) as error:
        print(f"sizing.py: {options.readme or options.where}: {error}", file=sys.stderr)
        return 1
    pairs = EXAMPLES
    if options.hosts or options.programs:
        pairs = [(options.hosts or 1, options.programs or 10)]
    print(table(counts, pairs, options.interval, options.retention), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
