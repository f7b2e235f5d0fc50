"""Updates on the wire: metadata of a signed target, parameters of the commands, and progress.

The metadata is the `custom` part of a target in the TUF targets role. The commands are signed commands whose parameters
are an `InstallParams` or a `RollbackParams`; the `detail` of their results is an `UpdateProgress`. Only the `software`
section of the next report (`schemas.sections.installed`) confirms an installation.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from schemas.base import MAX_NAME, StrictWireModel, Timestamp, WireModel
from schemas.commands import ParamValue
from schemas.version_order import has_plain_order

INSTALL: Final = "update.install"
ROLL_BACK: Final = "update.rollback"

MAX_TARGET_BYTES: Final = 8 * 1024**3  # of one target
MAX_CLASSES: Final = 64
MAX_HARDWARE: Final = 64
MAX_REQUIREMENTS: Final = 32
MAX_ARGUMENTS: Final = 32
MAX_INSTALLED_BYTES: Final = 64 * 1024**3

UpdateName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+._-]{0,63}$")]
"""The package or application that is updated; the same for all its versions."""
UpdateVersion = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+:~_-]{0,63}$")]
DeviceClass = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9._:/-]{1,64})$")]
HardwareId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:,/-]{1,64}$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_FILE: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,95}$")
TargetPath = Annotated[
    str,
    StringConstraints(
        max_length=MAX_NAME,
        pattern=r"^[a-z0-9][a-z0-9+._-]{0,63}/[0-9A-Za-z][0-9A-Za-z.+:~_-]{0,63}/[A-Za-z0-9][A-Za-z0-9.+~_-]{0,95}$",
    ),
]
"""`NAME/VERSION/FILE`: the path of a target in the repository."""
ANY_CLASS: Final = "*"


class UpdateKind(StrEnum):
    """The kind of a target, which determines its installers."""

    PACKAGE = "package"
    SCRIPT = "script"
    FILE = "file"
    IMAGE = "image"


class InstallerKind(StrEnum):
    """What installs a target: a package manager, the agent itself, or the hook of an A/B system."""

    APT = "apt"
    DNF = "dnf"
    APK = "apk"
    OPKG = "opkg"
    FILESET = "fileset"
    SCRIPT = "script"
    HOOK = "hook"
    AGENT = "agent"


INSTALLERS: Final = {
    UpdateKind.PACKAGE: (InstallerKind.APT, InstallerKind.DNF, InstallerKind.APK, InstallerKind.OPKG),
    UpdateKind.SCRIPT: (InstallerKind.SCRIPT,),
    UpdateKind.FILE: (InstallerKind.FILESET, InstallerKind.AGENT),
    UpdateKind.IMAGE: (InstallerKind.HOOK,),
}


class UpdatePhase(StrEnum):
    """The phase of an update on a device; an unknown phase of a newer peer is read as `unknown`.

    `offered -> waiting (for consent) -> downloading -> verified -> staged -> installed -> restarting -> health_ok ->
    confirmed`. The other end phases: `declined` (by the person at the device), `refused` (not trusted or not for this
    device; nothing was changed), `failed` (not installed; the previous version runs), `rolled_back` (was installed; the
    previous version runs again) and `broken` (the rollback failed too).
    """

    OFFERED = "offered"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    STAGED = "staged"
    INSTALLED = "installed"
    RESTARTING = "restarting"
    HEALTH_OK = "health_ok"
    CONFIRMED = "confirmed"
    DECLINED = "declined"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    BROKEN = "broken"
    UNKNOWN = "unknown"

    @property
    def is_end(self) -> bool:
        """Whether the phase is final."""
        return self in _ENDS


_ENDS: Final = frozenset(
    {
        UpdatePhase.CONFIRMED,
        UpdatePhase.DECLINED,
        UpdatePhase.REFUSED,
        UpdatePhase.FAILED,
        UpdatePhase.ROLLED_BACK,
        UpdatePhase.BROKEN,
    }
)
_PHASES: Final = frozenset(UpdatePhase)


def known_phase(value: Any) -> Any:
    """Returns `unknown` for an unknown phase of a newer peer, any other value unchanged."""
    return value if not isinstance(value, str) or value in _PHASES else UpdatePhase.UNKNOWN


class Requirement(StrictWireModel):
    """A precondition of an installation.

    `what` is `os`, `os_version`, `machine`, `agent`, `free_mib`, `memory_mib`, or `installed:NAME` for the version of
    another target, whose installer determines the order of versions; others are ordered as in `schemas.version_order`.
    """

    what: Annotated[
        str,
        StringConstraints(
            pattern=r"^(os|os_version|machine|agent|free_mib|memory_mib|installed:[a-z0-9][a-z0-9+._-]{0,63})$"
        ),
    ]
    op: Literal["==", "!=", ">=", "<"]
    value: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+:~_-]{0,63}$")]

    @property
    def is_ordering(self) -> bool:
        """Whether it needs an order of the values, and not only equality."""
        return self.op in (">=", "<")

    def __str__(self) -> str:
        return f"{self.what}{self.op}{self.value}"


_REQUIREMENT: Final = re.compile(r"^([a-z_]+(?::[a-z0-9+._-]+)?)\s*(==|=|!=|>=|<)\s*(\S+)$")


def parse_requirement(text: str) -> Requirement:
    """Parses `free_mib>=200`, `os==debian`, `installed:edge-app>=1.4`.

    Raises:
        ValueError: another format, an unknown property, or an order where there is none.
    """
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a requirement is written WHAT>=VALUE (or ==, !=, <), such as free_mib>=200, not {text!r}")
    try:
        found = Requirement.model_validate(
            {"what": match[1], "op": "==" if match[2] == "=" else match[2], "value": match[3]}
        )
    except ValidationError as e:
        raise ValueError(f"{text!r} in requires: unknown property or invalid value, see docs/updates.md") from e
    if found.is_ordering and not _can_be_ordered(found):
        raise ValueError(f"{text!r} in requires: no order is defined for this, == and != are, see docs/updates.md")
    return found


def _can_be_ordered(requirement: Requirement) -> bool:
    match requirement.what:
        case "os" | "machine":
            return False
        case "free_mib" | "memory_mib":
            return requirement.value.isdigit()
        case "os_version" | "agent":
            return has_plain_order(requirement.value)
        case _:  # of another target: its installer knows, when it is published and on the device
            return True


class HealthCheck(StrictWireModel):
    """The checks of a new version; all given checks must succeed within `seconds`.

    `command` is an argv (a relative program is part of the file set) that must succeed, `service` a systemd unit that
    must be active, `tcp` a local port that must accept connections, `http` a local URL that must answer 200. With
    `broker` the agent must also reach the broker.
    """

    command: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_NAME)], ...], Field(max_length=32, fail_fast=True)
    ] = ()
    service: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.@:-]{0,127})?$")] = ""
    tcp: Annotated[int, Field(ge=1, le=65_535)] | None = None
    http: Annotated[str, StringConstraints(pattern=r"^(http:\/\/(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/\S*)?)?$")] = (
        ""
    )
    broker: bool = True
    seconds: Annotated[int, Field(ge=1, le=3600)] = 60

    @property
    def is_empty(self) -> bool:
        """Whether nothing but the broker is checked."""
        return not (self.command or self.service or self.tcp or self.http)


class RollbackPolicy(StrEnum):
    """What happens to an unhealthy version: return to the previous one, or keep it and report `broken`."""

    PREVIOUS = "previous"
    NEVER = "never"


class RestartMode(StrEnum):
    """What must restart before the new version runs."""

    NONE = "none"
    SERVICE = "service"
    REBOOT = "reboot"


class UpdateTarget(StrictWireModel):
    """The signed metadata of a target besides length and hash; it alone determines the installation."""

    v: Literal[1] = 1
    name: UpdateName
    version: UpdateVersion
    kind: UpdateKind
    installer: InstallerKind
    classes: Annotated[tuple[DeviceClass, ...], Field(min_length=1, max_length=MAX_CLASSES, fail_fast=True)]
    hardware: Annotated[tuple[HardwareId, ...], Field(max_length=MAX_HARDWARE, fail_fast=True)] = ()
    requires: Annotated[tuple[Requirement, ...], Field(max_length=MAX_REQUIREMENTS, fail_fast=True)] = ()
    health: HealthCheck = HealthCheck()
    rollback: RollbackPolicy = RollbackPolicy.PREVIOUS
    restart: RestartMode = RestartMode.NONE
    restart_service: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.@:-]{0,127})?$")] = ""
    arguments: Annotated[
        tuple[Annotated[str, Field(max_length=MAX_NAME)], ...], Field(max_length=MAX_ARGUMENTS, fail_fast=True)
    ] = ()
    installed_bytes: Annotated[int, Field(ge=0, le=MAX_INSTALLED_BYTES)] = 0
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 1800
    """Time limit of the installation."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.installer not in INSTALLERS[self.kind]:
            allowed = ", ".join(INSTALLERS[self.kind])
            raise ValueError(f"a {self.kind} is installed by {allowed}, not by {self.installer}")
        if (self.restart is RestartMode.SERVICE) != bool(self.restart_service):
            raise ValueError("restart 'service' and restart_service belong together")
        return self

    def is_for(self, device_class: str, hardware: tuple[str, ...]) -> bool:
        """Whether the target is meant for a device of this class and hardware; without hardware ids, for any."""
        fits_class = ANY_CLASS in self.classes or device_class in self.classes
        return fits_class and (not self.hardware or bool(set(self.hardware) & set(hardware)))


