"""The controller of a demonstration: prepared by `cordon init` and run by `cordon serve`, as processes."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.adapters.keys import load_signing_key
from controller.demo.access import DemoBrokerAccess
from controller.demo.certificates import write_secret
from controller.demo.operator import DemoApiClient
from controller.demo.options import DemoError, DemoTimings
from controller.demo.processes import ChildProcess
from controller.packs import pack_path
from schemas.signing import public_key_text

MODULE: Final = "controller.main"
START_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
_LISTEN: Final = "127.0.0.1:0"


@dataclass(frozen=True, slots=True)
class DemoBrokerApi:
    """The broker's HTTP API: base URLs, key and secret."""

    urls: tuple[str, ...]
    key: str
    secret: str


@dataclass(frozen=True, slots=True)
class PreparedController:
    """What `cordon init` left: the configuration, the operator's token, the public key that devices trust."""

    config: Path
    token: str
    public_key: str


async def prepare(
    folder: Path,
    client_id: str,
    management: DemoBrokerApi,
    access: DemoBrokerAccess,
    pace: DemoTimings,
    *,
    accept_claimed: bool,
    pack: str = "demo",
    more: str = "",
) -> PreparedController:
    """Run `cordon init` in `folder`, with the policies of `pack`, the times of `pace` and `more` tables of TOML.

    Raises:
        DemoError: it failed; its log says why.
    """
    (folder / "policies").mkdir()
    shutil.copyfile(pack_path(pack), folder / "policies" / f"{pack}.yaml")
    arguments = ["init", "--dir", str(folder), "--yes", "--listen", _LISTEN, "--client-id", client_id]
    for url in management.urls:
        arguments += ["--emqx", url]
    arguments += ["--emqx-key", management.key, *_mqtt_arguments(folder, client_id, access)]
    secrets = {"CORDON_EMQX_SECRET": management.secret}
    init = await ChildProcess.start("cordon-init", MODULE, arguments, folder, secrets)
    try:
        await init.finished(START_SECONDS)
    finally:
        await init.stop()
    init.log.unlink()  # it did its work, and told the token
    config = folder / "cordon.toml"
    with config.open("a") as file:
        file.write(_shorter_times(pace, accept_claimed=accept_claimed) + more)
    token = (folder / "operator.token").read_text().strip()
    key = load_signing_key(folder / "command-signing.key")
    return PreparedController(config, token, public_key_text(key.public_key()))


def _mqtt_arguments(folder: Path, client_id: str, access: DemoBrokerAccess) -> list[str]:
    found: list[str] = []
    for server in access.servers:
        found += ["--mqtt", server]
    if access.ca is not None:
        found += ["--mqtt-ca", str(access.ca.absolute())]
    if access.certificate_for is not None:
        certificate, key = access.certificate_for(client_id)
        found += ["--mqtt-cert", str(certificate.absolute()), "--mqtt-key", str(key.absolute())]
    if access.user is not None:
        password = folder / "mqtt.password"
        write_secret(password, (access.password or "").encode())
        found += ["--mqtt-user", access.user, "--mqtt-password-file", str(password)]
    return found


def _shorter_times(pace: DemoTimings, *, accept_claimed: bool) -> str:
    sections = [
        f"[posture]\nstale_after = {json.dumps(pace.stale_after)}",
        f"[reconcile]\nevery = {json.dumps(pace.reconcile_every)}",
        # A few devices of a few are a large part: what the guards are for is shown elsewhere.
        "[guards]\nmax_devices = 1000000\nmax_percent = 100.0\nby_hand = 1000000",
        '[log]\nformat = "json"',
    ]
    if accept_claimed:
        sections.append("[identity]\nunsafe_accept_claimed = true")
    return "".join(f"\n{section}\n" for section in sections)


async def serve(config: Path, folder: Path, name: str = "cordon-serve") -> tuple[ChildProcess, str]:
    """Start `cordon serve`; the process and its API's URL, as soon as it listens.

    Raises:
        DemoError: it did not start.
    """
    child = await ChildProcess.start(name, MODULE, ["serve", "--config", str(config)], folder)
    try:
        told = await child.first_line(START_SECONDS)
    except BaseException:
        await child.stop()
        raise
    return child, str(told["api"])


async def until_ready(operator: DemoApiClient, child: ChildProcess) -> None:
    """Wait until the controller can do its work.

    Raises:
        DemoError: it ended, or was not ready in time; with its own reasons.
    """
    why = ""
    try:
        async with asyncio.timeout(START_SECONDS):
            while child.exit_code is None:
                is_ready, why = await operator.is_ready()
                if is_ready:
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as e:
        raise DemoError(f"the controller was not ready within {START_SECONDS:g} s: {why}") from e
    raise DemoError(f"the controller ended with exit code {child.exit_code}")
