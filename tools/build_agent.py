"""Builds the one-file agent: `python tools/build_agent.py TARGET`, with the libraries that lie beside it, as pinned."""

import hashlib
import os
import shutil
import sys
import tempfile
import tomllib
import zipapp
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OWN = ("schemas", "device_agent")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "tests", "*.pyi", "py.typed")
INTERPRETER = "/usr/bin/env python3"


def needed() -> list[str]:
    """The agent's libraries and theirs, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in metadata.requires(name) or []]
    return sorted(found)


def add_library(name: str, folder: Path) -> None:
    """Copy what a library installed, without programs, caches and metadata."""
    for file in metadata.files(name) or []:
        top = file.parts[0]
        if top == ".." or top.endswith(".dist-info") or "__pycache__" in file.parts or file.suffix in {".pyi", ".pyc"}:
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.locate(), target)


def digest_of(folder: Path) -> str:
    """Of every name and content, so that each build unpacks into a folder of its own."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return total.hexdigest()[:32]


def build(target: Path) -> None:
    """Make the file, replacing an older one as a whole."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "agent"
        for name in OWN:
            shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
        for name in needed():
            add_library(name, folder)
        shutil.copyfile(ROOT / "tools" / "agent_bootstrap.py", folder / "__main__.py")
        abi = f"{sys.version_info[0]}.{sys.version_info[1]}-{os.uname().machine}"
        (folder / "BUILD").write_text(f"{abi} {digest_of(folder)}\n")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        zipapp.create_archive(folder, fresh, INTERPRETER, compressed=True)
        fresh.chmod(0o755)
        fresh.replace(target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, for Python {abi}, with {', '.join(needed())}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {sys.argv[0]} TARGET")
    build(Path(sys.argv[1]))
