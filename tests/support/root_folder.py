"""Prepared root folders with the files of a distribution."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def put(root: Path, place: str, content: str | bytes = "", mode: int | None = None) -> Path:
    """Writes a file below `root`."""
    path = root / place.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    if mode is not None:
        path.chmod(mode)
    return path


def put_all(root: Path, files: Mapping[str, str]) -> Path:
    """Writes several files below `root`, and returns it."""
    root.mkdir(parents=True, exist_ok=True)
    for place, content in files.items():
        put(root, place, content)
    return root


def gap_texts(section: Mapping[str, Any]) -> list[str]:
    """Returns `fact: reason (source)` for each gap of a section, sorted."""
    return sorted(
        f"{gap['fact']}: {gap['reason']}" + (f" ({gap['source']})" if "source" in gap else "")
        for gap in section["gaps"]
    )