def target_path(name: str, version: str, file: str) -> str:
    """Returns the path of a target in the repository.

    Raises:
        ValueError: a part is invalid in a path.
    """
    if _FILE.fullmatch(file) is None:
        raise ValueError(f"{file!r}: a file name may only contain letters, digits and . + ~ _ -")
    return TypeAdapter(TargetPath).validate_python(f"{name}/{version}/{file}")


class InstallParams(StrictWireModel):
    """The parameters of `update.install`: the exact file, the deadline, and whether to ask for consent."""

    target: TargetPath
    version: UpdateVersion
    sha256: _Sha256
    length: Annotated[int, Field(ge=0, le=MAX_TARGET_BYTES)]
    deadline: Timestamp
    ask_user: bool = False
    rollout: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""

    @model_validator(mode="after")
    def _of_this_version(self) -> Self:
        if self.target.split("/")[1] != self.version:
            raise ValueError("target and version differ")
        return self

    @property
    def name(self) -> str:
        """The name of the target."""
        return self.target.split("/", 1)[0]

    def params(self) -> dict[str, ParamValue]:
        """Returns the parameters of the command."""
        return self.model_dump(mode="json")


class RollbackParams(StrictWireModel):
    """The parameters of `update.rollback`; without effect when another version is installed."""

    name: UpdateName
    version: UpdateVersion
    rollout: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""

    def params(self) -> dict[str, ParamValue]:
        """Returns the parameters of the command."""
        return self.model_dump(mode="json")


