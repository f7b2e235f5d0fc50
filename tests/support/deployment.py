"""A stand-in, a controller made by `cordon init` and `cordon serve`, and a simulated fleet, all as processes."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.keys import load_signing_key
from controller.adapters.system import SystemClock
from controller.packs import pack_path
from schemas.signing import public_key_text
from tests.support.certs import Certs
from tests.support.cli import cordon
from tests.support.emqx_calls import PATIENT
from tests.support.operator import OperatorClient
from tests.support.processes import ModuleProcess
from tests.support.simulated_fleet import SimulatedFleetProcess
from tests.support.standin import StandInProcess

CONTROLLER_ID: Final = "cordon-controller"
PREFIX: Final = "dev-"
START_SECONDS: Final = 40.0
WAIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations as the programs read them."""

    heartbeat_every: str = "500ms"
    reconnect_max: str = "400ms"
    stale_after: str = "2s"
    reconcile_every: str = "1s"


@dataclass(slots=True)
class Deployment:
    """The running parts; `operator` calls the controller that runs now."""

    folder: Path
    config: Path
    emqx: StandInProcess
    certs: Certs
    timings: Timings
    broker: EmqxBroker
    stack: AsyncExitStack
    controller: ModuleProcess
    operator: OperatorClient
    starts: int = 1

    @property
    def token(self) -> str:
        return _token(self.config)

    @property
    def public_key(self) -> str:
        """The key that devices verify commands with."""
        return public_key_text(load_signing_key(self.config.parent / "command-signing.key").public_key())

    async def kill_controller(self) -> None:
        """Kills it with SIGKILL and waits for its end."""
        self.controller.kill()
        await self.controller.stop()

    async def start_controller(self) -> None:
        """Starts a new process over the same store."""
        self.starts += 1
        name = f"cordon-serve-{self.starts}"
        self.controller, self.operator = await _serve(self.config, self.folder, self.stack, name)

    async def start_fleet(self, devices: int, more: Sequence[str] = ()) -> SimulatedFleetProcess:
        """Connects simulated devices, each with its own certificate; returns when each has a receipt.

        `more` are options of the simulator.
        """
        width = max(3, len(str(devices)))  # as the simulator names them
        ids = [f"{PREFIX}{number:0{width}d}" for number in range(1, devices + 1)]
        for device in ids:
            self.certs.client(device)
        servers = ",".join(f"mqtts://{host}:{port}" for host, port in self.emqx.tls)
        arguments = [
            "simulate", "--devices", str(devices), "--prefix", PREFIX, "--protocol", "5", "--control",
            "--servers", servers, "--ca", str(self.certs.ca), "--cert-dir", str(self.certs.folder),
            "--controller-key", self.public_key, "--heartbeat-every", self.timings.heartbeat_every,
            "--reconnect-max", self.timings.reconnect_max, *more,
        ]  # fmt: skip
        fleet = SimulatedFleetProcess(
            await ModuleProcess.start("simulate", "device_agent.main", arguments, self.folder), ids
        )
        reading = asyncio.get_running_loop().create_task(fleet.read())

        async def end() -> None:
            reading.cancel()
            await asyncio.wait([reading])
            await fleet.stop()

        self.stack.push_async_callback(end)
        await fleet.ready()
        for device in ids:
            await fleet.observations.wait_for(device, "receipt", seconds=WAIT_SECONDS, verdict="accepted")
        return fleet


_DEFAULT_TIMINGS: Final = Timings()


@asynccontextmanager
async def open_deployment(
    folder: Path,
    emqx: StandInProcess,
    certs: Certs,
    *,
    pack: str = "demo",
    api: Sequence[str] = (),
    timings: Timings = _DEFAULT_TIMINGS,
    more: str = "",
    store_url: str = "",
) -> AsyncIterator[Deployment]:
    """A ready controller over `emqx`; with `store_url` the store that `cordon init` makes is moved there.

    `api` are other addresses by which it reaches the broker's API, `more` further TOML of its configuration.
    """
    config = await make_config(folder, emqx, certs, pack=pack, api=api, timings=timings, more=more, store_url=store_url)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT)
        )
        controller, operator = await _serve(config, folder, stack, "cordon-serve")
        yield Deployment(folder, config, emqx, certs, timings, broker, stack, controller, operator)


