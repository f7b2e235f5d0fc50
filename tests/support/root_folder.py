"""Prepared root folders: what a distribution keeps where, well kept or badly."""

from collections.abc import Mapping
from pathlib import Path


def put(root: Path, place: str, content: str | bytes = "") -> Path:
    """Write a file below `root`."""
    path = root / place.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    return path


def put_all(root: Path, files: Mapping[str, str]) -> Path:
    """Write several files below `root`, and return it."""
    root.mkdir(parents=True, exist_ok=True)
    for place, content in files.items():
        put(root, place, content)
    return root
