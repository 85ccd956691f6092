#!/usr/bin/env python3
"""Plants one fault at a time in a copy of the sources and expects the test of its class to notice.

usage: tests/advisories/plant.py [WORD…]    (WORD: only the faults with it in their name)

Each fault is a text of a source and what it becomes. The copy shares the compiled dependencies with
CARGO_TARGET_DIR when that is set. Prints what was not noticed and exits 1 if there is any.
"""
import os, pathlib, shutil, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE, HTTP, BROWSERS = "src/observe/status_page.rs", "src/observe/http.rs", "src/observe/browsers.rs"
FAULTS = [  # (name, file, text, what it becomes, target, test)
    ("arguments on the page", PAGE, "command_name(&program.command)", '&program.command.join(" ")', "advisories", "canary::"),
    ("arguments of a check", "src/daemon/health.rs", "command_name(words).to_owned()", 'words.join(" ")', "advisories", "canary::"),
    ("the query of a check", "src/os/probe.rs", "path.split('?').next().unwrap_or_default()", "path", "advisories", "canary::"),
    ("arguments in one word", "src/os/failure.rs", "if first.len() < command.len()", "if first.is_empty()", "advisories", "canary::"),
    ("the name of a variable", "src/config/collections.rs", "quote(name.split('=').next().unwrap_or_default())", "quote(name)",
     "advisories", "canary::"),
    ("markup", "src/observe/text.rs", "'<' =>", "'\\u{1}' =>", "advisories", "pages::names"),
    ("headers", HTTP, "        browsers::restrain(answer.headers_mut());\n        let code = answer.status()",
     "        let code = answer.status()", "advisories", "pages::every_answer"),
    ("another name", BROWSERS, "is_port && (", "is_port || (", "advisories", "pages::a_page"),
    ("a style of another hash", PAGE, "h1{font-size:1.4rem", "h1{font-size:1.5rem", "advisories", "pages::the_style"),
    ("unbounded labels", HTTP, '_ => "other",', '_ => Box::leak(method.to_string().into_boxed_str()),', "advisories", "pages::nothing"),
    ("uid -1", "src/os/users.rs", "4_294_967_295", "4_294_967_294", "advisories", "births::a_user"),
    ("quadratic mistakes", "src/config/file.rs", "lines.len() < MOST_ERRORS && ", "", "advisories", "hostile_files::a_conf"),
    ("an endless file", "src/config/file.rs", "file.take(LONGEST + 1)", "file.take(u64::MAX)", "advisories", "hostile_files::what"),
]


def main():
    words = sys.argv[1:]
    chosen = [fault for fault in FAULTS if not words or any(word in fault[0] for word in words)]
    work = pathlib.Path(tempfile.mkdtemp(prefix="plant-"))
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, work / name, follow_symlinks=False)
    unnoticed = []
    for name, file, text, becomes, target, test in chosen:
        path = work / file
        good = path.read_text()
        if text not in good:
            unnoticed.append(f"{name}: {file} has no {text!r} any more")
            continue
        path.write_text(good.replace(text, becomes, 1))
        run = subprocess.run(["cargo", "test", "--quiet", "--test", target, "--", test], cwd=work, capture_output=True, text=True,
                             env={**os.environ, "RUST_BACKTRACE": "0", "RUSTFLAGS": "--cap-lints=warn"})
        path.write_text(good)
        noticed = run.returncode != 0 and "test result: FAILED" in run.stdout
        print(f"{'noticed' if noticed else 'NOT NOTICED'}: {name}", flush=True)
        if not noticed:
            unnoticed.append(f"{name}: {run.stdout[-300:]}{run.stderr[-500:]}")
    shutil.rmtree(work)
    print("\n".join(unnoticed) or f"all {len(chosen)} noticed")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
