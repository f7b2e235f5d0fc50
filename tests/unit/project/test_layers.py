"""The layers hold: imports run one way, each technology has one place, topics have one file."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.project_tree import PRODUCT, ROOT, name_of, python_files


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@cache
def _imported(path: Path) -> frozenset[str]:
    """Modules, and the names imported from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def _importers(package: str) -> set[str]:
    return {
        name_of(path)
        for path in python_files(*PRODUCT)
        if any(name.partition(".")[0] == package for name in _imported(path))
    }


def test_httpx_is_imported_where_emqx_other_controllers_the_sign_on_provider_and_webhooks_are_called_only() -> None:
    # Its successor has another name; moving to it is to stay one line in each.
    emqx = {f"controller/adapters/emqx/client/{name}.py" for name in ("http", "connections")}
    assert _importers("httpx") == emqx | {
        "controller/adapters/http_peers.py",
        "controller/adapters/oidc/exchange.py",
        "controller/adapters/notifications/http.py",
    }


def test_the_controller_meets_paho_in_its_adapter_and_demo_only() -> None:
    places = {name for name in _importers("paho") if name.startswith("controller/")}
    assert {name for name in places if not name.startswith(("controller/adapters/mqtt/", "controller/demo/"))} == set()
    assert places


def _docstrings(tree: ast.Module) -> set[int]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }


def _topic_texts(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    spoken = _docstrings(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in spoken:
            continue
        if any(part in node.value for part in ("cordon/v1", "/up/", "/down/")):
            yield f"{name_of(path)}:{node.lineno} {node.value!r}"


def test_topics_are_written_in_one_file() -> None:
    home = ROOT / "schemas" / "topics.py"
    assert any(_topic_texts(home)), "the search finds nothing where topics are"
    assert [text for path in python_files(*PRODUCT) if path != home for text in _topic_texts(path)] == []


def test_no_test_imports_from_another_test_module() -> None:
    """Shared helpers are in tests/support, so that a test can change without another one."""
    assert [
        f"{name_of(path)}: {name}"
        for path in python_files("tests")
        for name in _imported(path)
        if name.startswith("tests.") and ".test_" in name
    ] == []
