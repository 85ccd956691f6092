#!/usr/bin/env python3
"""Changes one thing at a time in src/supervision and expects a test to notice.

A comparison turned, a condition dropped, an operator swapped, a statement left out: each mutant is
compiled with the room's unit tests and the simulation, alone (the room is std-only), and has to make
something fail. Prints survivors and exits 1 when there are any that KNOWN does not explain.

usage: tests/mutants/supervision.py [--every N]    (N: try only each N-th mutant)
"""
import argparse, os, pathlib, re, resource, shutil, signal, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOM = ROOT / "src/supervision"
FILES = ["policy.rs", "phase.rs", "program.rs", "program/orders.rs", "program/news.rs", "program/birth.rs", "program/ending.rs",
         "fleet.rs", "fleet/roll.rs", "fleet/waits.rs"]
SWAPS = [(" <= ", " < "), (" < ", " <= "), (" >= ", " > "), (" > ", " >= "), (" == ", " != "), (" != ", " == "),
         (" && ", " || "), (" || ", " && "), (" + ", " - "), ("is_some_and", "is_none_or"), ("is_none_or", "is_some_and"),
         (".min(", ".max("), (".max(", ".min("), ("true", "false"), ("false", "true"),
         ("saturating_add(1)", "saturating_add(0)"), (".any(", ".all("), ("!self.", "self."), ("!needed", "needed"),
         ("!slot.", "slot."), ("!program.", "program."), ("Order::Proceed", "Order::Stop"), ("is_zero()", "is_zero().eq(&false)")]
# What no outside observer can tell apart, each with its reason: (file, a part of the line, a part of the change).
KNOWN = [
    ("fleet.rs", "roll: None", "", "the default"),
    ("fleet/roll.rs", "slot.program.did_not_come_up()", "is_none_or", "one that is forgotten counts as stopped, before that is asked"),
    ("fleet/waits.rs", "is_none_or(|s| !matches!(s.program.state()", "is_some_and", "a replica that has a name has a slot"),
    ("fleet.rs", "let up = is != was && matches!", "||", "who waits asks once more than needed and waits on"),
]


def code_lines(text):
    for number, line in enumerate(text.split("\n")):
        if line.startswith("#[cfg(test)]"):
            return
        if not line.strip().startswith(("//", "#[", "use ", "pub use", "mod ")) and "debug_assert" not in line:
            yield number, line


def mutants():
    for name in FILES:
        text = (ROOM / name).read_text()
        lines = text.split("\n")
        for number, line in code_lines(text):
            changed = {line.replace(old, new, 1) for old, new in SWAPS if old in line}
            if re.match(r"^\s+(self|ending|slot|book|out|left|ordered)\.[^=]*\(.*\);$", line) or re.match(r"^\s+self\.[a-z_]+ (=|\+=) [^;{]*;$", line):
                changed.add("")
            if re.match(r"^\s+\*?(ending|self|asked|slot)(\.[a-z_]+)* = [^;{]*;$", line):
                changed.add("")
            for new in sorted(changed):
                if new == "" and ".why = " in line:
                    continue  # words for people, not behaviour
                yield name, number, line, "\n".join(lines[:number] + [new] + lines[number + 1:]), new


def test(work):
    """Runs the tests: their exit code and what they said; 1 when they do not end, or eat memory without end."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    build = subprocess.run(["cargo", "test", "--quiet", "--offline", "--no-run"], cwd=work, capture_output=True, text=True)
    if build.returncode:
        return build.returncode, build.stderr
    # A group of its own: a mutant that runs for ever has to go with the cargo that runs it.
    tests = subprocess.Popen(["cargo", "test", "--quiet", "--offline"], cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, start_new_session=True, preexec_fn=limit, env={**os.environ, "RUST_BACKTRACE": "0"})
    try:
        said, _ = tests.communicate(timeout=45)
        return tests.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()
        return 1, "it did not end"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--every", type=int, default=1)
    every = arguments.parse_args().every
    work = pathlib.Path(tempfile.mkdtemp(prefix="mutants-"))
    shutil.copytree(ROOM, work / "src/supervision")
    (work / "tests").mkdir()
    simulation = (ROOT / "tests/simulation.rs").read_text()
    (work / "tests/simulation.rs").write_text(simulation)
    (work / "src/lib.rs").write_text("//! The room alone.\npub mod supervision;\n")
    (work / "Cargo.toml").write_text('[package]\nname = "eternal"\nversion = "0.0.0"\nedition = "2024"\n[dev-dependencies]\n'
                                     'fastrand = "2"\n[profile.test]\nopt-level = 1\ndebug = false\n')
    shutil.copy(ROOT / "Cargo.lock", work)
    code, said = test(work)
    if code:
        sys.exit("the tests fail before anything is changed:\n" + said)
    killed, uncompiled, known, survivors = 0, 0, 0, []
    for count, (name, number, line, text, new) in enumerate(mutants()):
        if count % every:
            continue
        path = work / "src/supervision" / name
        good = path.read_text()
        path.write_text(text)
        code, said = test(work)
        if code == 0:
            if any(k[0] == name and k[1] in line and k[2] in new for k in KNOWN):
                known += 1
            else:
                survivors.append(f"{name}:{number + 1}: {line.strip()}  =>  {new.strip() or '(left out)'}")
                print("survives:", survivors[-1], flush=True)
        elif "could not compile" in said:
            uncompiled += 1
        else:
            killed += 1
        path.write_text(good)
    shutil.rmtree(work)
    print(f"{killed} killed, {len(survivors)} survived, {known} equivalent, {uncompiled} did not compile")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
