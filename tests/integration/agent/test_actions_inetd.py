"""`service.disable` for a service of a running inetd, checked over the network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.mosquitto import free_port

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Runs in a mount namespace with a copy of /etc: a real inetd, reached over the network, and the action.
_INETD: Final = """
import json, os, signal, socket, subprocess, sys, time
from device_agent.actions.service import DisableService
from device_agent.host.system import System

port = int(sys.argv[1])
with open("/etc/services", "a") as services:
    services.write(f"\\ncordontest {port}/tcp\\n")
with open("/etc/inetd.conf", "w") as config:
    config.write("cordontest stream tcp nowait root /bin/echo echo here\\n")

def answer():
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                return connection.recv(16).decode()
        except ConnectionRefusedError:
            time.sleep(0.02)
    return "refused"

daemon = subprocess.Popen(["inetd", "-i", "/etc/inetd.conf"])
try:
    told = [answer()]
    action, params = DisableService(System(is_root_user=True)), {"name": "cordontest"}
    plan = action.plan(params)
    action.apply(params, plan.before)
    verified = action.verify(params, plan.before)
    while answer() != "refused":
        time.sleep(0.05)
    told.append("refused")
    action.undo(params, plan.before)
    told.append(answer())
finally:
    daemon.terminate()
    daemon.wait()
print(json.dumps([told, dict(plan.before), verified.is_reached, open("/etc/inetd.conf").read()]))
"""


@needs_root
@pytest.mark.skipif(shutil.which("inetd") is None, reason="needs inetd (Debian: openbsd-inetd)")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare: /etc is not touched")
def test_a_service_of_a_running_inetd_is_disabled_and_restored(tmp_path: Path) -> None:
    shutil.copytree(
        "/etc", tmp_path / "etc", symlinks=True, ignore=shutil.ignore_patterns("ssl", "shadow*", "alternatives")
    )
    script = tmp_path / "inetd_test.py"
    script.write_text(_INETD)
    inner = 'mount --bind "$0" /etc && exec "$1" "$2" "$3"'
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        inner,
        str(tmp_path / "etc"),
        sys.executable,
        str(script),
        str(free_port()),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100, env=environment)
    if "mount" in done.stderr and done.returncode != 0 and not done.stdout:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    told, before, is_reached, config = json.loads(done.stdout)
    assert told == ["here\n", "refused", "here\n"]
    assert (before["was"], before["inetd"], is_reached) == ("enabled, active", "cordontest", True)
    assert config == "cordontest stream tcp nowait root /bin/echo echo here\n"
