"""No regular expression takes more than linear time, unless its text is short or its repetitions cannot add up."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import pytest

from tests.support.project_tree import name_of, python_files
from tests.support.regex_growth import growth

_METHODS: Final = frozenset({"match", "fullmatch", "search", "findall", "finditer", "sub", "subn", "split"})
_SHORT: Final = "its text has at most {} characters"
# Patterns that may take quadratic time, by module and name, or by the pattern itself.
_EXCEPTIONS: Final = {
    "controller.adapters.emqx.client.hocon._TOKEN": "the first part that is no token ends the reading",
    "controller.adapters.policies.diagnostics._SCHEME": _SHORT.format("MAX_EXPRESSION"),
    "controller.domain.broker.ports._NUMBER": _SHORT.format(128),
    "controller.domain.policy.versions._KERNEL": _SHORT.format("MAX_TEXT"),
    "device_agent.collectors.access.account_security._DOAS_WORD": "only the last quotation can lack its end",
    "device_agent.collectors.crypto.openssl._DELETED_LIBRARY": "the name of a file has at most 255 bytes",
    "device_agent.collectors.crypto.tls_errors._ERROR": _SHORT.format(2048),
    "device_agent.collectors.software.apt_conf._TOKEN": "a comment that does not end takes the rest of the text",
    r'"((?:[^"\\]|\\.)*)"': "every quotation ends: the text matched a pattern that says so",
    "device_agent.host.login_records._PAM": "the first part ends at the first ' for '",
    "device_agent.intrusion.alerts._FAST": _SHORT.format(4096),
}
_LOCAL_TOOLS: Final = ("controller.demo", "controller.standin")


def _patterns(value: Any, depth: int = 0) -> Iterator["re.Pattern[Any]"]:
    """Yields the compiled patterns in a value."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 3:
        parts = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | tuple | list | set | frozenset):
            for part in parts:
                yield from _patterns(part, depth + 1)
        elif not isinstance(value, type):
            for name in getattr(value, "__dataclass_fields__", ()):
                yield from _patterns(getattr(value, name, None), depth + 1)


def _name_of(node: ast.expr) -> str:
    """The last name of what a method is called on, such as `_KINDS` of `_KINDS[key].match`."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _flags(call: ast.Call) -> int:
    given = [*call.args[1:], *(keyword.value for keyword in call.keywords)]
    names = [one.attr for arg in given for one in ast.walk(arg) if isinstance(one, ast.Attribute)]
    return sum({int(getattr(re, name)) for name in names if hasattr(re, name) and name.isupper()})


@cache
def _found() -> dict[tuple[str, str], "re.Pattern[Any]"]:
    """Every pattern of the programs, by its name (or its text, where it has none) and a method that it is used with."""
    found: dict[tuple[str, str], re.Pattern[Any]] = {}
    for path in python_files("schemas", "controller", "device_agent"):
        module = name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if module.startswith(_LOCAL_TOOLS) or module.endswith("__main__"):
            continue
        uses: dict[str, set[str]] = {}
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS
            if not is_call or not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, first = _name_of(node.func.value), node.args[0] if node.args else None
            if name == "re" and isinstance(first, ast.Constant):
                found[str(first.value), node.func.attr] = re.compile(first.value, _flags(node))
            uses.setdefault(name, set()).add(node.func.attr)
        for name, value in vars(importlib.import_module(module)).items():
            for pattern in _patterns(value):
                for method in uses.get(name, {"match"} if getattr(value, "pattern", None) else set()):
                    found[f"{module}.{name}", f"{method} {pattern.pattern!r}"] = pattern
    return found


def test_every_regular_expression_takes_linear_time() -> None:
    found = _found()
    assert len(found) > 200
    grows: dict[str, str] = {}
    for (name, use), pattern in found.items():
        if (how := growth(pattern, use.partition(" ")[0])) != "linear":
            grows[name] = max(how, grows.get(name, ""), key=("", "quadratic", "exponential").index)
    assert {name: how for name, how in grows.items() if how != "quadratic" or name not in _EXCEPTIONS} == {}
    assert grows.keys() >= _EXCEPTIONS.keys(), "an exception that is not needed any more"


@pytest.mark.parametrize(
    ("pattern", "method", "expected"),
    [
        (r"(a+)+$", "match", "exponential"),
        (r"(a+)+", "match", "linear"),  # whatever follows, it has matched
        (r"(\d{1,9}[smhdw]?)+", "fullmatch", "exponential"),
        (r"(x+x+)+y", "match", "exponential"),
        (r"(?:ab|a|b)*c", "match", "exponential"),
        (r"(?:\\.|[^\\])*c", "match", "linear"),
        (r"a*b", "match", "linear"),
        (r"a*b", "search", "quadratic"),
        (r"\S+", "search", "linear"),
        (r"\s+$", "sub", "quadratic"),
        (r"^.*?\s*$", "match", "quadratic"),
        (r"x.*$", "match", "linear"),
        (r"(.*)a(.*)b", "match", "quadratic"),
        (r"(?:^|\s)([a-z]+):", "search", "linear"),
        (r"(?m)^[ \t]*x", "search", "linear"),
        (r"a++b", "match", "linear"),
    ],
)
def test_growth_is_known(pattern: str, method: str, expected: str) -> None:
    assert growth(re.compile(pattern), method) == expected
