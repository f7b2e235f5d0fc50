"""Updates on the wire: what a signed target says of itself, the order to install it, and how far a device got.

The metadata travels in the TUF targets role, as the `custom` part of a target. The order is an ordinary signed command
whose parameters are an `InstallParams` or a `RollbackParams`; progress and outcome travel in the `detail` of its
results. Only the `software` section of the next report (`schemas.sections.installed`) confirms an installation.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from schemas.base import MAX_NAME, StrictWireModel, Timestamp, WireModel
from schemas.commands import ParamValue

INSTALL: Final = "update.install"
GO_BACK: Final = "update.rollback"

MAX_TARGET_BYTES: Final = 8 * 1024**3  # of one target
MAX_CLASSES: Final = 64
MAX_HARDWARE: Final = 64
MAX_REQUIREMENTS: Final = 32
MAX_ARGUMENTS: Final = 32
MAX_INSTALLED_BYTES: Final = 64 * 1024**3

UpdateName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+._-]{0,63}$")]
"""What is updated, such as a package or an application; the same through all its versions."""
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
"""`NAME/VERSION/FILE`: where a target lies in the repository."""
ANY_CLASS: Final = "*"


class UpdateKind(StrEnum):
    """What a target is, and with that how it is put in place."""

    PACKAGE = "package"
    SCRIPT = "script"
    FILE = "file"
    IMAGE = "image"


class InstallerKind(StrEnum):
    """Who puts it in place: a package manager, the agent itself, or the hook of an A/B system."""

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
    """How far an update got on a device; a word from a newer peer reads as `unknown`.

    `offered -> waiting (for the person at the device) -> downloading -> verified -> staged -> installed ->
    restarting -> health_ok -> confirmed`; ends without it are `declined` (by that person), `refused` (not to be trusted
    or not for this device: nothing was changed), `failed` (could not be put in place: the old version is there),
    `rolled_back` (was in place, and the old version is there again) and `broken` (going back failed too).
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
        """Whether nothing more can follow."""
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
    """The phase, or `unknown` for a word of a newer peer."""
    return value if not isinstance(value, str) or value in _PHASES else UpdatePhase.UNKNOWN


class Requirement(StrictWireModel):
    """One thing that has to be so on the device before anything is put in place.

    `what` is `os`, `os_version`, `machine`, `agent`, `free_mib`, `memory_mib`, or `installed:NAME` for the version of
    another update. Versions and numbers are compared part by part.
    """

    what: Annotated[
        str,
        StringConstraints(
            pattern=r"^(os|os_version|machine|agent|free_mib|memory_mib|installed:[a-z0-9][a-z0-9+._-]{0,63})$"
        ),
    ]
    op: Literal["==", "!=", ">=", "<"]
    value: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+:~_-]{0,63}$")]

    def __str__(self) -> str:
        return f"{self.what}{self.op}{self.value}"


_REQUIREMENT: Final = re.compile(r"^([a-z_]+(?::[a-z0-9+._-]+)?)\s*(==|=|!=|>=|<)\s*(\S+)$")


def parse_requirement(text: str) -> Requirement:
    """Read `free_mib>=200`, `os==debian`, `installed:edge-app>=1.4`.

    Raises:
        ValueError: another shape, or nothing that a device can look at.
    """
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a requirement is written WHAT>=VALUE (or ==, !=, <), such as free_mib>=200, not {text!r}")
    try:
        return Requirement.model_validate(
            {"what": match[1], "op": "==" if match[2] == "=" else match[2], "value": match[3]}
        )
    except ValidationError as e:
        raise ValueError(f"{text!r} requires nothing that a device can look at: see docs/updates.md") from e


class HealthCheck(StrictWireModel):
    """How a device finds out that the new version works; all that is named has to hold within `seconds`.

    `command` is an argv: a relative program lies inside the file set. `service` is a systemd unit that is active, `tcp`
    a port of this machine that takes connections, `http` an address of this machine that answers 200. With `broker` the
    agent has to reach the broker too.
    """

    command: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=MAX_NAME)], ...], Field(max_length=32)] = ()
    service: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.@:-]{0,127})?$")] = ""
    tcp: Annotated[int, Field(ge=1, le=65_535)] | None = None
    http: Annotated[str, StringConstraints(pattern=r"^(http:\/\/(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/\S*)?)?$")] = (
        ""
    )
    broker: bool = True
    seconds: Annotated[int, Field(ge=1, le=3600)] = 60

    @property
    def is_empty(self) -> bool:
        """Whether it looks at nothing but the broker."""
        return not (self.command or self.service or self.tcp or self.http)


class RollbackPolicy(StrEnum):
    """What becomes of a version that is not healthy: the one before it again, or it stays (and is told as broken)."""

    PREVIOUS = "previous"
    NEVER = "never"


class RestartMode(StrEnum):
    """What has to start anew before the new version runs."""

    NONE = "none"
    SERVICE = "service"
    REBOOT = "reboot"


