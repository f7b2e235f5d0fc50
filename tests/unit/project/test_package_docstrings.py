"""The docstring of each package is a map for newcomers: what is in the folder, and which file to open for what."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.support.project_tree import PRODUCT, ROOT, name_of

PACKAGES: Final = sorted(path.parent for folder in PRODUCT for path in (ROOT / folder).rglob("__init__.py"))
MAX_LINES: Final = 12


def _docstring(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""


def test_packages_are_found() -> None:
    assert ROOT / "controller" / "domain" in PACKAGES


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_package_has_a_docstring(package: Path) -> None:
    lines = _docstring(package).splitlines()
    assert 1 <= len(lines) <= MAX_LINES


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_names_in_the_docstring_exist_in_the_package(package: Path) -> None:
    names = set(re.findall(r"`([a-z_0-9]+)`", _docstring(package)))
    assert names <= {path.stem for path in package.iterdir()}, "correct the map in __init__.py"
