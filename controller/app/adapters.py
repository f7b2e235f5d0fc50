"""Opens what the services work with: store, MQTT link, EMQX API, keys, policies, update repository."""

import contextlib
import math
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.adapters.emqx.access import EmqxAccess
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.inspection import EmqxInspector
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.emqx.tables import EmqxTables
from controller.adapters.files import read_line, read_secret
from controller.adapters.keys import load_signing_key
from controller.adapters.logs import logger_for
from controller.adapters.mqtt.messages import PahoMessages
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.notifications.sender import NotificationSecrets, NotificationSender
from controller.adapters.policies.loader import compile_policies, load_policies, read_texts
from controller.adapters.probes import probe_context
from controller.adapters.revocation_marks import marks_path
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sql.store import SqlStore
from controller.adapters.sqlite.lock import hold_store
from controller.adapters.sqlite.store import open_store
from controller.adapters.system import SystemClock, UlidGenerator
from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.repository import TufUpdateRepository
from controller.adapters.x509.folder import ISSUING_KEY
from controller.adapters.x509.own_certificates import X509OwnCertificateFile, certificate_problem
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.facts import TYPES
from controller.domain.policy.model import PolicySet
from controller.ports.access import AccessBroker
from controller.ports.broker import BrokerControl, ContainmentBroker
from controller.ports.broker_setup import BrokerSetup
from controller.ports.broker_tables import BrokerTables
from controller.ports.certificates import AuthorityError, OwnCertificateFile
from controller.ports.clock import Clock, IdGenerator
from controller.ports.errors import SettingsError
from controller.ports.inspection import BrokerInspector
from controller.ports.leases import AllLeases, Leases
from controller.ports.log import Log
from controller.ports.messages import Messages
from controller.ports.notifications import Sender
from controller.ports.policies import PolicySetStore, PolicyTextReader, PolicyTexts
from controller.ports.rollouts import RolloutTargets
from controller.ports.updates import UpdateRepository
from controller.service.rollout.observations import PublishedTargets
from controller.service.settings.base import SettingsTable
from controller.service.settings.settings import MqttSettings, Settings, StoreSettings
from schemas.broker_address import BrokerAddress
from schemas.commands import COMMAND_PAYLOAD_TYPE
from schemas.signing import countersign, key_id, public_key_text, sign, to_be_signed
from schemas.topics import ALL_UP, PRESENCE, SHARED_UP

if TYPE_CHECKING:
    from controller.adapters.postgres.address import PostgresAddress

_PATIENCE: Final = 5.0  # seconds that a request waits for a store that is away
_MAX_KEY: Final = 64 * 1024  # bytes
PEER_REFUSED_WAIT: Final = 10.0  # seconds; a new controller's rules are written by the one that leads
PEER_KEEPALIVE: Final = 5  # seconds; a host that vanished holds its share of the messages for half as long again
_RENEWED: Final = "own-certificates"  # folder beside the store


@dataclass(frozen=True, slots=True)
class BrokerAdapters:
    """The broker's ports, as one implementation serves them."""

    control: BrokerControl
    tables: BrokerTables
    access: AccessBroker
    users: ContainmentBroker
    setup: BrokerSetup
    inspector: BrokerInspector


@dataclass(frozen=True, slots=True)
class Adapters:
    """The implementations behind the services; tests hand in others.

    `log` makes the log of a part, `load_policies` reads the policies again, `command_keys` are the public keys that
    devices trust. `updates` is absent where no repository is configured. `revocation_marks`: a file of this
    host, for an authority. `policy_sets`: where several controllers share the policies in force.
    """

    clock: Clock
    ids: IdGenerator
    rand: Callable[[], float]
    log: Callable[[str], Log]
    store: SqlStore
    revocation_marks: Path | None
    messages: Messages
    broker: BrokerAdapters
    language: CelEnvironment
    load_policies: Callable[[], PolicySet]
    sign: Callable[[bytes], bytes]
    command_keys: tuple[str, ...]
    updates: UpdateRepository | None
    targets: RolloutTargets
    sender: Sender
    own_certificates: tuple[OwnCertificateFile, ...] = ()
    leases: Leases = field(default_factory=AllLeases)
    policy_sets: tuple[PolicySetStore, PolicyTextReader] | None = None

    @property
    def requests(self) -> SqlStore:
        """The store for requests, which do not wait for ever; what runs by itself does."""
        return self.store.with_patience(_PATIENCE)


