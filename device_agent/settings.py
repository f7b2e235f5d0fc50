"""The agent's configuration: one TOML file, read once, every error naming file and key."""

import os
import re
import socket
import stat
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from device_agent.errors import SettingsError
from device_agent.host.secrets import read_secret
from schemas.base import DEVICE_ID_PATTERN, MAX_DEVICE_ID, DeviceId
from schemas.broker_address import BrokerAddress
from schemas.commands import ActionName
from schemas.durations import duration_text, parse_duration
from schemas.key_text import raw_public_key
from schemas.secret_sources import (
    OutsideSecret,
    SecretSource,
    forbidden_modes,
    key_file,
    secret_source,
    why_unreadable,
)

DEFAULT_STATE_DIR: Final = Path("/var/lib/cordon-agent")
_WRITABLE: Final = 0o022  # by group or others
_MAX_CONFIG_BYTES: Final = 256 * 1024
_MAX_SERVERS: Final = 16
_MAX_KEYS: Final = 16
_MAX_ALLOW: Final = 64
_MAX_FOLDERS: Final = 24
_MAX_CRL_URLS: Final = 8
_MAX_PATHS: Final = 64
_MAX_WATCHED: Final = 16
_WATCH: Final = r"^(wazuh|ossec|suricata|snort):/.+$"

MqttProtocol = Literal["auto", "5", "3.1.1"]
Severity = Literal["info", "low", "medium", "high", "critical"]


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value, milliseconds=True)
    if isinstance(value, (int, float)):
        raise ValueError("a duration needs its unit, such as 90s")  # noqa: TRY004 - pydantic reports ValueError only
    return value  # the model refuses it


def _text(seconds: float) -> str:
    return duration_text(seconds, milliseconds=True)


def _validate_server(text: str) -> str:
    BrokerAddress.parse(text)
    return text


def _validate_key(text: str) -> str:
    raw_public_key(text)
    return text


def _secret(value: Any) -> SecretSource:
    return value if isinstance(value, OutsideSecret) else secret_source(str(value))


def _key_file(value: Any) -> Path:
    return key_file(str(value))


_Secret = Annotated[Path | OutsideSecret, BeforeValidator(_secret)]
_Duration = Annotated[float, BeforeValidator(_seconds), PlainSerializer(_text, when_used="json")]


class _SettingsModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MqttSettings(_SettingsModel):
    """How to reach the broker."""

    servers: Annotated[
        tuple[Annotated[str, AfterValidator(_validate_server)], ...], Field(min_length=1, max_length=_MAX_SERVERS)
    ]
    protocol: MqttProtocol = "auto"
    ca: Path | None = None
    certificate: Path | None = None
    key: Annotated[Path, BeforeValidator(_key_file)] | None = None
    key_passphrase_file: _Secret | None = None
    username: Annotated[str, Field(max_length=256)] | None = None
    password_file: _Secret | None = None
    keepalive: Annotated[_Duration, Field(ge=5, le=3600)] = 30.0
    connect_timeout: Annotated[_Duration, Field(ge=0.1, le=120)] = 10.0

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs username")
        return self

    @property
    def broker_addresses(self) -> tuple[BrokerAddress, ...]:
        """The servers, parsed."""
        return tuple(BrokerAddress.parse(text) for text in self.servers)


class IdentitySettings(_SettingsModel):
    """Whether the agent renews its certificate by itself."""

    renew: bool = False


class ReportSettings(_SettingsModel):
    """How often the agent scans and reports, in seconds."""

    scan_every: Annotated[_Duration, Field(ge=0.1, le=86400)] = 300.0
    heartbeat_every: Annotated[_Duration, Field(ge=0.1, le=86400)] = 60.0
    receipt_timeout: Annotated[_Duration, Field(ge=0.1, le=3600)] = 30.0
    sign_reports: bool = False  # with the key of [mqtt]


class CommandSettings(_SettingsModel):
    """The keys whose commands are accepted, and the allowed actions; without both, no command runs."""

    controller_keys: Annotated[
        tuple[Annotated[str, AfterValidator(_validate_key)], ...], Field(max_length=_MAX_KEYS)
    ] = ()
    allow: Annotated[tuple[ActionName, ...], Field(max_length=_MAX_ALLOW)] = ()
    operator_keys: Annotated[
        tuple[Annotated[str, AfterValidator(_validate_key)], ...], Field(max_length=_MAX_KEYS)
    ] = ()
    two_signatures: Annotated[tuple[ActionName | Literal["*"], ...], Field(max_length=_MAX_ALLOW)] = ()
    change_keys: bool = True

    @model_validator(mode="after")
    def _check_operator_keys(self) -> Self:
        if self.two_signatures and not self.operator_keys:
            raise ValueError("two_signatures needs operator_keys: without them there is no second signature")
        return self


