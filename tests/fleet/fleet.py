#!/usr/bin/env python3
"""One Prometheus and several hosts, for real: deploy/fleet/prometheus.yml with the shipped rules and routes, each host a network
namespace with its own Eternal. A host joins, one is cut off, one dies, one is taken out.

Usage: fleet.py [--binary PATH]

Durations are divided by 7.5, as in tests/live. Needs root, iproute2, util-linux; without --binary, the debug build is made.
Standard library only.
"""
import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "live")]
import live  # noqa: E402
import scale  # noqa: E402
from hosts import Host, Network  # noqa: E402
from stack import ROOT, Failure, Stack, get_text, until  # noqa: E402

sys.path.insert(0, str(ROOT / "deploy/fleet"))
import sizing  # noqa: E402

FACTOR, PATIENCE = 7.5, 150
LOOP, DOWN = "EternalProgramCrashLooping", "EternalSupervisorDown"
SLEEPS = '[programs.%s]\ncommand = ["sleep", "100000"]\n'
# Crashes in the first run and when there is a file that says so.
BREAKS = """\
[programs.%s]
command = ["sh", "-c", "test -e ran || { touch ran; exit 3; }; test -e broken && exit 3; exec sleep 100000"]
restart_delay = "100ms"
restart_delay_max = "500ms"
crash_threshold = 100000
"""
SERVES = """\
[programs.api]
command = ["eternal", "api-server", "--listen", "0.0.0.0:3000"]
metrics_address = "127.0.0.1:3000"
"""


class Fleet(Stack):
    """The stack of tests/live, with the shipped scrape configuration of a fleet."""

    def _start_prometheus(self, port, alertmanager):
        (self.folder / "eternal.rules.yml").write_text(scale.scale((ROOT / "alerts/eternal.rules.yml").read_text(), self.factor))
        text = (ROOT / "deploy/fleet/prometheus.yml").read_text()
        for old, new in {
            "scrape_interval: 15s": f"scrape_interval: {scale.divided('15s', self.factor)}",
            "scrape_timeout: 10s": f"scrape_timeout: {scale.divided('10s', self.factor)}",
            "evaluation_interval: 15s": f"evaluation_interval: {scale.divided('15s', self.factor)}",
            "127.0.0.1:9093": f"127.0.0.1:{alertmanager}",
        }.items():
            if text.count(old) != 1:
                raise Failure(f"prometheus.yml: {old!r} is not there once")
            text = text.replace(old, new)
        (self.folder / "prometheus.yml").write_text(text)
        subprocess.run(["promtool", "check", "config", self.folder / "prometheus.yml"], check=True, stdout=subprocess.DEVNULL)
        self.server = self.launch("prometheus.out", [
            "prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
            f"--rules.alert.resend-delay={scale.divided('1m', self.factor)}",
            f"--query.lookback-delta={scale.divided('5m', self.factor)}"])
        until("Prometheus answers", lambda: get_text(self.prometheus + "/-/ready"), 60)

    def up(self):
        """Returns the instances of the job that answer."""
        return {s["metric"]["instance"] for s in self.query('up{job="eternal"} == 1')}

    def alerts_of(self, instance, state="firing"):
        found = self.query(f'ALERTS{{instance="{instance}", alertstate="{state}"}}')
        return {s["metric"]["alertname"] for s in found}


def hosts_are_found_and_named_without_their_port(fleet, hosts):
    names = {h.instance for h in hosts}
    until("every host is up", lambda: fleet.up() == names, PATIENCE)
    return ", ".join(sorted(names))


def programs_are_scraped_where_their_host_is(fleet, web1):
    """web1 says 127.0.0.1:3000 on /sd, which is somewhere else from here."""
    up = f'up{{job="programs", program="api", replica="0", instance="{web1.instance}"}}'
    until("the program is scraped", lambda: fleet.number(up) == 1, PATIENCE)
    until("its own series are there", lambda: fleet.query(f'http_requests_total{{instance="{web1.instance}"}}'), PATIENCE)
    if len(others := fleet.query('up{job="programs"}')) != 1:
        raise Failure(f"others are scraped as well: {others}")
    return up


def a_host_is_added_without_a_restart(fleet, web4):
    begin = time.monotonic()
    web4.is_known_by_address()
    until("the new host is up", lambda: web4.instance in fleet.up(), PATIENCE)
    if fleet.server.poll() is not None:
        raise Failure("Prometheus ended")
    return f"scraped {time.monotonic() - begin:.1f} s after its file was there"


def a_cut_cable_and_a_dead_host_page_for_themselves_alone(fleet, web2, web3, others):
    (web2.folder / "broken").touch()
    os.kill(web2.status()["flapping"]["pid"], signal.SIGKILL)
    fleet.hook.wait(PATIENCE, "page", "firing", alertname=LOOP, instance=web2.instance, program="flapping")
    steady, cut = web2.status()["steady"], time.monotonic()
    web2.link("down")
    web3.dies()
    paged = [fleet.hook.wait(PATIENCE, "page", "firing", since=cut, alertname=DOWN, instance=h.instance) for h in (web2, web3)]
    told = {a["labels"]["instance"] for _, a in fleet.hook.alerts(alertname=DOWN)}
    if told != {web2.instance, web3.instance}:
        raise Failure(f"it paged for {told}")
    # They are as they were last seen, but nobody is told.
    programs = {n: by for n, by in fleet.suppressed(instance=web2.instance).items() if n.startswith("EternalProgram")}
    if LOOP not in programs or not all(DOWN in by for by in programs.values()):
        raise Failure(f"not every alert of a program is inhibited: {programs}")
    if strays := {h.instance: found for h in others if (found := fleet.alerts_of(h.instance))}:
        raise Failure(f"others complain as well: {strays}")
    now = web2.status()["steady"]
    if (now["pid"], now["restarts"]) != (steady["pid"], steady["restarts"]):
        raise Failure("a program was restarted because Prometheus could not see it")
    return f"paged after {paged[0] - cut:.1f} and {paged[1] - cut:.1f} s, inhibited then: {', '.join(sorted(programs))}"


