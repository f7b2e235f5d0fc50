"""Dependencies come through constructors: nothing is hung on an object after it was made."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.project_tree import name_of, python_files

# paho takes its callbacks as attributes.
_PAHO: Final = {
    "controller/adapters/mqtt/connection.py",
    "controller/demo/mqtt_client.py",
    "device_agent/mqtt_client.py",
    "device_agent/simulator/connection.py",
}
# uvicorn is stopped, and threads report their failures, in this way.
_SWITCHES: Final = {"server.should_exit", "self._server.should_exit", "threading.excepthook"}
_ROOTS: Final = ("controller/app/", "device_agent/assembly.py", "device_agent/runtime.py", "device_agent/main.py")


def _assigned(path: Path) -> Iterator[str]:
    """Attributes of other objects than `self` that are assigned."""
    for node in ast.walk(ast.parse(path.read_text())):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(one, ast.Attribute) and ast.unparse(one.value) not in ("self", "cls"):
                    yield ast.unparse(one)


def test_callbacks_are_constructor_arguments() -> None:
    late = {
        f"{name_of(path)}: {target}"
        for path in python_files("controller", "device_agent")
        if name_of(path) not in _PAHO
        for target in _assigned(path)
        if target.rpartition(".")[2].startswith("on_")
    }
    assert late == set()


def test_composition_roots_assign_no_attributes() -> None:
    late = {
        f"{name_of(path)}: {target}"
        for path in python_files("controller", "device_agent")
        if name_of(path).startswith(_ROOTS)
        for target in _assigned(path)
        if target not in _SWITCHES
    }
    assert late == set()
