"""The composition root: the only place that names implementations. Builds everything, runs it, stops it in order."""

import asyncio
import contextlib
import random
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.adapters.emqx.broker import EmqxBroker, open_emqx
from controller.adapters.keys import load_signing_key
from controller.adapters.logs import configure_logs, logger_for
from controller.adapters.mqtt.link import PahoMessages
from controller.adapters.mqtt.options import LinkOptions
from controller.adapters.policies.loader import load_policies
from controller.adapters.secret_files import read_secret
from controller.adapters.sqlite.lock import hold_store
from controller.adapters.sqlite.options import StoreOptions
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.adapters.system import SystemClock, UlidIds
from controller.api.context import Services
from controller.api.server import create_api
from controller.domain.facts import TYPES
from controller.domain.policy import PolicySet
from controller.domain.rules import Language
from controller.ports.errors import ControllerError, SettingsError
from controller.service.enforcer import Enforcer
from controller.service.fairness import Fairness, Share
from controller.service.housekeeping import Housekeeping
from controller.service.ingest import Ingest
from controller.service.keeper import Keeper
from controller.service.memory import settle
from controller.service.outbox import Outbox
from controller.service.reconciler import Reconciler
from controller.service.record_log import log_record
from controller.service.settings import MqttSettings, Settings
from controller.service.timers import Timers
from schemas.commands import COMMAND_PAYLOAD_TYPE
from schemas.signing import sign

_MAX_KEY: Final = 64 * 1024  # bytes
STOP_TIMEOUT: Final = 10.0  # seconds for what is under way
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What runs, in the order in which it is stopped."""

    link: PahoMessages
    ingest: Ingest
    timers: Timers
    reconciler: Reconciler
    outbox: Outbox
    housekeeping: Housekeeping
    store: SqliteStore


class _Server(uvicorn.Server):
    """uvicorn as a guest: signals belong to the process, not to it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def open_broker(settings: Settings) -> AsyncIterator[EmqxBroker]:
    """The broker's management API as configured.

    Raises:
        SettingsError: the key file cannot be used.
    """
    line = read_secret(settings.emqx.key_file, "emqx.key_file")
    key, separator, secret = line.partition(":")
    if not separator or not key or not secret:
        raise SettingsError(f"emqx.key_file: {settings.emqx.key_file} holds one line: key:secret")
    tls = None if settings.emqx.ca is None else ssl.create_default_context(cafile=str(settings.emqx.ca))
    async with open_emqx(settings.emqx.api, key, secret, clock=SystemClock(), tls=tls) as broker:
        yield broker


def _link_options(settings: Settings) -> LinkOptions:
    mqtt = settings.mqtt
    password = None if mqtt.password_file is None else read_secret(mqtt.password_file, "mqtt.password_file")
    for url in mqtt.servers:
        if url.startswith("mqtts:"):
            _check_tls_files(mqtt)
            break
    return LinkOptions(
        servers=mqtt.servers,
        client_id=mqtt.client_id,
        protocol=mqtt.protocol,
        username=mqtt.username,
        password=password,
        ca=mqtt.ca,
        certificate=mqtt.certificate,
        key=mqtt.key,
        session_expiry_seconds=int(mqtt.session_expiry),
        receive_maximum=mqtt.receive_maximum,
    )


async def _own_store(stack: contextlib.AsyncExitStack, settings: Settings, clock: SystemClock) -> SqliteStore:
    """The store, for this process alone until `stack` ends."""
    path, days = settings.store.path, float(settings.store.audit_days)
    stack.enter_context(hold_store(path))
    options = StoreOptions(audit_days=days, command_days=days)
    store = await open_store(path, now=clock.now, log=logger_for("store"), options=options)
    stack.push_async_callback(store.close)
    return store


def _check_tls_files(mqtt: MqttSettings) -> None:
    """Show a mistake at the start and not in a log at night.

    Raises:
        SettingsError: a file is missing, no certificate or key, not a pair, or a key that others can read.
    """
    if mqtt.key is not None:
        read_secret(mqtt.key, "mqtt.key", most=_MAX_KEY)
    try:
        context = ssl.create_default_context(cafile=mqtt.ca)
        if mqtt.certificate is not None:
            context.load_cert_chain(mqtt.certificate, mqtt.key, password=lambda: b"")
    except OSError as e:
        files = ", ".join(str(path) for path in (mqtt.ca, mqtt.certificate, mqtt.key) if path is not None)
        raise SettingsError(f"mqtt: the TLS files cannot be used ({files}): {e}") from e


def _signer(key: Ed25519PrivateKey) -> Callable[[bytes], bytes]:
    return lambda payload: sign(payload, COMMAND_PAYLOAD_TYPE, key)


class _Policies:
    """Loads and reloads what devices are judged by."""

    def __init__(self, settings: Settings) -> None:
        self.language = Language(TYPES)
        self._paths = settings.policy.paths

    def load(self) -> PolicySet:
        """Read all files.

        Raises:
            ControllerError: one of them has a mistake; nothing changes.
        """
        return load_policies(self._paths, self.language)


