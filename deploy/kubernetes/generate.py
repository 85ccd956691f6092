#!/usr/bin/env python3
"""Writes base/prometheusrule.yaml from alerts/eternal.rules.yml: the same groups, below `spec`.

Usage: generate.py            writes it
       generate.py --check    writes nothing; exit code 1 when the file is not what would be written

The dashboards need no copy: grafana/kustomization.yaml makes ConfigMaps of the files themselves. Standard library only.
"""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
RULES = HERE.parents[1] / "alerts/eternal.rules.yml"
WRITTEN = HERE / "base/prometheusrule.yaml"
HEAD = """\
# Written by deploy/kubernetes/generate.py from alerts/eternal.rules.yml: change that, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: eternal
spec:
"""


def rule_object(rules):
    """Returns the manifest for the text of a rule file. Comments stay; those before `groups:` are about the file."""
    start = rules.index("groups:\n")
    lines = rules[start:].splitlines()
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    text = rule_object(RULES.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--check"]:
        if not WRITTEN.exists() or WRITTEN.read_text(encoding="utf-8") != text:
            print(f"{WRITTEN} is not what {RULES} says: run deploy/kubernetes/generate.py", file=sys.stderr)
            return 1
        return 0
    WRITTEN.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