class UpdateTarget(StrictWireModel):
    """What the targets role signs about a target beside length and hash: a device follows this and nothing else."""

    v: Literal[1] = 1
    name: UpdateName
    version: UpdateVersion
    kind: UpdateKind
    installer: InstallerKind
    classes: Annotated[tuple[DeviceClass, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    hardware: Annotated[tuple[HardwareId, ...], Field(max_length=MAX_HARDWARE)] = ()
    requires: Annotated[tuple[Requirement, ...], Field(max_length=MAX_REQUIREMENTS)] = ()
    health: HealthCheck = HealthCheck()
    rollback: RollbackPolicy = RollbackPolicy.PREVIOUS
    restart: RestartMode = RestartMode.NONE
    restart_service: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.@:-]{0,127})?$")] = ""
    arguments: Annotated[tuple[Annotated[str, Field(max_length=MAX_NAME)], ...], Field(max_length=MAX_ARGUMENTS)] = ()
    installed_bytes: Annotated[int, Field(ge=0, le=MAX_INSTALLED_BYTES)] = 0
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 1800
    """How long putting it in place may take."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.installer not in INSTALLERS[self.kind]:
            words = ", ".join(INSTALLERS[self.kind])
            raise ValueError(f"a {self.kind} is installed by {words}, not by {self.installer}")
        if (self.restart is RestartMode.SERVICE) != bool(self.restart_service):
            raise ValueError("restart 'service' and restart_service belong together")
        return self

    def is_for(self, device_class: str, hardware: tuple[str, ...]) -> bool:
        """Whether a device of this class with these hardware ids may have it; no hardware named: any."""
        fits_class = ANY_CLASS in self.classes or device_class in self.classes
        return fits_class and (not self.hardware or bool(set(self.hardware) & set(hardware)))


def target_path(name: str, version: str, file: str) -> str:
    """Where a target lies in the repository.

    Raises:
        ValueError: a part is not usable in a path.
    """
    if _FILE.fullmatch(file) is None:
        raise ValueError(f"{file!r}: a file name of letters, digits and . + ~ _ - only")
    return TypeAdapter(TargetPath).validate_python(f"{name}/{version}/{file}")


class InstallParams(StrictWireModel):
    """The parameters of `update.install`: this very file, until then, and whether a person has to agree first."""

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
        """What is updated."""
        return self.target.split("/", 1)[0]

    def params(self) -> dict[str, ParamValue]:
        """As parameters of a command."""
        return self.model_dump(mode="json")


class RollbackParams(StrictWireModel):
    """The parameters of `update.rollback`: from this version back to the one before it; from another one nothing."""

    name: UpdateName
    version: UpdateVersion
    rollout: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""

    def params(self) -> dict[str, ParamValue]:
        """As parameters of a command."""
        return self.model_dump(mode="json")


class UpdateProgress(WireModel):
    """How far an update got: the `detail` of a result. `reason_code` is one word of `UpdateRefusalCode`, or empty."""

    phase: Annotated[UpdatePhase, BeforeValidator(known_phase)]
    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    version: Annotated[str, Field(max_length=MAX_NAME)] = ""
    before: Annotated[str, Field(max_length=MAX_NAME)] = ""
    """The version that was there before; empty: none."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Of the download."""
    reason_code: Annotated[str, Field(max_length=64)] = ""

    def detail(self) -> dict[str, str]:
        """As the `detail` of a result: text only."""
        return {key: str(value) for key, value in self.model_dump(mode="json").items() if value != ""}

    @classmethod
    def of(cls, detail: dict[str, str]) -> "UpdateProgress | None":
        """Read the `detail` of a result; `None` when it does not tell of an update, or not so that it can be read."""
        try:
            return cls.model_validate(detail)
        except ValueError:
            return None


class UpdateRefusalCode(StrEnum):
    """Why an update was not installed, in one word for machines; the result's reason says it for people."""

    ROLLBACK = "rollback"
    """Metadata older than what was seen before."""
    FREEZE = "freeze"
    """Metadata past its end: somebody keeps the newer one back, or nobody renewed it."""
    MIX_AND_MATCH = "mix_and_match"
    WRONG_HASH = "wrong_hash"
    WRONG_LENGTH = "wrong_length"
    ENDLESS_DATA = "endless_data"
    SLOW_RETRIEVAL = "slow_retrieval"
    BAD_SIGNATURE = "bad_signature"
    """Fewer good signatures than the threshold asks for."""
    BAD_METADATA = "bad_metadata"
    MISSING_METADATA = "missing_metadata"
    NOT_FOUND = "not_found"
    """The signed metadata does not list the target."""
    MISMATCH = "mismatch"
    """The order and the signed metadata name different content."""
    UNREACHABLE = "unreachable"
    CLOCK = "clock"
    """This device's clock is behind what it has seen signed."""
    NOT_FOR_THIS_DEVICE = "not_for_this_device"
    NO_SPACE = "no_space"
    PRECONDITION = "precondition"
    DECLINED = "declined"
    DEADLINE = "deadline"
    INSTALL = "install"
    HEALTH = "health"
    BROKER = "broker"
    """The broker was not reached with the new version."""
    INTERRUPTED = "interrupted"
    """Power was lost at a step that cannot be done again."""
    OTHER = "other"