def own_certificates(settings: Settings) -> tuple[tuple[X509OwnCertificateFile, ...], Settings]:
    """The controller's own certificates, and the settings with the files in use in place of the configured ones.

    Raises:
        SettingsError: a configured certificate cannot be read, or a renewed one cannot be kept beside the store.
    """
    renewed = None if settings.authority.folder is None else settings.store.beside.parent / _RENEWED
    files: list[X509OwnCertificateFile] = []
    changed: dict[str, SettingsTable] = {}
    for use, table in (("mqtt", settings.mqtt), ("api", settings.api), ("updates", settings.updates)):
        if table.certificate is None or table.key is None:
            continue
        file = X509OwnCertificateFile(use, table.certificate, table.key, renewed)
        try:
            file.read()
        except AuthorityError as e:
            raise SettingsError(f"{use}.certificate: {e}") from e
        files.append(file)
        changed[use] = table.model_copy(update={"certificate": file.path})
    return tuple(files), settings.model_copy(update=changed)


async def open_adapters(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    policies: "PolicyLoader",
    certificates: tuple[OwnCertificateFile, ...],
) -> Adapters:
    """Opens everything as configured, until `stack` ends.

    Raises:
        ControllerError: a file of the configuration cannot be used, or the store cannot be opened.
    """
    key = load_signing_key(settings.commands.signing_key)
    clock = SystemClock()
    messages = PahoMessages(
        mqtt_options(settings),
        rand=random.random,
        log=logger_for("mqtt"),
        certificate_problem=lambda: certificate_problem(settings.mqtt.certificate, clock.now),
    )
    store = await own_store(stack, settings, clock)
    notifications = settings.notifications
    sender = NotificationSender(NotificationSecrets(notifications.secrets, notifications.mail_servers), clock.now)
    stack.callback(sender.close)
    leases = store.shared_leases or AllLeases(settings.controller.own_name, version("emqx-cordon"), clock.now())
    broker = emqx_adapters(await stack.enter_async_context(open_broker(settings, leases.lease_left)), settings)
    updates = None if settings.updates.folder is None else TufUpdateRepository(settings.updates.folder)
    return Adapters(
        clock=clock,
        ids=UlidGenerator(),
        rand=random.random,
        log=logger_for,
        store=store,
        revocation_marks=None if settings.authority.folder is None else marks_path(settings.store.beside),
        messages=messages,
        broker=broker,
        language=policies.language,
        load_policies=policies.load,
        sign=signer_of(settings, key),
        command_keys=(public_key_text(key.public_key()),),
        updates=updates,
        targets=PublishedTargets(updates),
        own_certificates=certificates,
        sender=sender,
        leases=leases,
        policy_sets=(_policy_sets(store), policies) if settings.has_peers else None,
    )


def _policy_sets(store: SqlStore) -> PolicySetStore:
    from controller.adapters.postgres.policy_sets import PostgresPolicySets

    return PostgresPolicySets(store)


class PolicyLoader:
    """Reads the configured policies."""

    def __init__(self, settings: Settings) -> None:
        self.language = CelEnvironment(TYPES)
        self._paths = settings.policy.paths

    def load(self) -> PolicySet:
        """Reads all files.

        Raises:
            ControllerError: one of them has a mistake.
        """
        return load_policies(self._paths, self.language)

    def read(self) -> PolicyTexts:
        """Reads all files as texts.

        Raises:
            ControllerError: one of them cannot be read.
        """
        return read_texts(self._paths)

    def compile(self, texts: PolicyTexts) -> PolicySet:
        """The policies of texts that this or another controller read.

        Raises:
            ControllerError: one of them has a mistake.
        """
        return compile_policies(texts, self.language)


