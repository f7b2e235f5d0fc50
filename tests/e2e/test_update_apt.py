"""A real apt upgrade: published by `cordon update`, ordered by `cordon command`, confirmed by the device's next report.

Controller, agent and broker are processes of their own. apt and dpkg are this machine's, on a root of their own; what
the package depends on comes from an apt repository that this test signed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.certs import Certs
from tests.support.cli import cordon
from tests.support.debs import apt_root, deb, signed_source, stop_gpg_agent
from tests.support.deployment import Deployment, open_deployment
from tests.support.mosquitto import free_port
from tests.support.processes import ModuleProcess
from tests.support.standin import StandInProcess
from tests.support.updates import PASSPHRASE
from tests.support.waiting import eventually

DEVICE = "edge-apt"
SCAN_SECONDS = 90.0  # for the packages of a real machine
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("dpkg-deb") is None or shutil.which("gpg") is None,
        reason="needs root, dpkg-deb and gpg",
    ),
]


class Publisher:
    """A repository with its offline keys."""

    def __init__(self, folder: Path) -> None:
        secret = folder / "passphrase"
        secret.write_text(PASSPHRASE + "\n")
        secret.chmod(0o600)
        self.updates = folder / "updates"
        self._common = ["--repository", str(self.updates), "--keys", str(folder / "keys")]
        self._common += ["--targets-passphrase-file", str(secret)]
        self._root = ("--root-passphrase-file", str(secret))

    async def init(self) -> None:
        await _cordon("update", "init", *self._common, *self._root)

    async def publish(self, file: Path, version: str, *more: str) -> None:
        kind = ("--kind", "package", "--version", version, "--for", "gateway")
        await _cordon("update", "publish", str(file), *kind, *more, *self._common)


async def _cordon(*words: str, status: int = 0) -> str:
    code, out, error = await cordon(*words)
    assert code == status, (words, out, error)
    return out


@contextlib.asynccontextmanager
async def _agent(deployment: Deployment, root: Path, url: str, first: Path) -> AsyncIterator[None]:
    certs, folder = deployment.certs, deployment.folder
    certificate, key = certs.client(DEVICE)
    servers = [f"mqtts://{host}:{port}" for host, port in deployment.emqx.tls]
    config = folder / "agent.toml"
    config.write_text(
        f"""device_id = "{DEVICE}"
[mqtt]
servers = {json.dumps(servers)}
ca = "{certs.ca}"
certificate = "{certificate}"
key = "{key}"
[report]
heartbeat_every = "1s"
[commands]
controller_keys = ["{deployment.public_key}"]
allow = ["update.install", "update.rollback"]
[agent]
state_dir = "{folder / "agent-state"}"
[updates]
url = "{url}"
root = "{first}"
use_certificate = true
device_class = "gateway"
"""
    )
    agent = await ModuleProcess.start("agent", "tests.support.root_agent", [str(config), str(root)], folder)
    try:
        yield
    except BaseException as e:
        e.add_note(f"the agent's log:\n{agent.log_tail()}")
        raise
    finally:
        await agent.stop()


async def _order(deployment: Deployment, name: str, version: str, *, status: int = 0) -> dict[str, Any]:
    """The command that orders this version, when it has ended."""
    connection = ("--url", deployment.operator.url, "--token", deployment.token)
    found = json.loads(await _cordon("update", "show", name, version, "--output", "json", *connection))
    until = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    params = [f"target={found['path']}", f"version={version}", f"sha256={found['sha256']}"]
    params += [f"length={found['length']}", f"deadline={until}"]
    wait = ("--wait", "--output", "json", *connection)
    out = await _cordon("command", "send", DEVICE, "update.install", *params, *wait, status=status)
    return dict(json.loads(out))


async def _reported(deployment: Deployment, name: str, attempted: str, outcome: str) -> dict[str, Any]:
    """The device's report about a name, once it shows this outcome; an earlier report may show a stage before it."""

    async def entry() -> dict[str, Any]:
        report = await deployment.operator.call("GET", f"/devices/{DEVICE}/report")
        entries = {one["name"]: one for one in report.get("software", {}).get("entries", ())}
        found = dict(entries.get(name, {}))
        return found if (found.get("attempted"), found.get("outcome")) == (attempted, outcome) else {}

    return await eventually(entry, f"{DEVICE} reports {name} {attempted} as {outcome}")


async def test_offered_verified_installed_and_confirmed_by_the_next_report(
    tmp_path: Path, emqx: StandInProcess, certs: Certs
) -> None:
    root = apt_root(tmp_path / "root")
    source = signed_source(tmp_path / "source", [deb(tmp_path, "edge-lib", "3.0")], root)
    publisher = Publisher(tmp_path)
    await publisher.init()
    for version in ("1.0-1", "1.1-1"):
        await publisher.publish(deb(tmp_path / version, "edge-tool", version, depends="edge-lib (>= 3)"), version)
    bad = deb(tmp_path / "bad", "edge-tool", "1.2-1", depends="edge-lib (>= 3)")
    await publisher.publish(bad, "1.2-1", "--health", "command:/bin/false", "--health-timeout", "1")
    installed = root / "usr/share/edge-tool/version"
    listen = f"127.0.0.1:{free_port()}"
    # The repository is served over TLS, to devices with a certificate only.
    more = (
        f'\n[updates]\nfolder = "{publisher.updates}"\nlisten = "{listen}"\ncertificate = "{certs.server_cert}"\n'
        f'key = "{certs.server_key}"\nclient_ca = "{certs.ca}"\n'
    )
    try:
        async with open_deployment(tmp_path, emqx, certs, more=more) as deployment:
            first = publisher.updates / "repository/metadata/1.root.json"
            async with _agent(deployment, root, f"https://{listen}", first):

                async def is_known() -> bool:
                    return DEVICE in await deployment.operator.devices(DEVICE)

                await eventually(is_known, "the device has reported", SCAN_SECONDS)
                for version in ("1.0-1", "1.1-1"):
                    command = await _order(deployment, "edge-tool", version)
                    assert (command["state"], command["detail"]["phase"]) == ("succeeded", "confirmed"), command
                    assert installed.read_text() == version
                    entry = await _reported(deployment, "edge-tool", version, "confirmed")
                    assert entry["version"] == version
                assert (root / "usr/share/edge-lib/version").read_text() == "3.0"
                command = await _order(deployment, "edge-tool", "1.2-1", status=1)
                assert (command["state"], command["detail"]["phase"]) == ("failed", "rolled_back"), command
                entry = await _reported(deployment, "edge-tool", "1.2-1", "rolled_back")
                assert (entry["version"], entry["previous"]) == ("1.1-1", "1.0-1")
                assert installed.read_text() == "1.1-1"
    finally:
        stop_gpg_agent(source)