class UpdateProgress(WireModel):
    """The progress of an update, as `detail` of a result; `reason_code` is an `UpdateRefusalCode` or empty."""

    phase: Annotated[UpdatePhase, BeforeValidator(known_phase)]
    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    version: Annotated[str, Field(max_length=MAX_NAME)] = ""
    before: Annotated[str, Field(max_length=MAX_NAME)] = ""
    """The previous version; empty for none."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Progress of the download."""
    reason_code: Annotated[str, Field(max_length=64)] = ""

    def detail(self) -> dict[str, str]:
        """Returns the `detail` of a result: text values only."""
        return {key: str(value) for key, value in self.model_dump(mode="json").items() if value != ""}

    @classmethod
    def from_detail(cls, detail: dict[str, str]) -> "UpdateProgress | None":
        """Parses the `detail` of a result; returns None when it is not a valid progress of an update."""
        try:
            return cls.model_validate(detail)
        except ValueError:
            return None


class UpdateRefusalCode(StrEnum):
    """Why an update was not installed; the result's reason has the text for people."""

    ROLLBACK = "rollback"
    """The metadata is older than metadata seen before."""
    FREEZE = "freeze"
    """The metadata has expired: newer metadata is withheld, or was not published."""
    MIX_AND_MATCH = "mix_and_match"
    WRONG_HASH = "wrong_hash"
    WRONG_LENGTH = "wrong_length"
    ENDLESS_DATA = "endless_data"
    SLOW_RETRIEVAL = "slow_retrieval"
    BAD_SIGNATURE = "bad_signature"
    """Fewer valid signatures than the threshold."""
    BAD_METADATA = "bad_metadata"
    MISSING_METADATA = "missing_metadata"
    NOT_FOUND = "not_found"
    """The signed metadata does not list the target."""
    MISMATCH = "mismatch"
    """The command and the signed metadata name different content."""
    UNREACHABLE = "unreachable"
    CLOCK = "clock"
    """The device's clock is behind the time of metadata seen before."""
    NOT_FOR_THIS_DEVICE = "not_for_this_device"
    NO_SPACE = "no_space"
    PRECONDITION = "precondition"
    DECLINED = "declined"
    DEADLINE = "deadline"
    INSTALL = "install"
    HEALTH = "health"
    BROKER = "broker"
    """The new version did not reach the broker."""
    INTERRUPTED = "interrupted"
    """Power was lost during a step that cannot be repeated."""
    OTHER = "other"
