#!/usr/bin/env python3
"""Takes a picture of every dashboard: shoot.py SITE OUT_DIRECTORY [BOARD…]. SITE holds page.html, page.js, data.json.

Serves SITE on loopback and lets Chromium draw page.html; the height of a dashboard is the title of its page.
"""
import functools
import http.server
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

WIDTH, SCALE = 1600, 0.75
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run", "--hide-scrollbars", "--virtual-time-budget=20000", "--timeout=60000"]


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def chromium(url, *more):
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(["chromium", *QUIET, f"--user-data-dir={profile}", *more, url], capture_output=True, text=True, timeout=180, check=True)


def main(site, out, *boards):
    site, out = pathlib.Path(site).resolve(), pathlib.Path(out).resolve()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for board in boards or json.loads((site / "data.json").read_text())["dashboards"]:
        url = f"http://127.0.0.1:{server.server_port}/page.html?board={board}"
        page = chromium(url, "--dump-dom", f"--window-size={WIDTH},1200").stdout
        height = re.search(r"<title>(\d+)</title>", page)
        if not height:
            sys.exit(f"{board} was not drawn: {re.sub('<style.*?</style>', '', page, flags=re.S)[:2000]}")
        chromium(url, f"--screenshot={out / board}.png", f"--window-size={WIDTH},{height[1]}", f"--force-device-scale-factor={SCALE}")
        print(f"{board}.png: {WIDTH} x {height[1]}")
    server.shutdown()


main(*sys.argv[1:])