async def make_config(
    folder: Path,
    emqx: StandInProcess,
    certs: Certs,
    *,
    pack: str = "demo",
    api: Sequence[str] = (),
    timings: Timings = _DEFAULT_TIMINGS,
    more: str = "",
    store_url: str = "",
) -> Path:
    """Returns the path of the configuration of a controller that was not started yet; see `open_deployment`."""
    config = await _init(folder / "cordon", emqx, certs, tuple(api or emqx.api_urls))
    shutil.copyfile(pack_path(pack), config.parent / "policies" / f"{pack}.yaml")
    with config.open("a") as file:
        file.write(_settings(timings) + more)
    if store_url:
        await _move_store(config, store_url)
        config.write_text(with_name(config.read_text(), certs, "c1"))
    return config


def with_name(text: str, certs: Certs, name: str, before: str = "") -> str:
    """Returns a configuration with the name of a controller on PostgreSQL, and with the certificate of its client."""
    client_ids = (f"{CONTROLLER_ID}-{one}" if one else CONTROLLER_ID for one in (before, name))
    for old, new in zip(*map(certs.client, client_ids), strict=True):
        text = text.replace(json.dumps(str(old)), json.dumps(str(new)))
    return text.replace(f'\n[controller]\nname = "{before}"\n', "") + f'\n[controller]\nname = "{name}"\n'


async def _init(home: Path, emqx: StandInProcess, certs: Certs, api: Sequence[str]) -> Path:
    """Runs `cordon init`; returns the path of cordon.toml."""
    (home / "policies").mkdir(parents=True)
    secret = home / "emqx.secret"
    secret.touch(mode=0o600)
    secret.write_text(emqx.secret)
    certificate, key = certs.client(CONTROLLER_ID)
    argv = [
        "init", "--dir", str(home), "--yes", "--listen", "127.0.0.1:0", "--client-id", CONTROLLER_ID,
        "--emqx-key", emqx.key, "--emqx-secret-file", str(secret),
        "--mqtt-ca", str(certs.ca), "--mqtt-cert", str(certificate), "--mqtt-key", str(key),
    ]  # fmt: skip
    for url in api:
        argv += ["--emqx", url]
    for host, port in emqx.tls:
        argv += ["--mqtt", f"mqtts://{host}:{port}"]
    status, out, error = await cordon(*argv)
    assert status == 0, error + out
    return home / "cordon.toml"


async def _move_store(config: Path, url: str) -> None:
    """As an operator moves a store to PostgreSQL: copies it, and says where it is."""
    before = config.parent / "cordon.db"
    status, out, error = await cordon("store", "copy", "--from", f"sqlite://{before}", "--to", url)
    assert status == 0, error + out
    _name_store(config, url)


def _name_store(config: Path, url: str) -> None:
    text = config.read_text()
    line = next(line for line in text.splitlines() if line.startswith("path = ") and "cordon.db" in line)
    config.write_text(text.replace(line, f"url = {json.dumps(url)}\nfolder = {json.dumps(str(config.parent))}"))
    (config.parent / "cordon.db").unlink()


def _settings(timings: Timings) -> str:
    return (
        f"\n[posture]\nstale_after = {json.dumps(timings.stale_after)}\n"
        f"\n[reconcile]\nevery = {json.dumps(timings.reconcile_every)}\n"
        # One device of three is more than the guards allow by default.
        "\n[guards]\nmax_devices = 1000000\nmax_percent = 100.0\nby_hand = 1000000\n"
        '\n[log]\nformat = "json"\n'
    )


async def _serve(config: Path, folder: Path, stack: AsyncExitStack, name: str) -> tuple[ModuleProcess, OperatorClient]:
    """Runs `cordon serve`; returns when the controller is ready."""
    process = await ModuleProcess.start(name, "controller.main", ["serve", "--config", str(config)], folder)
    stack.push_async_callback(process.stop)
    operator = OperatorClient((await process.answer(START_SECONDS))["api"], _token(config))
    await until_ready(operator, process)
    return process, operator


def _token(config: Path) -> str:
    return (config.parent / "operator.token").read_text().strip()


async def until_ready(operator: OperatorClient, process: ModuleProcess) -> None:
    """Waits until the controller can work.

    Raises:
        AssertionError: the process ended, or the time is over.
    """
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await operator.is_ready():
                assert process.exit_code is None, f"{process.name} ended:\n{process.log_tail()}"
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as e:
        raise AssertionError(f"{process.name} was not ready within {START_SECONDS:g} s:\n{process.log_tail()}") from e