async def own_store(stack: contextlib.AsyncExitStack, settings: Settings, clock: SystemClock) -> SqlStore:
    """The store, for this process alone until `stack` ends."""
    place, days = settings.store, float(settings.store.audit_days)
    options, log = StoreOptions(audit_days=days, command_days=days), logger_for("store")
    store: SqlStore
    if place.url is None:
        stack.enter_context(hold_store(place.path))
        store = await open_store(place.path, now=clock.now, log=log, options=options)
    else:
        from controller.adapters.postgres.store import open_store as open_postgres

        address = postgres_address(place)
        name, release = settings.controller.own_name, version("emqx-cordon")
        store = await open_postgres(address, name=name, version=release, now=clock.now, log=log, options=options)
    stack.push_async_callback(store.close)
    return store


def postgres_address(place: StoreSettings) -> "PostgresAddress":
    """Where the database is, with its password.

    Raises:
        SettingsError: the URL or the password cannot be used, or the driver is not installed.
    """
    if find_spec("psycopg") is None:
        raise SettingsError("store.url needs the driver of PostgreSQL: pip install 'emqx-cordon[postgres]'")
    from controller.adapters.postgres.address import PostgresAddress

    assert place.url is not None
    password = "" if place.password_file is None else read_line(place.password_file, "store.password_file")
    return PostgresAddress.parse(place.url, password)


@contextlib.asynccontextmanager
async def open_broker(
    settings: Settings, lease_left: Callable[[], float] = lambda: math.inf
) -> AsyncIterator[EmqxBroker]:
    """The broker's management API as configured; nothing is changed there once `lease_left` seconds are over.

    Raises:
        SettingsError: the key cannot be used.
    """
    line = read_line(settings.emqx.key_file, "emqx.key_file")
    key, separator, secret = line.partition(":")
    if not separator or not key or not secret:
        raise SettingsError(f"emqx.key_file: {settings.emqx.key_file} gives one line: key:secret")
    tls = None if settings.emqx.ca is None else ssl.create_default_context(cafile=str(settings.emqx.ca))
    clock = SystemClock()
    async with open_emqx(settings.emqx.api, key, secret, clock=clock, tls=tls, lease_left=lease_left) as broker:
        yield broker


def emqx_adapters(broker: EmqxBroker, settings: Settings) -> BrokerAdapters:
    """Every port over one connection pool; the inspector shows listeners the controller's own certificate."""
    api, mqtt = broker.api, settings.mqtt
    inspector = EmqxInspector(
        api,
        SystemClock(),
        controller_id=settings.client_id,
        ports=frozenset(BrokerAddress.parse(url).port for url in mqtt.servers),
        receive_maximum=mqtt.receive_maximum,
        context=lambda: probe_context(mqtt.certificate, mqtt.key),
        is_shared=settings.has_peers,
    )
    return BrokerAdapters(
        broker,
        EmqxTables(api, broker.cluster, broker.prefixes),
        EmqxAccess(api, EmqxTables(api, broker.cluster, broker.prefixes)),
        broker,
        EmqxSetup(api),
        inspector,
    )


def mqtt_options(settings: Settings) -> MqttOptions:
    mqtt = settings.mqtt
    password = None if mqtt.password_file is None else read_line(mqtt.password_file, "mqtt.password_file")
    if any(url.startswith("mqtts:") for url in mqtt.servers):
        _check_tls_files(mqtt)
    up = SHARED_UP if settings.has_peers else ALL_UP
    options = MqttOptions(
        subscriptions=(up, PRESENCE) if settings.identity.watch_presence else (up,),
        servers=mqtt.servers,
        client_id=settings.client_id,
        protocol=mqtt.protocol,
        username=mqtt.username,
        password=password,
        ca=mqtt.ca,
        certificate=mqtt.certificate,
        key=mqtt.key,
        session_expiry_seconds=int(mqtt.session_expiry),
        receive_maximum=mqtt.receive_maximum,
    )
    if not settings.has_peers:
        return options
    # A session of a share group that is kept without its controller would keep its share of the messages with it.
    return replace(
        options,
        session_expiry_seconds=0,
        keepalive_seconds=PEER_KEEPALIVE,
        refused_wait_seconds=PEER_REFUSED_WAIT,
    )


def _check_tls_files(mqtt: MqttSettings) -> None:
    """Fails at the start and not at the first connection.

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
    source = settings.commands.retiring_key
    return signer(key, None if source is None else load_signing_key(source))


def check_secret_files(settings: Settings) -> None:
    """Refuses to start with a key that others can read, before anything is opened.

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
