"""The settings of `cordon.toml`, checked when the file is read; errors name the file and the key."""

import re
import socket
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from controller.domain.guards.blast_radius import BlastRadiusLimits
from controller.domain.guards.guards import ProtectionRules
from controller.domain.policy.cel import MAX_EXPRESSION
from controller.domain.record_budget import BYTES_PER_DAY, ROWS_PER_DAY
from controller.ports.errors import SettingsError
from controller.service.ingest.rate_limit import MESSAGE_BURST, MESSAGES_PER_SECOND
from controller.service.settings.accounts import AccountSettings
from controller.service.settings.base import (
    ConfigKeyFile,
    ConfigPath,
    ConfigSecret,
    Duration,
    ListenAddress,
    SettingsTable,
    host_of,
    is_loopback,
    port_of,
    shown_address,
)
from controller.service.settings.notifications import NotificationSettings
from controller.service.settings.rollouts import RolloutSettings, UpdateSettings
from schemas.base import DEVICE_ID_PATTERN
from schemas.broker_address import BrokerAddress
from schemas.key_text import raw_public_key

ProtectedDeviceId = Annotated[str, StringConstraints(pattern=DEVICE_ID_PATTERN)]
ProtectedTag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]


def _mqtt_url(value: str) -> str:
    BrokerAddress.parse(value)
    return value


def _api_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("an API address is http(s)://host:port without a path")
    return value.rstrip("/")


MqttUrl = Annotated[str, BeforeValidator(_mqtt_url)]
ApiUrl = Annotated[str, BeforeValidator(_api_url)]


class MqttSettings(SettingsTable):
    """How the controller reaches the broker."""

    servers: Annotated[tuple[MqttUrl, ...], Field(min_length=1, max_length=16)]
    client_id: Annotated[str, Field(pattern=DEVICE_ID_PATTERN)] = "cordon-controller"
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    ca: ConfigPath | None = None
    certificate: ConfigPath | None = None
    key: ConfigKeyFile | None = None
    username: str | None = None
    password_file: ConfigSecret | None = None
    session_expiry: Duration = 7200.0
    receive_maximum: Annotated[int, Field(ge=1, le=65535)] = 1000

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self


class EmqxSettings(SettingsTable):
    """The management API; `key_file` gives one line `key:secret`, `audit` names policies for the broker."""

    api: Annotated[tuple[ApiUrl, ...], Field(min_length=1, max_length=16)]
    key_file: ConfigSecret
    ca: ConfigPath | None = None
    audit: tuple[ConfigPath, ...] = ()


class StoreSettings(SettingsTable):
    """`path` is an SQLite file, or `url` a PostgreSQL database; what is old is deleted after `audit_days`.

    `folder`: with `url`, where this host keeps the key of second factors, marks of revocations, renewed certificates.
    """

    file: Annotated[ConfigPath | None, Field(alias="path")] = None
    url: Annotated[str, StringConstraints(max_length=2000)] | None = None
    password_file: ConfigSecret | None = None
    folder: ConfigPath | None = None
    audit_days: Annotated[int, Field(ge=1, le=36_500)] = 400

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.file is None) == (self.url is None):
            raise ValueError("the store is either a path (SQLite) or a url (PostgreSQL)")
        if self.url is not None and self.folder is None:
            raise ValueError("a url needs a folder, where this host keeps files of its own")
        if self.url is None and (self.password_file is not None or self.folder is not None):
            raise ValueError("password_file and folder belong to a url")
        return self

    @property
    def path(self) -> Path:
        """The file of a store on SQLite.

        Raises:
            SettingsError: the store is on PostgreSQL.
        """
        if self.file is None:
            raise SettingsError("this works on a store in a file, and this one is on PostgreSQL (store.url)")
        return self.file

    @property
    def beside(self) -> Path:
        """The path whose folder has the host's own files, and whose name they begin with."""
        return self.path if self.folder is None else self.folder / "cordon"


def _public_key(text: str) -> str:
    raw_public_key(text)
    return text


class PolicySettings(SettingsTable):
    """`knowledge_keys`: keys of which one has to sign a knowledge file; without any, an import needs no signature."""

    paths: Annotated[tuple[ConfigPath, ...], Field(min_length=1)]
    knowledge_keys: Annotated[tuple[Annotated[str, AfterValidator(_public_key)], ...], Field(max_length=16)] = ()


IpNetwork = IPv4Network | IPv6Network
MAX_PROXIES: Final = 64