def _validate_web_address(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https"):
        raise ValueError(f"an address is written http://... or https://..., not {text!r}")
    return text


class KeySettings(_SettingsModel):
    """Where private keys are searched."""

    paths: Annotated[tuple[Path, ...], Field(max_length=_MAX_FOLDERS)] = ()


class CertificateSettings(_SettingsModel):
    """Where certificates are searched, and how they are verified."""

    paths: Annotated[tuple[Path, ...], Field(max_length=_MAX_FOLDERS)] = ()
    trust_store: Path | None = None
    crl: Annotated[tuple[Path, ...], Field(max_length=_MAX_FOLDERS)] = ()
    crl_urls: Annotated[
        tuple[Annotated[str, AfterValidator(_validate_web_address)], ...], Field(max_length=_MAX_CRL_URLS)
    ] = ()
    ocsp: bool = False
    ocsp_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], Field(max_length=_MAX_FOLDERS)] = ()


class AgentSettings(_SettingsModel):
    """Where the agent keeps its state."""

    state_dir: Path = DEFAULT_STATE_DIR


class ToolSettings(_SettingsModel):
    """Hardening tools: where their results are, and which of them the agent runs itself."""

    lynis_report: Path | None = None
    openscap_results: Annotated[tuple[str, ...], Field(max_length=_MAX_PATHS)] = ()
    run: Annotated[tuple[Literal["lynis", "openscap"], ...], Field(max_length=2)] = ()
    run_every: Annotated[_Duration, Field(ge=3600, le=90 * 86400)] = 86400.0
    openscap_content: Path | None = None
    openscap_profile: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _check_tools(self) -> Self:
        if "openscap" in self.run and self.openscap_content is None:
            raise ValueError("running openscap needs openscap_content")
        return self


class IntrusionSettings(_SettingsModel):
    """Intrusion monitors whose alerts are followed, and how many events are published."""

    watch: Annotated[tuple[Annotated[str, Field(pattern=_WATCH)], ...], Field(max_length=_MAX_WATCHED)] = ()
    min_severity: Severity = "low"
    poll: Annotated[_Duration, Field(ge=0.1, le=3600)] = 5.0
    repeat_after: Annotated[_Duration, Field(ge=0.1, le=86400)] = 300.0
    events_per_minute: Annotated[int, Field(ge=1, le=60)] = 6
    failed_logins: Annotated[int, Field(ge=0, le=10_000)] = 5
    failed_logins_within: Annotated[_Duration, Field(ge=1, le=86400)] = 600.0


class IntegritySettings(_SettingsModel):
    """Files that are compared with a baseline."""

    paths: Annotated[tuple[Annotated[str, Field(pattern=r"^/")], ...], Field(max_length=_MAX_PATHS)] = ()
    every: Annotated[_Duration, Field(ge=0.1, le=86400)] = 3600.0
    max_files: Annotated[int, Field(ge=1, le=20_000)] = 5000
    max_mib: Annotated[int, Field(ge=1, le=16_384)] = 256


class UpdateSettings(_SettingsModel):
    """The repository of signed updates, and the properties that updates match; without `url` and `root` none."""

    url: Annotated[str, AfterValidator(_validate_web_address)] | None = None
    root: Path | None = None
    ca: Path | None = None
    use_certificate: bool = False
    folder: Path | None = None
    device_class: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{0,64}$")] = ""
    hardware: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:,/-]{1,64}$")], ...], Field(max_length=64)
    ] = ()
    ask_user: bool = False
    image_hook: Path | None = None
    min_bytes_per_second: Annotated[int, Field(ge=0, le=1_000_000_000)] = 512

    @model_validator(mode="after")
    def _check_url_and_root(self) -> Self:
        if (self.url is None) != (self.root is None):
            raise ValueError("url and root belong together")
        return self


