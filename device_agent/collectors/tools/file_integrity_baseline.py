"""The baseline of watched files as stored on disk (`integrity.json`)."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.tools.file_integrity_scan import FileState
from device_agent.host.files import write_whole

_MAX_BYTES: Final = 32 * 1024 * 1024


class BaselineDamagedError(Exception):
    """The baseline cannot be read; treating it as empty would report every file as unchanged."""


@dataclass(slots=True)
class IntegrityBaseline:
    """The files at `taken_at`; `first_detected` has the kind and time of the detected changes, by path."""

    taken_at: datetime
    roots: tuple[str, ...]
    files: dict[str, FileState]
    unread: int = 0
    first_detected: dict[str, tuple[str, str]] = field(default_factory=dict)
    read_all_at: float = 0.0  # Unix time at which all contents were last read


def load(path: Path) -> IntegrityBaseline | None:
    """Reads the baseline; returns None when the file does not exist.

    Raises:
        BaselineDamagedError: the file is not a baseline of this version.
        OSError: the file cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BaselineDamagedError(f"larger than {_MAX_BYTES} bytes")
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as e:
        raise BaselineDamagedError(str(e)) from e
    try:
        return _parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise BaselineDamagedError(f"{type(e).__name__}: {e}") from e


def save(path: Path, baseline: IntegrityBaseline) -> None:
    """Replaces the file atomically."""
    content = {
        "v": 1,
        "taken_at": baseline.taken_at.isoformat(),
        "roots": list(baseline.roots),
        "unread": baseline.unread,
        "read_all_at": baseline.read_all_at,
        "noticed": baseline.first_detected,
        "files": {
            name: [s.kind, s.sha256, s.mode, s.uid, s.gid, s.size, s.mtime, s.ctime, s.inode]
            for name, s in baseline.files.items()
        },
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(content, separators=(",", ":"))
    # Names that are not UTF-8 hold surrogates, which JSON escapes.
    write_whole(path, path.with_name(f".{path.name}.new"), text.encode("ascii"))


def _parse(raw: Any) -> IntegrityBaseline:
    if raw["v"] != 1:
        raise ValueError(f"version {raw['v']}")
    return IntegrityBaseline(
        taken_at=datetime.fromisoformat(raw["taken_at"]),
        roots=tuple(str(root) for root in raw["roots"]),
        unread=int(raw["unread"]),
        read_all_at=float(raw["read_all_at"]),
        first_detected={str(name): (str(change), str(at)) for name, (change, at) in raw["noticed"].items()},
        files={
            str(name): FileState(str(kind), str(sha256), *(int(number) for number in numbers))
            for name, (kind, sha256, *numbers) in raw["files"].items()
        },
    )
