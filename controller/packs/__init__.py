"""The policy packs that ship with Cordon: files like those an operator writes; and lists that it knows."""

from importlib.resources import files
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".yaml"


def _folder() -> Path:
    return Path(str(files(__name__)))


def pack_names() -> tuple[str, ...]:
    """The names of all packs, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*" + _SUFFIX)))


def pack_path(name: str) -> Path:
    """The file of the pack `name`.

    Raises:
        KeyError: no pack has that name; the text says which there are.
    """
    if name not in pack_names():
        raise KeyError(f"no policy pack {name!r}: there are {', '.join(pack_names())}")
    return _folder() / (name + _SUFFIX)


def broker_pack_path() -> Path:
    """Returns the pack for `cordon broker audit`, which is not among the packs for devices."""
    return _folder() / "broker" / ("emqx" + _SUFFIX)


def shipped_knowledge() -> bytes:
    """Returns the knowledge file that ships with Cordon."""
    return (_folder() / "knowledge" / "support.json").read_bytes()


def common_passwords() -> frozenset[str]:
    """Returns passwords that everybody guesses first, in small letters."""
    lines = (_folder() / "common-passwords.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))
