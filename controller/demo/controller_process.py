"""The controller of a demonstration: prepared by `cordon init` and run by `cordon serve`, as processes."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.adapters.files import write_file
from controller.adapters.keys import load_signing_key
from controller.demo.api_client import DemoApiClient
from controller.demo.broker import DemoBroker
from controller.demo.options import DemoError, DemoTimings
from controller.demo.processes import ChildProcess
from controller.demo.runner import DemoRun
from controller.packs import pack_path
from schemas.signing import public_key_text

MODULE: Final = "controller.main"
_PACK: Final = "demo"
_START_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
_SECRET_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class PreparedController:
    """The result of `cordon init`: configuration, operator's token, and the public key that devices verify with."""

    config: Path
    token: str
    public_key: str


async def prepare(
    run: DemoRun, broker: DemoBroker, client_id: str, timings: DemoTimings, *more: str
) -> PreparedController:
    """Runs `cordon init`; `more` are further tables of the configuration, in TOML.

    Raises:
        DemoError: it failed.
    """
    folder = run.folder / "cordon"
    (folder / "policies").mkdir(parents=True)
    shutil.copyfile(pack_path(_PACK), folder / "policies" / f"{_PACK}.yaml")
    arguments = ["init", "--dir", str(folder), "--yes", "--listen", "127.0.0.1:0", "--client-id", client_id]
    for url in broker.api:
        arguments += ["--emqx", url]
    arguments += ["--emqx-key", broker.api_key, *_mqtt_arguments(folder, client_id, broker)]
    init = await run.start("cordon-init", MODULE, arguments, {"CORDON_EMQX_SECRET": broker.api_secret})
    await init.finished(_START_SECONDS)
    init.log.unlink()  # it succeeded, and its output holds the token
    config = folder / "cordon.toml"
    with config.open("a") as file:
        file.write("".join(f"\n{table}\n" for table in (*_settings(timings), *more)))
    token = (folder / "operator.token").read_text().strip()
    key = load_signing_key(folder / "command-signing.key")
    return PreparedController(config, token, public_key_text(key.public_key()))


def _mqtt_arguments(folder: Path, client_id: str, broker: DemoBroker) -> list[str]:
    arguments: list[str] = []
    for server in broker.servers:
        arguments += ["--mqtt", str(server)]
    if broker.ca is not None:
        arguments += ["--mqtt-ca", str(broker.ca.absolute())]
    if broker.certificate_for is not None:
        certificate, key = broker.certificate_for(client_id)
        arguments += ["--mqtt-cert", str(certificate.absolute()), "--mqtt-key", str(key.absolute())]
    if broker.user is not None:
        password = folder / "mqtt.password"
        write_file(password, (broker.password or "").encode(), _SECRET_MODE, replace=False)
        arguments += ["--mqtt-user", broker.user, "--mqtt-password-file", str(password)]
    return arguments


def _settings(timings: DemoTimings) -> tuple[str, ...]:
    return (
        f"[posture]\nstale_after = {json.dumps(timings.stale_after)}",
        f"[reconcile]\nevery = {json.dumps(timings.reconcile_every)}",
        # A few devices are a large part of a small fleet, which the guards would not allow.
        "[guards]\nmax_devices = 1000000\nmax_percent = 100.0\nby_hand = 1000000",
        '[log]\nformat = "json"',
    )


async def serve(run: DemoRun, prepared: PreparedController) -> tuple[ChildProcess, DemoApiClient]:
    """Runs `cordon serve`; returns once the controller is ready.

    Raises:
        DemoError: it is not ready in time, with the controller's reasons; or it ended.
    """
    child = await run.start("cordon-serve", MODULE, ["serve", "--config", str(prepared.config)])
    client = DemoApiClient(str((await child.first_line(_START_SECONDS))["api"]), prepared.token)
    reasons = ""
    try:
        async with asyncio.timeout(_START_SECONDS):
            while child.exit_code is None:
                is_ready, reasons = await client.readiness()
                if is_ready:
                    return child, client
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as e:
        raise DemoError(f"the controller was not ready within {_START_SECONDS:g} s: {reasons}") from e
    raise DemoError(f"the controller ended with exit code {child.exit_code}")
