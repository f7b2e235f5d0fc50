"""Makes each part of the controller from the settings; beside `app.py`, the only place that names implementations."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.users.broker import EmqxUsers
from controller.adapters.files import read_secret
from controller.adapters.keys import load_signing_key
from controller.adapters.logs import logger_for
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.policies.loader import load_policies
from controller.adapters.sqlite.certificates import SqliteCertificateRegistry
from controller.adapters.sqlite.lock import hold_store
from controller.adapters.sqlite.options import StoreOptions
from controller.adapters.sqlite.report_keys import SqliteReportKeys
from controller.adapters.sqlite.rollouts import SqliteRolloutStore
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.adapters.system import SystemClock
from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.repository import TufUpdateRepository
from controller.adapters.x509.folder import ISSUING_KEY
from controller.api.context import Services
from controller.api.downloads import create_downloads
from controller.api.metrics import ContainmentDurations
from controller.api.server import create_api
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.cel import CelEnvironment, ExpressionError
from controller.domain.policy.facts import TYPES
from controller.domain.policy.model import PolicySet
from controller.ports.broker import BrokerControl
from controller.ports.errors import SettingsError
from controller.ports.messages import Messages
from controller.ports.updates import UpdateRepository
from controller.service.containment.identity_check import IdentityCheck
from controller.service.containment.operator_actions import OperatorActions, OperatorLimits
from controller.service.containment.users import UserContainments
from controller.service.containment.waivers import WaiverService
from controller.service.fleet_state import FleetState
from controller.service.ingest.ingest import Ingest
from controller.service.ingest.keyring import DeviceKeyring
from controller.service.ingest.rate_limit import RateLimit, RateLimiter
from controller.service.ingest.signatures import ReportSignatureVerifier, ReportSigningServices, SignatureRequirements
from controller.service.maintenance import MetadataRefresher
from controller.service.rollout.engine import RolloutEngine
from controller.service.rollout.observations import PublishedTargets, RolloutObservations
from controller.service.rollout.operations import RolloutOperations
from controller.service.rollout.triggers import RolloutTrigger
from controller.service.settings.settings import MqttSettings, Settings
from schemas.commands import COMMAND_PAYLOAD_TYPE
from schemas.signing import countersign, key_id, sign, to_be_signed
from schemas.topics import ALL_UP, PRESENCE

_MAX_KEY: Final = 64 * 1024  # bytes
STOP_TIMEOUT: Final = 10.0  # seconds for what is under way


class EmbeddedUvicornServer(uvicorn.Server):
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


def link_options(settings: Settings) -> MqttOptions:
    mqtt = settings.mqtt
    password = None if mqtt.password_file is None else read_secret(mqtt.password_file, "mqtt.password_file")
    for url in mqtt.servers:
        if url.startswith("mqtts:"):
            _check_tls_files(mqtt)
            break
    heard = (ALL_UP, PRESENCE) if settings.identity.watch_presence else (ALL_UP,)
    return MqttOptions(
        subscriptions=heard,
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


async def own_store(stack: contextlib.AsyncExitStack, settings: Settings, clock: SystemClock) -> SqliteStore:
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


async def user_parts(
    settings: Settings, keeper: FleetState, store: SqliteStore, broker: EmqxBroker
) -> UserContainments:
    """What contains users by their name, with those that the store holds."""
    users = UserContainments(
        keeper, store, EmqxUsers(broker.api, keeper.clock), settings.reconcile.every, logger_for("users")
    )
    await users.load()
    return users


def signer(key: Ed25519PrivateKey, retiring: Ed25519PrivateKey | None = None) -> Callable[[bytes], bytes]:
    """Signs commands; with a `retiring` key by both, so that devices which know only the old one obey too."""
    if retiring is None:
        return lambda payload: sign(payload, COMMAND_PAYLOAD_TYPE, key)
    name = key_id(retiring.public_key())

    def both(payload: bytes) -> bytes:
        second = retiring.sign(to_be_signed(COMMAND_PAYLOAD_TYPE, payload))
        return countersign(sign(payload, COMMAND_PAYLOAD_TYPE, key), {name: second})

    return both


def signer_of(settings: Settings, key: Ed25519PrivateKey) -> Callable[[bytes], bytes]:
    """What signs commands, as configured.

    Raises:
        SettingsError: the retiring key cannot be used.
    """
    path = settings.commands.retiring_key
    return signer(key, None if path is None else load_signing_key(path))


class PolicyLoader:
    """Loads and reloads what devices are judged by."""

    def __init__(self, settings: Settings) -> None:
        self.language = CelEnvironment(TYPES)
        self._paths = settings.policy.paths

    def load(self) -> PolicySet:
        """Read all files.

        Raises:
            ControllerError: one of them has a mistake; nothing changes.
        """
        return load_policies(self._paths, self.language)


def guards_of(settings: Settings) -> FleetGuards:
    """What the guards are set to, before the store says what happened of late."""
    guards = settings.guards
    return FleetGuards(
        BlastRadius(guards.bounds),
        protection=guards.protection,
        fresh_for=settings.posture.stale_after,
        must_answer=settings.reports.must_answer,
    )


async def guard_parts(
    keeper: FleetState, store: SqliteStore, settings: Settings
) -> tuple[OperatorActions, WaiverService]:
    """The guards, with what the store remembers of them.

    Raises:
        SettingsError: `guards.protected_if` is no expression.
    """
    guards, books = settings.guards, await store.guard_books()
    keeper.take_charges((device, at) for ledger, device, at in books.charges if not ledger)
    try:
        waiving = WaiverService(keeper, guards.protected_if)
    except ExpressionError as e:
        raise SettingsError(f"guards.protected_if: {e}") from e
    waiving.load(books)
    by_hand = OperatorLimits(guards.by_hand, guards.by_hand_window, guards.request_expiry)
    guarding = OperatorActions(keeper, by_hand, logger_for("guards"))
    guarding.load(books)
    return guarding, waiving


def fairness(settings: Settings) -> RateLimiter:
    return RateLimiter(RateLimit(settings.limits.messages_per_second, settings.limits.message_burst))


def listen(settings: Settings) -> socket.socket:
    return _bind(settings.api.host, settings.api.port, f"api.listen: cannot listen on {settings.api.listen}")


def _bind(host: str, port: int, trouble: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as e:
        raise SettingsError(f"{trouble}: {e.strerror}") from e


class UpdateServer:
    """Serves the repository of updates to devices, beside the API and on a port of its own."""

    def __init__(self, settings: Settings) -> None:
        updates = settings.updates
        assert updates.folder is not None
        served = updates.folder / "repository"
        config = uvicorn.Config(
            create_downloads(served, mib_per_second=updates.mib_per_second, most=updates.max_downloads),
            log_config=None,
            lifespan="off",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # a device that downloads goes on where it was
            ssl_certfile=None if updates.certificate is None else str(updates.certificate),
            ssl_keyfile=None if updates.key is None else str(updates.key),
            ssl_ca_certs=None if updates.client_ca is None else str(updates.client_ca),
            ssl_cert_reqs=ssl.CERT_NONE if updates.client_ca is None else ssl.CERT_REQUIRED,
        )
        self._server = EmbeddedUvicornServer(config)
        self._listener = _bind(updates.host, updates.port, f"updates.listen: cannot listen on {updates.listen}")
        host, port = self._listener.getsockname()[:2]
        self.url = f"{'http' if updates.certificate is None else 'https'}://{host}:{port}"

    async def run(self) -> None:
        """Until cancelled."""
        serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._listener]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self._server.should_exit = True
            await serving
            raise


async def rollout_parts(
    keeper: FleetState,
    store: SqliteStore,
    updates: UpdateRepository | None,
    observations: RolloutObservations,
    settings: Settings,
) -> tuple[tuple[tuple[str, RolloutEngine | RolloutTrigger], ...], RolloutOperations]:
    """What carries rollouts on and starts those of policies, and the desk; those that had begun are taken up."""
    targets = PublishedTargets(updates)
    rollouts = RolloutEngine(
        keeper, SqliteRolloutStore(store), targets, observations, settings.rollouts, logger_for("rollouts")
    )
    await rollouts.load()
    desk = RolloutOperations(keeper, rollouts)
    by_rules = RolloutTrigger(keeper, desk, settings.rollouts, logger_for("rollouts"))
    return (("rollouts", rollouts), ("rollouts of policies", by_rules)), desk


def update_parts(
    settings: Settings, clock: SystemClock
) -> tuple[TufUpdateRepository | None, MetadataRefresher | None, UpdateServer | None]:
    """The repository of updates, what keeps it valid and what serves it, as far as they are configured."""
    if settings.updates.folder is None:
        return None, None, None
    repository = TufUpdateRepository(settings.updates.folder)
    refresher = MetadataRefresher(repository, clock, settings.updates.refresh_every, logger_for("updates"))
    return repository, refresher, None if settings.updates.listen is None else UpdateServer(settings)


def api_server(services: Services, durations: ContainmentDurations) -> EmbeddedUvicornServer:
    settings = services.settings
    certificate, key = settings.api.certificate, settings.api.key
    config = uvicorn.Config(
        create_api(services, durations),
        log_config=None,
        lifespan="off",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(STOP_TIMEOUT),
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
    )
    return EmbeddedUvicornServer(config)


def ingest_parts(
    settings: Settings, store: SqliteStore, keeper: FleetState, broker: BrokerControl, link: Messages
) -> tuple[Ingest, ReportSigningServices]:
    """What takes messages in, the keys of devices, and what looks at every report."""
    registry = None if settings.authority.folder is None else SqliteCertificateRegistry(store)
    book = SqliteReportKeys(store, registry)
    keyring = DeviceKeyring(
        book, IdentityCheck(broker, link, keeper.clock).grade, store, keeper.clock, logger_for("report keys")
    )
    rules = SignatureRequirements(settings.reports.max_age, frozenset(settings.reports.must_sign))
    seals = ReportSignatureVerifier(keyring, keeper.get, rules)
    seals.load(keeper.devices.values())
    ingest = Ingest(link, keeper, logger_for("ingest"), fairness(settings), seals)
    return ingest, ReportSigningServices(keyring, seals)


def check_secret_files(settings: Settings) -> None:
    """Refuse to start with a key that others can read, before anything is opened.

    Raises:
        SettingsError: with the command that mends it.
    """
    for what, path in _keys(settings):
        read_secret(path, what, most=_MAX_KEY)


def _keys(settings: Settings) -> Iterator[tuple[str, Path]]:
    if settings.api.key is not None:
        yield "api.key", settings.api.key
    if settings.updates.key is not None:
        yield "updates.key", settings.updates.key
    if settings.updates.folder is not None:
        for path in sorted(RepositoryFolder(settings.updates.folder).online.glob("*.pem")):
            yield "updates.folder", path
    if settings.authority.folder is not None:
        yield "authority.folder", settings.authority.folder / ISSUING_KEY
