"""The Debian package, from installing to purging, on a booted machine."""
import os
import pathlib
import shutil
import subprocess
import tempfile

from machine import Failure, Machine, until
from service import CONFIG, ROOT, expect

# What installing and removing any package changes, and what the user leaves.
EXPECTED = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid", "/etc/.pwd.lock", "/var/lib/dpkg/", "/var/log/",
            "/var/lib/logrotate", "/var/lib/systemd/", "/var/cache/")
UNIT = "eternal.service"


def the_package_is_installed_upgraded_removed_and_purged():
    with tempfile.TemporaryDirectory(prefix="eternal-deb-") as work:
        first, second = (build(work, version) for version in ("0.1.0-1", "0.1.0-2"))
        if lintian := shutil.which("lintian"):
            said = subprocess.run([lintian, "--allow-root", "--fail-on=error,warning", first], text=True, capture_output=True, check=False)
            expect(said.returncode == 0, f"lintian: {said.stdout}{said.stderr}")
        with Machine({"/root/first.deb": first, "/root/second.deb": second}) as machine:
            # Not ours, and most of the time: every man page of the machine is read again after each step.
            machine.run("rm", "--force", "/var/lib/man-db/auto-update")
            before = listing(machine)
            installs(machine)
            upgrades(machine)
            goes(machine)
            left = {path for path in listing(machine) - before if not path.startswith(EXPECTED)}
            expect(not left, f"a purge leaves {sorted(left)}")
        return f"lintian: {'clean' if lintian else 'not installed'}"


def build(work, version):
    """Builds the package of the binary under test; as good as not compressed, which takes most of the time."""
    command = [ROOT / "deploy/debian/build.sh", "--binary", os.environ["ETERNAL_BINARY"], "--version", version, work]
    environment = os.environ | {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise Failure(f"build.sh: {done.stderr}")
    return pathlib.Path(done.stdout.strip())


def installs(machine):
    machine.run("dpkg", "--install", "/root/first.deb")
    state = machine.show(UNIT, "LoadState", "ActiveState", "UnitFileState", "FragmentPath")
    expect(state["LoadState"] == "loaded", f"systemd does not know the unit: {state}")
    expect(state["ActiveState"] == "inactive" and state["UnitFileState"] == "disabled", f"a surprise: {state}")
    expect(not machine.run("dpkg", "--verify", "eternal").stdout, "files differ from the package")
    machine.run("eternal", "check")
    expect(machine.run("eternal", "systemd-unit").stdout == machine.path("/usr/lib/systemd/system/eternal.service").read_text(),
           "systemd-unit does not print the unit of the package")
    machine.run("bash", "-n", "/usr/share/bash-completion/completions/eternal")
    expect("systemd-unit" in machine.run("zcat", "/usr/share/man/man1/eternal.1.gz").stdout.replace("\\-", "-"), "the man page is not of this version")
    machine.run("systemctl", "enable", "--now", UNIT)
    expect(machine.run("ps", "-o", "user=", "-p", machine.show(UNIT, "MainPID")).stdout.strip() == "eternal", "it is not the user eternal's")
    machine.run("logrotate", "--force", "/etc/logrotate.d/eternal")
    until("its log is a new file", lambda: len(list(machine.path("/var/log/eternal").iterdir())) == 2)


def upgrades(machine):
    config = machine.path(CONFIG)
    config.write_text(config.read_text() + '\n[programs.mine]\ncommand = ["sleep", "1001"]\n')
    machine.run("systemctl", "reload", UNIT)
    daemon = machine.show(UNIT, "MainPID")
    machine.run("dpkg", "--install", "/root/second.deb")
    state = machine.show(UNIT, "ActiveState", "UnitFileState", "NRestarts", "Result")
    expect(state == {"ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0", "Result": "success"}, f"{state}")
    expect(machine.show(UNIT, "MainPID") != daemon, "the old binary still runs")
    expect("programs.mine" in config.read_text(), "the configuration was replaced")
    expect(sorted(machine.processes(UNIT).values())[-1] == "sleep 1001" and len(machine.processes(UNIT)) == 3, f"{machine.processes(UNIT)}")
    # Who stopped it does not want an upgrade to start it.
    machine.run("systemctl", "stop", UNIT)
    machine.run("dpkg", "--install", "/root/second.deb")
    expect(machine.show(UNIT, "ActiveState") == "inactive", "an upgrade started what was stopped")
    machine.run("systemctl", "start", UNIT)


def goes(machine):
    machine.run("dpkg", "--remove", "eternal")
    expect(not machine.processes(UNIT) and machine.show(UNIT, "LoadState", "ActiveState") ==
           {"LoadState": "not-found", "ActiveState": "inactive"}, "a removed service runs, or is known")
    expect("programs.mine" in machine.path(CONFIG).read_text(), "removing took the configuration")
    expect(machine.path("/var/lib/eternal").exists() and machine.path("/var/log/eternal/daemon.log").exists(), "removing took the state")
    machine.run("dpkg", "--purge", "eternal")
    for path in ("/etc/eternal", "/var/lib/eternal", "/var/log/eternal"):
        expect(not machine.path(path).exists(), f"{path} outlives a purge")
    expect(not machine.run("systemctl", "--failed", "--no-legend").stdout, "a unit has failed")


def listing(machine):
    return set(machine.run("find", "/etc", "/usr", "/var", "-xdev", "-print").stdout.splitlines())
