"""A real apt upgrade: published by `cordon update`, ordered by `cordon command`, confirmed by the device's next report.

Controller, agent and broker are processes of their own. apt and dpkg are this machine's, on a root of their own; what
the package depends on comes from an apt repository that this test signed.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.cli.app import run_safely
from tests.support.certs import Certs
from tests.support.debs import apt_root, deb, signed_source, stop_gpg_agent
from tests.support.deployment import House, open_house
from tests.support.standin import StandInProcess
from tests.support.updates import PASSPHRASE

DEVICE = "edge-apt"
WAIT = 60.0  # seconds until the test gives up; nothing is measured with it
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dpkg-deb") is None or shutil.which("gpg") is None,
    reason="needs root, dpkg-deb and gpg",
)


async def _cordon(*words: str, ok: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller.main", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == ok, (words, out.decode(), err.decode())
    return out.decode()


class Publisher:
    """Whoever holds the offline keys, on a machine of theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        secret = folder / "passphrase"
        secret.write_text(PASSPHRASE + "\n")
        secret.chmod(0o600)
        self.updates = folder / "updates"
        self._common = ["--repository", str(self.updates), "--keys", str(folder / "keys")]
        self._common += ["--targets-passphrase-file", str(secret)]
        self._root = ["--root-passphrase-file", str(secret)]

    def init(self) -> None:
        """The key ceremony."""
        assert run_safely(["update", "init", *self._common, *self._root]) == 0

    def publish(self, file: Path, version: str, *more: str) -> None:
        """One package."""
        kind = ("--kind", "package", "--version", version, "--for", "gateway")
        assert run_safely(["update", "publish", str(file), *kind, *more, *self._common]) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _serve_updates(house: House, publisher: Publisher, certs: Certs) -> str:
    """Let the controller serve the repository over TLS, to devices with a certificate only; the address."""
    listen = f"127.0.0.1:{_free_port()}"
    with house.prepared.config.open("a") as file:
        file.write(
            f'\n[updates]\nfolder = "{publisher.updates}"\nlisten = "{listen}"\ncertificate = "{certs.server_cert}"\n'
            f'key = "{certs.server_key}"\nclient_ca = "{certs.ca}"\n'
        )
    await house.kill_controller()
    await house.start_controller()
    return f"https://{listen}"


@contextlib.asynccontextmanager
async def _agent(house: House, folder: Path, root: Path, certs: Certs, url: str, first: Path) -> AsyncIterator[None]:
    certificate, key = certs.client(DEVICE)
    config = folder / "agent.toml"
    config.write_text(
        f"""device_id = "{DEVICE}"
[mqtt]
servers = {json.dumps(house.access.servers)}
ca = "{certs.ca}"
certificate = "{certificate}"
key = "{key}"
[report]
heartbeat_every = "1s"
[commands]
controller_keys = ["{house.prepared.public_key}"]
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
    with (folder / "agent.log").open("wb") as log:
        agent = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.root_agent", str(config), str(root), stdout=log, stderr=log
        )
    try:
        yield
    except BaseException as e:
        e.add_note(f"the agent said:\n{(folder / 'agent.log').read_text()[-4000:]}")
        raise
    finally:
        agent.terminate()
        await agent.wait()


async def _order(house: House, name: str, version: str, *, ok: int = 0) -> dict[str, Any]:
    api = f"http://{house.operator._host}:{house.operator._port}"
    config = ("--url", api, "--token-file", str(house.prepared.config.parent / "operator.token"))
    found = json.loads(await _cordon("update", "show", name, version, "--output", "json", *config))
    until = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    params = [f"target={found['path']}", f"version={version}", f"sha256={found['sha256']}"]
    params += [f"length={found['length']}", f"deadline={until}"]
    wait = ("--wait", "--output", "json", *config)
    return dict(json.loads(await _cordon("command", "send", DEVICE, "update.install", *params, *wait, ok=ok)))


async def _reported(house: House, name: str, attempted: str) -> dict[str, Any]:
    """What the device's report tells of a name, once it tells of this version."""
    async with asyncio.timeout(WAIT):
        while True:
            if DEVICE in await house.operator.devices(DEVICE):
                section = (await house.operator.report(DEVICE)).get("software", {})
                entries = {one["name"]: one for one in section.get("entries", ())}
                if name in entries and entries[name]["attempted"] == attempted:
                    return dict(entries[name])
            await asyncio.sleep(0.2)


async def test_offered_verified_installed_and_confirmed_by_the_next_report(
    tmp_path: Path, emqx: StandInProcess, certs: Certs
) -> None:
    root = apt_root(tmp_path / "root")
    source = signed_source(tmp_path / "source", [deb(tmp_path, "edge-lib", "3.0")], root)
    publisher = Publisher(tmp_path)
    publisher.init()
    for version in ("1.0-1", "1.1-1"):
        file = deb(tmp_path / version, "edge-tool", version, depends="edge-lib (>= 3)")
        publisher.publish(file, version)
    bad = deb(tmp_path / "bad", "edge-tool", "1.2-1", depends="edge-lib (>= 3)")
    publisher.publish(bad, "1.2-1", "--health", "command:/bin/false", "--health-timeout", "1")
    place = root / "usr/share/edge-tool/version"
    try:
        async with open_house(tmp_path, emqx=emqx, certs=certs) as house:
            url = await _serve_updates(house, publisher, certs)
            first = publisher.updates / "repository/metadata/1.root.json"
            async with _agent(house, tmp_path, root, certs, url, first):
                async with asyncio.timeout(WAIT):
                    while DEVICE not in await house.operator.devices(DEVICE):
                        await asyncio.sleep(0.2)
                for version in ("1.0-1", "1.1-1"):
                    command = await _order(house, "edge-tool", version)
                    assert (command["state"], command["detail"]["phase"]) == ("succeeded", "confirmed"), command
                    assert place.read_text() == version
                    entry = await _reported(house, "edge-tool", version)
                    assert (entry["version"], entry["outcome"]) == (version, "confirmed")
                assert (root / "usr/share/edge-lib/version").read_text() == "3.0"
                command = await _order(house, "edge-tool", "1.2-1", ok=1)
                assert (command["state"], command["detail"]["phase"]) == ("failed", "rolled_back"), command
                entry = await _reported(house, "edge-tool", "1.2-1")
                assert (entry["version"], entry["outcome"], entry["previous"]) == ("1.1-1", "rolled_back", "1.0-1")
                assert place.read_text() == "1.1-1"
    finally:
        stop_gpg_agent(source)