class Settings(_SettingsModel):
    """The configuration file."""

    device_id: DeviceId
    mqtt: MqttSettings
    report: ReportSettings = ReportSettings()
    commands: CommandSettings = CommandSettings()
    agent: AgentSettings = AgentSettings()
    keys: KeySettings = KeySettings()
    certificates: CertificateSettings = CertificateSettings()
    tools: ToolSettings = ToolSettings()
    intrusion: IntrusionSettings = IntrusionSettings()
    integrity: IntegritySettings = IntegritySettings()
    updates: UpdateSettings = UpdateSettings()
    identity: IdentitySettings = IdentitySettings()

    @property
    def updates_folder(self) -> Path:
        """The folder of everything about updates."""
        return self.updates.folder or self.agent.state_dir / "updates"

    @model_validator(mode="after")
    def _check_signing_key(self) -> Self:
        if self.report.sign_reports and self.mqtt.key is None:
            raise ValueError("report.sign_reports needs the device's key: set mqtt.certificate and mqtt.key")
        return self


def load(path: Path) -> Settings:
    """Reads and validates a configuration file and the files that it names.

    Raises:
        SettingsError: naming file and key.
    """
    try:
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        if mode & _WRITABLE:
            raise SettingsError(
                f"{path}: other users can write to it (mode {mode:04o}); fix it with: chmod go-w {path}"
            )
        if status.st_size > _MAX_CONFIG_BYTES:
            raise SettingsError(f"{path}: larger than {_MAX_CONFIG_BYTES} bytes")
        settings = Settings.model_validate(tomllib.loads(path.read_text("utf-8-sig")))
    except OSError as e:
        raise SettingsError(f"{path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingsError(f"{path}: not TOML: {e}") from e
    except ValidationError as e:
        raise SettingsError(f"{path}: {_first_error(e)}") from e
    _check_files(path, settings)
    return settings


def warnings(settings: Settings) -> tuple[str, ...]:
    """Returns what is valid but probably a mistake: unknown actions in the allow-list.

    Another version of the agent may have these actions, so they must not prevent the start.
    """
    from schemas.actions import unknown_action_problem

    names = settings.commands.allow
    return tuple(f"commands.allow: {why}; it allows nothing" for name in names if (why := unknown_action_problem(name)))


def default_device_id() -> str:
    """Returns the host name as a valid device id."""
    return device_id_of(socket.gethostname(), "unnamed")


def device_id_of(name: str, otherwise: str) -> str:
    """Returns a host name as a valid device id; `otherwise` where nothing of it is valid."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:MAX_DEVICE_ID]
    return name if re.fullmatch(DEVICE_ID_PATTERN, name) else otherwise


def read_key_passphrase(mqtt: MqttSettings) -> str | None:
    """Returns the passphrase of the device's key; None where none is configured (SettingsError: as `read_secret`)."""
    source = mqtt.key_passphrase_file
    return None if source is None else read_secret(source, "mqtt.key_passphrase_file")


def read_password(mqtt: MqttSettings) -> str | None:
    """Returns the password at the broker; None where none is configured (SettingsError: as `read_secret`)."""
    return None if mqtt.password_file is None else read_secret(mqtt.password_file, "mqtt.password_file")


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "no such key"
    return f"{key}: {message}"


def _check_files(config: Path, settings: Settings) -> None:
    mqtt = settings.mqtt
    for key, path in (
        ("ca", mqtt.ca),
        ("certificate", mqtt.certificate),
        ("key", mqtt.key),
        ("password_file", mqtt.password_file),
        ("key_passphrase_file", mqtt.key_passphrase_file),
    ):
        if not isinstance(path, Path):
            continue
        if not os.access(path, os.R_OK) or not path.is_file():
            why = why_unreadable(path, OSError(0, "not a readable file"))
            raise SettingsError(f"{config}: mqtt.{key}: {why}")
        mode = stat.S_IMODE(path.stat().st_mode)
        if key in {"key", "password_file", "key_passphrase_file"} and mode & forbidden_modes(path):
            text = f"{path} is readable by other users (mode {mode:04o}); fix it with: chmod 600 {path}"
            raise SettingsError(f"{config}: mqtt.{key}: {text}")
    if mqtt.certificate is not None:
        _check_name(config, mqtt.certificate, settings.device_id)


def _check_name(config: Path, certificate: Path, device_id: str) -> None:
    from device_agent.host.certificate import IdentityError, read_common_names

    try:
        names = read_common_names(certificate)
    except IdentityError as e:
        raise SettingsError(f"{config}: mqtt.certificate: {certificate} is not a PEM certificate: {e}") from e
    if names != [device_id]:
        raise SettingsError(
            f"{config}: device_id is {device_id!r}, but the common name of {certificate} is "
            f"{', '.join(names) or 'missing'}: the broker takes the client id from the certificate"
        )
