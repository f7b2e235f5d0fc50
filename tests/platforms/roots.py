"""The prepared roots in `roots/`: one YAML file for each platform, and overlays that several of them share.

A platform's `files` (path: content), `programs` (paths of ELF files of `machine`) and `links` (path: target) are those
of a freshly made system. `healthy` and `unhealthy` add what makes it pass or fail, from the file itself and from
`overlays.yaml`; content None removes a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from device_agent.host.system import System
from tests.platforms.rpm_database import write_rpm_database

FOLDER: Final = Path(__file__).with_name("roots")
_RPM_PLACES: Final = ("usr/lib/sysimage/rpm", "usr/share/rpm", "var/lib/rpm")
_OVERLAYS: Final = "overlays.yaml"
# Class and number of the machine in an ELF header.
_ELF: Final = {"x86_64": (2, 62), "aarch64": (2, 183), "arm": (1, 40), "mips": (1, 8), "riscv64": (2, 243)}


def _private_key(encryption: KeySerializationEncryption) -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


# What stands for a new private key in the files.
_KEYS: Final = {
    "(a private key)": _private_key(NoEncryption()),
    "(a protected private key)": _private_key(BestAvailableEncryption(b"passphrase")),
}


@dataclass(frozen=True, slots=True, eq=False)
class Platform:
    """A platform as its file describes it.

    `expected` are fields of sections by `section.field`; `reason` is why something is unknown of a platform that is
    only recognised. `true_failures` are rules that the healthy root fails rightly, `not_yet` those that are
    judged wrongly, each with the reason.
    """

    key: str
    name: str
    source: str
    machine: str
    files: Mapping[str, str]
    healthy: tuple[Mapping[str, str | None], ...]
    unhealthy: tuple[Mapping[str, str | None], ...]
    expected: Mapping[str, Any]
    violations: tuple[str, ...]
    programs: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    rpm: tuple[str, ...] = ()
    is_supported: bool = True
    reason: str = ""
    true_failures: Mapping[str, str] = field(default_factory=dict)
    not_yet: Mapping[str, str] = field(default_factory=dict)


@cache
def platforms() -> tuple[Platform, ...]:
    """Returns every platform, by the names of their files."""
    overlays = yaml.safe_load((FOLDER / _OVERLAYS).read_text())
    return tuple(_platform(path, overlays) for path in sorted(FOLDER.glob("*.yaml")) if path.name != _OVERLAYS)


def _platform(path: Path, overlays: Mapping[str, Mapping[str, Any]]) -> Platform:
    raw = yaml.safe_load(path.read_text())
    states: dict[str, Any] = {}
    violations: list[str] = []
    for state in ("healthy", "unhealthy"):
        entries = raw.pop(state, [])
        states[state] = tuple(overlays[one]["files"] if isinstance(one, str) else one for one in entries)
        violations += [rule for one in entries if isinstance(one, str) for rule in overlays[one].get("violates", [])]
    return Platform(
        key=path.stem,
        name=raw.pop("name"),
        source=raw.pop("source"),
        machine=raw.pop("machine", "x86_64"),
        files=raw.pop("files"),
        expected=raw.pop("expected", {}),
        violations=tuple(dict.fromkeys([*violations, *raw.pop("violations", [])])),
        programs=tuple(raw.pop("programs", [])),
        rpm=tuple(raw.pop("rpm", [])),
        **states,
        **raw,
    )


def make_root(platform: Platform, folder: Path, state: str) -> System:
    """Makes the healthy or the unhealthy root of a platform in an empty folder, and returns it as an image."""
    overlays: tuple[Mapping[str, str | None], ...] = getattr(platform, state)
    files: dict[str, str | None] = dict(platform.files)
    for overlay in overlays:
        files.update(overlay)
    for link, target in platform.links.items():
        path = folder / link.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    folder.chmod(0o755)
    image = System.image(folder)
    width, number = _ELF[platform.machine]
    header = b"\x7fELF" + bytes([width, 1, 1]) + bytes(9) + b"\x02\x00" + number.to_bytes(2, "little") + bytes(44)
    for program in platform.programs:
        _put(image, program, header)
    for name, content in files.items():
        if content is not None:
            _put(image, name, _KEYS.get(content) or content.encode())
    if platform.rpm:
        database = (
            folder / "usr/lib/sysimage/rpm" if image.path("/usr/lib/sysimage").is_dir() else folder / "var/lib/rpm"
        )
        write_rpm_database(database, platform.rpm)
    return image


def _put(image: System, name: str, content: bytes) -> None:
    # Links of the root, such as those of a merged /usr, lead where they would on the device.
    place = image.path(name)
    missing = []
    while not place.is_dir():
        missing.append(place.name)
        place = place.parent
    target = Path(str(place.resolve()), *reversed(missing))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o600 if name.endswith((".closed.key", "/shadow")) else 0o644)