def the_cable_is_mended_and_the_dead_host_taken_out(fleet, web2, web3, names):
    (web2.folder / "broken").unlink()
    begin = time.monotonic()
    web2.link("up")
    web3.is_forgotten()
    resolved = [fleet.hook.wait(PATIENCE, "page", "resolved", since=begin, alertname=DOWN, instance=h.instance) for h in (web2, web3)]
    until("the others are up", lambda: fleet.up() == names, PATIENCE)
    if targets := fleet.query(f'up{{instance="{web3.instance}"}}'):
        raise Failure(f"the host that was taken out is still there: {targets}")
    return f"resolved after {resolved[0] - begin:.1f} and {resolved[1] - begin:.1f} s"


def the_sizes_in_the_readme_are_those_of_a_real_host(_, host):
    readme = ROOT / "deploy/fleet/README.md"
    exposition = host.metrics()
    counts = sizing.Counts(exposition, sizing.RULES.read_text())
    page = readme.read_text()
    if sizing.written_into(page, sizing.table(counts, sizing.EXAMPLES)) != page:
        raise Failure(f"a real host says otherwise: run sizing.py --readme; it would write\n{sizing.table(counts, sizing.EXAMPLES)}")
    return f"{counts.daemon} series of the daemon, {counts.program} of a program, {counts.recorded} recorded"


def the_snippets_of_the_readme_are_valid(fleet):
    """Each ```yaml block of README.md fits into prometheus.yml: relabelling below the job, all else at the end."""
    blocks = [part.split("```")[0] for part in (ROOT / "deploy/fleet/README.md").read_text().split("```yaml\n")[1:]]
    text = (fleet.folder / "prometheus.yml").read_text()
    for block in blocks:
        if block.startswith("relabel_configs:\n"):
            rules = "".join(f"    {line}\n" for line in block.splitlines()[1:])
            text = text.replace("    relabel_configs:\n", "    relabel_configs:\n" + rules, 1)
        else:
            text += block
    (fleet.folder / "snippets.yml").write_text(text)
    done = subprocess.run(["promtool", "check", "config", fleet.folder / "snippets.yml"], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not blocks:
        raise Failure(f"{len(blocks)} snippets: {done.stdout}{done.stderr}")
    return f"{len(blocks)} snippets"


def run_scenarios(binary):
    fleet, held, begin = Fleet(binary, FACTOR, 2, daemons=0), True, time.monotonic()
    # The name `eternal` in a configuration is looked up.
    os.environ["PATH"] = f"{pathlib.Path(binary).parent}:{os.environ['PATH']}"
    os.environ["no_proxy"] = "*"
    try:
        network = Network(fleet.folder)
        (fleet.folder / "hosts").mkdir()
        web1 = Host(fleet, network, "web1", SERVES + BREAKS % "twice")
        web2 = Host(fleet, network, "web2", BREAKS % "flapping" + SLEEPS % "steady")
        web3 = Host(fleet, network, "web3", SLEEPS % "steady")
        web4 = Host(fleet, network, "web4", SLEEPS % "steady")
        for host in (web1, web2, web3):
            host.is_known()
        fleet.start()
        for scenario, *arguments in [
            (hosts_are_found_and_named_without_their_port, [web1, web2, web3]),
            (programs_are_scraped_where_their_host_is, web1),
            (a_host_is_added_without_a_restart, web4),
            (the_sizes_in_the_readme_are_those_of_a_real_host, web1),
            (the_snippets_of_the_readme_are_valid,),
            (a_cut_cable_and_a_dead_host_page_for_themselves_alone, web2, web3, [web1, web4]),
            (the_cable_is_mended_and_the_dead_host_taken_out, web2, web3, {web1.instance, web2.instance, web4.instance}),
        ]:
            name = scenario.__name__.replace("_", " ")
            try:
                print(f"ok   {name}: {scenario(fleet, *arguments)}", flush=True)
            except Exception as failure:  # noqa: BLE001: whatever went wrong, the others are told too
                held = False
                print(f"FAIL {name}: {type(failure).__name__}: {failure}", flush=True)
        print(f"fleet: {'all held' if held else 'FAILED'} in {time.monotonic() - begin:.0f} s")
        if not held:
            print(fleet.logs(), file=sys.stderr)
    finally:
        fleet.close()
    return held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # So that `finally` runs when somebody ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.inside:
        return 0 if run_scenarios(options.binary) else 1
    if os.geteuid() != 0:
        sys.exit("fleet.py: only root can make network namespaces")
    live.install()
    binary = (options.binary or live.built()).resolve()
    inside = ["unshare", "--mount", "--net", sys.executable, __file__, "--inside", "--binary", binary]
    os.execvp(inside[0], [str(word) for word in inside])
    return 1


if __name__ == "__main__":
    sys.exit(main())
