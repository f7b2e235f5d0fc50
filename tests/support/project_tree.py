"""The files that the project rules apply to, listed without git, so that a copied tree is checked too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PRODUCT: Final = ("schemas", "controller", "device_agent")
_MAY_BE_ABSENT: Final = frozenset({"tools", "deploy"})  # folders without Python, or not there
_FOLDERS: Final = (*PRODUCT, "tests", "tools", "deploy", "docs", ".ci")
_TEXT: Final = frozenset(
    {"", ".py", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".txt", ".cfg", ".ini", ".service"}
)


def python_files(*folders: str) -> Iterator[Path]:
    """Every Python file below these folders of the project."""
    for folder in folders:
        found = sorted((ROOT / folder).rglob("*.py"))
        assert found or folder in _MAY_BE_ABSENT, f"no Python below {folder}: the rule would hold for nothing"
        yield from found


def text_files() -> Iterator[Path]:
    """Every text file of the project."""
    # `.git` is a file in a second work tree.
    at_the_top = (path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith((".coverage", ".git")))
    below = (path for folder in _FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    for path in (*at_the_top, *below):
        if path.suffix in _TEXT and "__pycache__" not in path.parts:
            yield path


def documents() -> list[Path]:
    """Every document."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert ROOT / "README.md" in found
    return sorted(found)


def name_of(path: Path) -> str:
    """The path from the project's root."""
    return str(path.relative_to(ROOT))