async def serve(settings: Settings, *, ready: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Run the controller until SIGTERM or SIGINT; SIGHUP reads the policies again.

    `ready` is called once with the API's URL when everything listens.

    Raises:
        ControllerError: it cannot start.
    """
    log = logger_for("app")
    loader = _Policies(settings)
    policies = loader.load()
    signing_key = load_signing_key(settings.commands.signing_key)
    link = PahoMessages(_link_options(settings), rand=random.random, log=logger_for("mqtt"))
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        store = await _own_store(stack, settings, clock)
        broker = await stack.enter_async_context(open_broker(settings))
        keeper = Keeper(store, policies, loader.language, clock, UlidIds(), settings.limits.max_devices)
        keeper.load(await store.devices())
        settle()
        accept_claimed, every = settings.identity.unsafe_accept_claimed, settings.reconcile.every
        enforcer = Enforcer(keeper, broker, link, _signer(signing_key), accept_claimed=accept_claimed)
        outbox = Outbox(keeper, enforcer, logger_for("outbox"), random.random)
        keeper.forward_effects_to(outbox.put)
        parts = _Parts(
            link,
            Ingest(link, keeper, logger_for("ingest"), _fairness(settings)),
            Timers(keeper, settings.posture.stale_after),
            Reconciler(keeper, broker, outbox, every, logger_for("reconciler"), settings.mqtt.client_id),
            outbox,
            Housekeeping(store, clock, logger_for("housekeeping")),
            store,
        )
        resumed = await outbox.resume()
        log("started", {"devices": len(keeper.devices), "effects": resumed, "policies": policies.version})

        def reload_policies() -> PolicySet:
            fresh = loader.load()
            keeper.use(fresh)
            log("policies loaded", {"version": fresh.version})
            return fresh

        await _run(parts, _services(parts, keeper, broker, settings, reload_policies), settings, ready)
    log("stopped", {})


def _services(
    parts: _Parts, keeper: Keeper, broker: EmqxBroker, settings: Settings, reload_policies: Callable[[], PolicySet]
) -> Services:
    return Services(
        keeper=keeper,
        store=parts.store,
        messages=parts.link,
        outbox=parts.outbox,
        reconciler=parts.reconciler,
        ingest=parts.ingest,
        broker=broker,
        settings=settings,
        started_at=keeper.clock.now(),
        reload_policies=reload_policies,
    )


def _fairness(settings: Settings) -> Fairness:
    return Fairness(Share(settings.limits.messages_per_second, settings.limits.message_burst))


async def _run(
    parts: _Parts, services: Services, settings: Settings, ready: Callable[[dict[str, Any]], None] | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload_quietly, services)
    listener = _listen(settings)
    server = _api_server(services, settings)
    log_record(services.keeper, logger_for("record"))
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(sockets=[listener]), name="api")
            tasks = [
                group.create_task(parts.link.run(), name="link"),
                group.create_task(parts.ingest.run(), name="ingest"),
                group.create_task(parts.timers.run(), name="timers"),
                group.create_task(parts.reconciler.run(), name="reconciler"),
                group.create_task(parts.outbox.run(), name="outbox"),
                group.create_task(parts.housekeeping.run(), name="housekeeping"),
            ]
            if ready is not None:
                host, port = listener.getsockname()[:2]
                ready({"api": f"{'https' if settings.api.certificate else 'http'}://{host}:{port}"})
            await stop.wait()
            server.should_exit = True
            for task in tasks:  # no new messages first, what is decided last
                task.cancel()
                await asyncio.wait([task], timeout=STOP_TIMEOUT)
            await asyncio.wait([serving], timeout=STOP_TIMEOUT)
            serving.cancel()
    finally:
        for number in (*_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _reload_quietly(services: Services) -> None:
    try:
        services.reload_policies()
    except ControllerError as e:
        logger_for("app")("policies not loaded, the old ones stay", {"error": str(e)})


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.api.host, settings.api.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as e:
        raise SettingsError(f"api.listen: cannot listen on {settings.api.listen}: {e.strerror}") from e


def _api_server(services: Services, settings: Settings) -> _Server:
    certificate, key = settings.api.certificate, settings.api.key
    config = uvicorn.Config(
        create_api(services),
        log_config=None,
        lifespan="off",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(STOP_TIMEOUT),
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
    )
    return _Server(config)


def run(settings: Settings, *, ready: Callable[[dict[str, Any]], None] | None = None) -> int:
    """Serve until stopped; the process's exit code.

    Raises:
        ControllerError: it cannot start, or a part of it failed for good.
    """
    configure_logs(settings.log.level, settings.log.format)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve(settings, ready=ready))
        except* ControllerError as group:
            raise _first(group) from group
    return 0


def _first(group: BaseExceptionGroup[ControllerError]) -> ControllerError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ControllerError)
    return error