class ApiSettings(SettingsTable):
    """Beyond loopback `listen` needs a certificate and key, or `unsafe_plain_http`.

    `max_connections` and `max_connections_per_address` count open connections. `trusted_proxies`: whose
    `X-Forwarded-For` is believed, at every listener; `max_connections_per_address` does not apply to them.
    """

    listen: ListenAddress = "127.0.0.1:8480"
    certificate: ConfigPath | None = None
    key: ConfigKeyFile | None = None
    unsafe_plain_http: bool = False
    max_connections: Annotated[int, Field(ge=16, le=20_000)] = 384
    max_connections_per_address: Annotated[int, Field(ge=1, le=20_000)] = 64
    trusted_proxies: Annotated[tuple[IpNetwork, ...], Field(max_length=MAX_PROXIES)] = ()

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.certificate is None and not self.unsafe_plain_http and not is_loopback(self.host):
            raise ValueError(
                f"tokens would be sent in clear text to {self.listen}: set certificate and key, or listen on loopback "
                "behind a TLS proxy, or set unsafe_plain_http = true"
            )
        return self

    @property
    def host(self) -> str:
        return host_of(self.listen)

    @property
    def port(self) -> int:
        """0 takes a free one."""
        return port_of(self.listen)

    @property
    def page(self) -> str:
        """Where a browser reaches it: on this machine by `localhost`, the only name without TLS that has sessions."""
        host = "localhost" if is_loopback(self.host) else self.host
        return f"{'http' if self.certificate is None else 'https'}://{shown_address(host, self.port)}"


class CommandSettings(SettingsTable):
    """`signing_key` is an Ed25519 key in PEM, made by `cordon init`."""

    signing_key: ConfigSecret
    retiring_key: ConfigSecret | None = None  # signs too, for devices that do not know its successor yet


class PostureSettings(SettingsTable):
    """A device without contact for `stale_after` is stale."""

    stale_after: Duration = 300.0


