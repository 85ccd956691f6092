#!/usr/bin/env python3
"""Plants one fault at a time in a copy of the sources and expects the test of its class to notice.

usage: tests/advisories/plant.py [WORD…]    (WORD: only the faults with it in their name)

Each fault is one or more texts of sources and what they become. The copy shares the compiled dependencies with
CARGO_TARGET_DIR when that is set. Prints what was not noticed and exits 1 if there is any.
"""
import os, pathlib, shutil, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE, HTTP, BROWSERS = "src/observe/status_page.rs", "src/observe/http.rs", "src/observe/browsers.rs"
FAULTS = [  # (name, the test, [(file, text, what it becomes)])
    ("arguments on the page", "canary::",
     [(PAGE, "command_name(&program.command)", '&program.command.join(" ")')]),
    ("arguments of a check", "canary::",
     [("src/daemon/health.rs", "command_name(words).to_owned()", 'words.join(" ")')]),
    ("the query of a check", "canary::",
     [("src/os/probe.rs", "path.split('?').next().unwrap_or_default()", "path")]),
    ("arguments in one word", "canary::",
     [("src/os/failure.rs", "if first.len() < command.len()", "if first.is_empty()")]),
    ("the name of a variable", "canary::",
     [("src/config/collections.rs", "quote(name.split('=').next().unwrap_or_default())", "quote(name)")]),
    ("markup", "pages::names",
     [("src/observe/text.rs", "'<' =>", "'\\u{1}' =>")]),
    ("headers", "pages::every_answer",
     [(HTTP, "        browsers::restrain(answer.headers_mut());\n        let code = answer.status()", "        let code = answer.status()")]),
    ("another name", "pages::a_page",
     [(BROWSERS, "is_port && (", "is_port || (")]),
    ("a style of another hash", "pages::the_style",
     [(PAGE, "h1{font-size:1.4rem", "h1{font-size:1.5rem")]),
    ("unbounded labels", "pages::nothing",
     [(HTTP, '_ => "other",', "_ => Box::leak(method.to_string().into_boxed_str()),")]),
    ("uid 65535", "births::a_user",
     [("src/os/users.rs", "|| id == 0xffff", ""),
      ("src/config/values.rs", "&& id != 0xffff ", "")]),
    ("descriptors for children", "births::a_program",
     [("src/os/newborn.rs", "call(libc::SYS_close_range, [first, last, 0])", "call(libc::SYS_getpid, [0, 0, 0])"),
      ("src/os/exits.rs", "libc::EPOLL_CLOEXEC", "0")]),
    ("quadratic mistakes", "hostile_files::a_conf",
     [("src/config/file.rs", "lines.len() < MOST_ERRORS && ", "")]),
    ("an endless file", "hostile_files::what",
     [("src/config/file.rs", "bytes.len() as u64 > LONGEST", "bytes.is_empty()")]),
]


def main():
    words = sys.argv[1:]
    chosen = [fault for fault in FAULTS if not words or any(word in fault[0] for word in words)]
    work = pathlib.Path(tempfile.mkdtemp(prefix="plant-"))
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, work / name, follow_symlinks=False)
    # What a fault leaves unused is no reason not to compile.
    manifest = work / "Cargo.toml"
    manifest.write_text(manifest.read_text().replace('"deny"', '"warn"'))
    unnoticed = []
    for name, test, edits in chosen:
        for file, text, becomes in edits:
            before = (ROOT / file).read_text()
            if text not in before:
                sys.exit(f"{name}: {file} has no {text!r} any more")
            (work / file).write_text(before.replace(text, becomes, 1))
        run = subprocess.run(["cargo", "test", "--quiet", "--test", "advisories", "--", test], cwd=work, capture_output=True, text=True,
                             env={**os.environ, "RUST_BACKTRACE": "0"})
        for file, _, _ in edits:
            (work / file).write_text((ROOT / file).read_text())
        noticed = run.returncode != 0 and "test result: FAILED" in run.stdout
        print(f"{'noticed' if noticed else 'NOT NOTICED'}: {name}", flush=True)
        if not noticed:
            unnoticed.append(f"{name}: {run.stdout[-300:]}{run.stderr[-500:]}")
    shutil.rmtree(work)
    print("\n".join(unnoticed) or f"all {len(chosen)} noticed")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
