#!/usr/bin/env python3
"""Breaks the rules one at a time and demands that the promtool tests notice.

Usage: mutate.py [--sample N] [--seed N] [--only RULE]. Needs PyYAML and promtool. Exits with 1 when a mutant survives.
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
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
TESTS = ["eternal.rules_test.yml", "hours.rules_test.yml", "days.rules_test.yml"]
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
    yield from replace_each(expr, r'job="eternal"', 'job="elsewhere"')
    # Widened everywhere at once: operators match on job, so one selector alone holds the others. Recorded series
    # are of this job already.
    if "instance_program:" not in expr:
        yield expr.replace('job="eternal"', 'job=~".+"')
    yield from replace_each(expr, r'(state|reason)="(\w+)"', lambda m: f'{m.group(1)}=~".+"', lambda m: f'{m.group(1)}="none"')
    yield from replace_each(expr, r"\b(?:max|min|avg)_over_time\b", "last_over_time")
    # Where only `> 0` is asked of a sum, changes() says the same until a counter is set back; for dropped lines that
    # would have to happen again and again.
    others = ["delta"] if "log_dropped" in expr else ["delta", "changes"]
    yield from replace_each(expr, r"\bincrease\b", *others)
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
        # A recorded series of other jobs is never read; Watchdog has nothing to widen.
        if expr == rule["expr"] or ("record" in rule and 'job=~".+"' in expr):
            continue
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
                yield label(rule), what, changed


def label(rule):
    return rule.get("alert") or rule["record"]


def reads(rule, names):
    return any(f"{name}{{" in rule["expr"] for name in names)


def closure(rules, names, related):
    """Adds to the names whatever is related to one of them, until nothing is."""
    names = set(names)
    while grown := {label(r) for r in rules if label(r) not in names and related(r, names)}:
        names |= grown
    return names


def narrowed(rules, name):
    """Returns the names of the alerts that the named rule can change, and of those and every rule they read."""
    flat = [rule for group in rules["groups"] for rule in group["rules"]]
    changed = closure(flat, {name}, reads)
    chosen = [rule for rule in flat if label(rule) in changed]
    needed = set(changed)
    while True:
        read = {label(r) for r in flat if any(reads(c, {label(r)}) for c in chosen)} - needed
        if not read:
            return {label(r) for r in chosen if "alert" in r and label(r) in changed}, needed
        needed |= read
        chosen += [r for r in flat if label(r) in read]


def only(rules, names):
    groups = [{**g, "rules": [r for r in g["rules"] if label(r) in names]} for g in rules["groups"]]
    return {"groups": [g for g in groups if g["rules"]]}


class Tests:
    """The test files, cut into the tests that expect an alert, those named like it, and the rest."""

    def __init__(self):
        self.files = [yaml.safe_load((HERE / name).read_text()) for name in TESTS]

    def stages(self, alerts, needed):
        """Yields (whether the tests expect one of the alerts, test file)."""
        parts = ([], [], [])
        for file in self.files:
            cut = ([], [], [])
            for test in file["tests"]:
                about = self.about(test, alerts, needed)
                cut[0 if any(e["exp_samples"] for e in about["promql_expr_test"]) else 2 - kinship(test, alerts)].append(about)
            for stage, part in zip(parts, cut):
                if part:
                    stage.append({**file, "tests": part})
        return [(number == 0, file) for number, stage in enumerate(parts) for file in stage]

    @staticmethod
    def about(test, alerts, needed):
        """The test, with what it expects of other alerts left out: no rule depends on another alert. What it
        expects of recorded series stays where the rule that records them does."""
        def expected(e):
            samples = e.get("exp_samples", [])
            return [s for s in samples if any(f'"{a}"' in s["labels"] for a in alerts)] if "ALERTS" in e["expr"] else samples

        told = [e for e in test["promql_expr_test"] if "ALERTS" in e["expr"] or any(name in e["expr"] for name in needed)]
        return {**test, "promql_expr_test": [{**e, "exp_samples": expected(e)} for e in told]}


def kinship(test, alerts):
    words = {w.lower() for a in alerts for w in re.findall(r"[A-Z]+[a-z]+", a)} - {"eternal", "program", "up", "not", "in"}
    return int(any(w in test["name"].replace("-", "") for w in words))


def passes(rules, file, folder):
    (folder / "eternal.rules.yml").write_text(yaml.safe_dump(rules, sort_keys=False))
    (folder / "test.yml").write_text(yaml.safe_dump(file, sort_keys=False))
    return subprocess.run(["promtool", "test", "rules", folder / "test.yml"], capture_output=True).returncode == 0


def survives(mutant, tests, original, likely_only=False):
    name, _, rules = mutant
    alerts, needed = narrowed(original, name)
    with tempfile.TemporaryDirectory() as folder:
        stages = [file for likely, file in tests.stages(alerts, needed) if likely or not likely_only]
        return all(passes(only(rules, needed), file, pathlib.Path(folder)) for file in stages)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="test this many mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="test the mutants of this rule")
    options = parser.parse_args()
    started = time.monotonic()
    rules = yaml.safe_load((HERE / "eternal.rules.yml").read_text())
    chosen = [m for m in mutants(rules) if options.only in (None, m[0])]
    if options.sample and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    tests = Tests()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        # A mutant that dies of the way it is tested proves nothing: the rules as they are have to survive.
        names = sorted({name for name, _, _ in chosen})
        for name, passed in zip(names, pool.map(lambda n: survives((n, "", rules), tests, rules, True), names)):
            if not passed:
                sys.exit(f"{name}: its tests fail without any change")
        alive = 0
        for (name, what, _), survived in zip(chosen, pool.map(lambda m: survives(m, tests, rules), chosen)):
            if survived:
                alive += 1
                print(f"survived: {name}: {what}", flush=True)
    print(f"{len(chosen)} mutants, {len(chosen) - alive} killed ({time.monotonic() - started:.0f} s)")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
