#!/usr/bin/env python3
"""Breaks the rules one at a time and demands that the promtool tests notice.

Usage: mutate.py [--sample N] [--seed N]. Needs PyYAML and promtool. Exits with 1 when a mutant survives.
"""

import argparse
import concurrent.futures
import copy
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).resolve().parent
TESTS = ["eternal.rules_test.yml", "availability.rules_test.yml", "availability_days.rules_test.yml"]
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text):
    return int(text[:-1]) * UNITS[text[-1]]


def replace_each(expr, pattern, *replacements):
    """Yields the expression with one match of the pattern replaced, for every match and replacement."""
    for match in re.finditer(pattern, expr):
        for make in replacements:
            new = make(match) if callable(make) else make
            if new is not None and new != match.group(0):
                yield expr[: match.start()] + new + expr[match.end() :]


def scaled(factor):
    return lambda m: f"[{max(15, round(seconds(m.group(1)) * factor))}s]"


def threshold(step):
    def change(match):
        value = float(match.group(2))
        return f"{match.group(1)}{value + step if value == int(value) else value * (1 + step / 5):g}"

    return change


def mutated_expressions(expr):
    yield from replace_each(expr, r"\[(\d+[smhd])\]", scaled(2), scaled(0.5))
    yield from replace_each(expr, r"((?:>=|<=|==|>|<) *(?:14\.4 \* |1 \* )?)([0-9.]+)", threshold(1), threshold(-1))
    # `> 0` and `>= 1` are the same for whole numbers, but a comparison turned round never is.
    turned = {">=": "<", "<=": ">", "==": "!=", ">": "<=", "<": ">="}
    yield from replace_each(expr, r">=|<=|==|(?<![=<>])[<>](?!=)", lambda m: turned[m.group(0)])
    yield from replace_each(expr, r'job="eternal"', 'job=~".+"', 'job="elsewhere"')
    yield from replace_each(expr, r'(state|reason)="(\w+)"', lambda m: f'{m.group(1)}=~".+"', lambda m: f'{m.group(1)}="none"')
    yield from replace_each(expr, r"\b(?:max|min|avg)_over_time\b", "last_over_time")
    yield from replace_each(expr, r"\bincrease\b", "delta", "changes")
    yield from replace_each(expr, r"\birate\b", "rate")
    # Each side of a top-level `and`, `or`, `unless` alone, and the operators exchanged.
    for match in re.finditer(r"^(and|or|unless)$", expr, re.MULTILINE):
        before, after = expr[: match.start()], expr[match.end() :]
        yield before
        yield after
        for other in {"and", "or", "unless"} - {match.group(1)}:
            yield before + other + after
    yield from replace_each(expr, r"\b(?:sum|max) without \(\w+\) ", "")
    yield from replace_each(expr, r"\babsent\b", "count")


def mutated_rules(rule):
    """Yields (what was changed, rule)."""
    for expr in mutated_expressions(rule["expr"]):
        yield " ".join(expr.split()), {**rule, "expr": expr}
    for field in ("for", "keep_firing_for"):
        if field in rule:
            length = seconds(rule[field])
            for changed in (0, length // 2, length * 2):
                yield f"{field}: {changed}s", {**rule, field: f"{changed}s"}
    if "alert" in rule and rule["alert"] != "Watchdog":
        yield "never", {**rule, "expr": "vector(0) > 1"}


def mutants(rules):
    for g, group in enumerate(rules["groups"]):
        for r, rule in enumerate(group["rules"]):
            for what, new in mutated_rules(rule):
                changed = copy.deepcopy(rules)
                changed["groups"][g]["rules"][r] = new
                yield rule.get("alert") or rule["record"], what, changed


def concerned(rules, name):
    """Returns the alerts that the named rule can change: itself, or those that read the recorded series."""
    names, grew = {name}, True
    while grew:
        grew = False
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            own = rule.get("alert") or rule["record"]
            if own not in names and any(f"{n}{{" in rule["expr"] for n in names):
                names.add(own)
                grew = True
    return names


class Tests:
    """The test files, cut into the groups that speak of an alert and the rest."""

    def __init__(self):
        self.files = [yaml.safe_load((HERE / name).read_text()) for name in TESTS]

    def stages(self, names):
        """Yields test files: first the groups that expect one of the alerts, then those named like it, then the rest."""
        slow = any("Availability" in n or "unavailable" in n for n in names)
        for file in self.files if not slow else reversed(self.files):
            likely = [t for t in file["tests"] if any(f'"{n}"' in str(t["promql_expr_test"]) for n in names)]
            kin = [t for t in file["tests"] if t not in likely and self.kinship(t, names)]
            rest = [t for t in file["tests"] if t not in likely and t not in kin]
            for part in (likely, kin, rest):
                if part:
                    yield {**file, "tests": part}

    @staticmethod
    def kinship(test, names):
        words = {w.lower() for n in names for w in re.findall(r"[A-Z]+[a-z]+", n)} - {"eternal", "program", "up", "not", "in"}
        return any(w in test["name"].replace("-", "") for w in words)


def survives(mutant, tests, original):
    name, _, rules = mutant
    names = concerned(original, name)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "eternal.rules.yml").write_text(yaml.safe_dump(rules, sort_keys=False))
        for stage in tests.stages(names):
            (path / "test.yml").write_text(yaml.safe_dump(stage, sort_keys=False))
            if subprocess.run(["promtool", "test", "rules", path / "test.yml"], capture_output=True).returncode != 0:
                return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="test this many mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rules = yaml.safe_load((HERE / "eternal.rules.yml").read_text())
    chosen = list(mutants(rules))
    if options.sample and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    tests = Tests()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        outcome = list(pool.map(lambda m: survives(m, tests, rules), chosen))
    for (name, what, _), alive in zip(chosen, outcome):
        if alive:
            print(f"survived: {name}: {what}")
    print(f"{len(chosen)} mutants, {len(chosen) - sum(outcome)} killed")
    return 1 if any(outcome) else 0


if __name__ == "__main__":
    sys.exit(main())
