"""Files and functions stay small enough to be read in one go."""

import ast
from typing import Final

from tests.support.project_tree import PRODUCT, name_of, python_files

MAX_FILE: Final = 400  # lines
MAX_FUNCTION: Final = 50  # lines, from its `def` to its end
_EVERYTHING: Final = (*PRODUCT, "tests", "tools", "deploy")


def test_no_file_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in python_files(*_EVERYTHING)}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}


def test_no_function_is_too_long() -> None:
    too_long = {
        f"{name_of(path)}:{node.lineno} {node.name}": length
        for path in python_files(*_EVERYTHING)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION
    }
    assert too_long == {}