class ControllerSettings(SettingsTable):
    """`name` tells controllers on one store apart, and is part of the MQTT client id there; by default the host's.

    `url`: where the others reach this one's API while it leads; by default the address of `[api] listen`. `ca`: the
    authority of their certificates.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,40}$")] | None = None

    url: ApiUrl | None = None
    ca: ConfigPath | None = None

    @property
    def own_name(self) -> str:
        return self.name or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:40]


class ReconcileSettings(SettingsTable):
    every: Annotated[Duration, Field(ge=1.0)] = 5.0


class IdentitySettings(SettingsTable):
    """`unsafe_accept_claimed` lets policies contain clients that the broker did not authenticate.

    `watch_presence` subscribes to the broker's presence messages, to detect clones.
    """

    unsafe_accept_claimed: bool = False
    watch_presence: bool = True


class LimitSettings(SettingsTable):
    """`messages_per_second` and `message_burst` limit one device on one channel, `audit_...` its share of the audit."""

    max_devices: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    messages_per_second: Annotated[float, Field(ge=1.0, le=100_000.0)] = MESSAGES_PER_SECOND
    message_burst: Annotated[int, Field(ge=20, le=1_000_000)] = MESSAGE_BURST
    audit_rows_per_day: Annotated[int, Field(ge=100, le=10_000_000)] = ROWS_PER_DAY
    audit_bytes_per_day: Annotated[int, Field(ge=64 * 1024, le=1 << 40)] = BYTES_PER_DAY


class GuardSettings(SettingsTable):
    """A device is protected by its id, by a tag, or where the expression `protected_if` holds."""

    max_devices: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    max_percent: Annotated[float, Field(gt=0.0, le=100.0)] = 10.0
    window: Annotated[Duration, Field(ge=1.0)] = 3600.0
    protected_devices: Annotated[tuple[ProtectedDeviceId, ...], Field(max_length=10_000)] = ()
    protected_tags: Annotated[tuple[ProtectedTag, ...], Field(max_length=100)] = ()
    protected_if: Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION)] | None = None
    by_hand: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    by_hand_window: Annotated[Duration, Field(ge=1.0)] = 3600.0
    request_expiry: Annotated[Duration, Field(ge=60.0)] = 86_400.0

    @property
    def bounds(self) -> BlastRadiusLimits:
        return BlastRadiusLimits(self.max_devices, self.max_percent, self.window)

    @property
    def protection(self) -> ProtectionRules:
        return ProtectionRules(frozenset(self.protected_devices), frozenset(self.protected_tags))


class LogSettings(SettingsTable):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


MAX_CLASSES: Final = 64  # classes that must sign
_Class = Annotated[str, StringConstraints(pattern=r"^(?:\*|[A-Za-z0-9._:/-]{1,64})$")]


class ReportSettings(SettingsTable):
    """`must_sign`: device classes that must sign their reports, `*` for all; `max_age` of a signed report.

    `must_answer`: a contained device is released only after it answered a nonce, also where its agent cannot.
    """

    must_sign: Annotated[tuple[_Class, ...], Field(max_length=MAX_CLASSES)] = ()
    max_age: Annotated[Duration, Field(ge=60.0)] = 3600.0
    must_answer: bool = False


MAX_WATCHED: Final = 16


def _crl_location(text: str) -> str:
    if not text.startswith(("/", "http://", "https://")):
        raise ValueError("a revocation list is an absolute path or an address http(s)://...")
    return text


class AuthoritySettings(SettingsTable):
    """`folder` is made by `cordon ca init`; without it this controller issues no certificates."""

    folder: ConfigPath | None = None
    passphrase_file: ConfigSecret | None = None
    crl_url: Annotated[str, Field(pattern=r"^http://[^/\s]+$")] | None = None
    crl_listen: ListenAddress | None = None
    crl_folder: ConfigPath | None = None
    device_lifetime: Annotated[Duration, Field(ge=10.0, le=397 * 86_400.0)] = 30 * 86_400.0
    server_lifetime: Annotated[Duration, Field(ge=10.0, le=397 * 86_400.0)] = 90 * 86_400.0
    crl_lifetime: Annotated[Duration, Field(ge=60.0, le=30 * 86_400.0)] = 86_400.0
    readmit_after: Annotated[Duration, Field(ge=0.0, le=86_400.0)] = 900.0
    device_servers: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    watch: Annotated[tuple[Annotated[str, AfterValidator(_crl_location)], ...], Field(max_length=MAX_WATCHED)] = ()
    watch_issuers: ConfigPath | None = None
    watch_every: Annotated[Duration, Field(ge=1.0, le=86_400.0)] = 300.0

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.watch and self.folder is None:
            raise ValueError("watch needs an authority: make one with `cordon ca init`, even if it issues nothing")
        if self.watch and self.watch_issuers is None:
            raise ValueError("watch needs watch_issuers: without them no signature of a list can be verified")
        return self


class Settings(SettingsTable):
    """The whole of `cordon.toml`; relative paths are relative to the file."""

    mqtt: MqttSettings
    emqx: EmqxSettings
    store: StoreSettings
    policy: PolicySettings
    commands: CommandSettings
    api: ApiSettings = ApiSettings()
    controller: ControllerSettings = ControllerSettings()
    posture: PostureSettings = PostureSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    identity: IdentitySettings = IdentitySettings()
    limits: LimitSettings = LimitSettings()
    guards: GuardSettings = GuardSettings()
    reports: ReportSettings = ReportSettings()
    log: LogSettings = LogSettings()
    updates: UpdateSettings = UpdateSettings()
    authority: AuthoritySettings = AuthoritySettings()
    rollouts: RolloutSettings = RolloutSettings()
    accounts: AccountSettings = AccountSettings()
    notifications: NotificationSettings = NotificationSettings()

    @model_validator(mode="after")
    def _check_client_id(self) -> Self:
        if re.fullmatch(DEVICE_ID_PATTERN, self.client_id) is None:
            raise ValueError(f"mqtt.client_id and controller.name make the client id {self.client_id}: 64 are too few")
        return self

    @property
    def has_peers(self) -> bool:
        """Whether other controllers may work with the same store."""
        return self.store.url is not None

    @property
    def client_id(self) -> str:
        """The controller's MQTT client id, of this one alone."""
        return f"{self.mqtt.client_id}-{self.controller.own_name}" if self.has_peers else self.mqtt.client_id


_WRITABLE: Final = 0o022  # by group or others


def load_settings(path: Path) -> Settings:
    """Reads and checks a configuration file.

    Raises:
        SettingsError: it cannot be read, others can change it, it is not TOML, or a value is not valid.
    """
    try:
        mode = path.stat().st_mode & 0o777
        if mode & _WRITABLE:
            raise SettingsError(f"{path}: others can change it (mode {mode:04o}); mend it with: chmod go-w {path}")
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as e:
        raise SettingsError(f"{path}: cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingsError(f"{path}: not TOML: {e}") from e
    try:
        return Settings.model_validate(raw, context=path.resolve().parent)
    except ValidationError as e:
        lines = [f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in e.errors()]
        raise SettingsError("\n".join(lines)) from e
