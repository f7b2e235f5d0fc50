"""Class names: unique within each program, and none from the private vocabulary of the first version."""

import ast
from collections import defaultdict

import pytest

from tests.support.project_tree import ROOT, python_files

_PROGRAMS = {
    "controller": ("controller", "schemas"),
    "stand-in": ("controller/standin",),
    "agent": ("device_agent", "schemas"),
}
_REPLACED = frozenset(
    {"Keeper", "Grounds", "Wish", "Scene", "Place", "Found", "Deed", "Look"}
    | {"Act", "Draft", "Grade", "Seals", "Sameness", "Fairness", "Told", "Portrait"}
)


def _class_names(*folders: str) -> dict[str, list[str]]:
    """Each class name, private ones included, with the files that define it at the top level."""
    names = defaultdict(list)
    for path in python_files(*folders):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names[node.name].append(str(path.relative_to(ROOT)))
    return names


@pytest.mark.parametrize("program", _PROGRAMS)
def test_no_public_class_name_is_used_twice_in_one_program(program: str) -> None:
    names = _class_names(*_PROGRAMS[program])
    if program == "controller":
        names = {
            name: [path for path in paths if not path.startswith("controller/standin/")]
            for name, paths in names.items()
        }
    assert {name: paths for name, paths in names.items() if len(paths) > 1 and not name.startswith("_")} == {}


def test_replaced_class_names_do_not_return() -> None:
    names = _class_names("controller", "device_agent", "schemas", "tests")
    assert {name: paths for name, paths in names.items() if name.lstrip("_") in _REPLACED} == {}
