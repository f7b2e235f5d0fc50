"""Turns errors of pydantic and of CEL into problems with text and position."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import ErrorDetails
from yaml.nodes import ScalarNode

from controller.adapters.policies.document import DocumentPath, YamlDocument, index_within
from controller.adapters.policies.models import keys_at
from controller.domain.policy.cel import CelEnvironment, CelExpression, ExpressionError
from controller.domain.policy.versions import SCHEMES

_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_NEXT: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
# A consequence of an error that is reported already.
_CONSEQUENCE: Final = "'*error*'"
_SCHEME: Final = re.compile(r"\bolder\s*\([^()]*,\s*(['\"])([^'\"]*)\1\s*\)")
_TOO_SHORT: Final = "Syntax error: mismatched input '<EOF>'"
_OLDER: Final = "older() takes three texts: older(version, other version, scheme)"
_HINTS: Final = {
    "string_type": "has to be text",
    "int_type": "has to be a whole number",
    "list_type": "has to be a list",
    "dict_type": "has to be a mapping",
    "model_type": "has to be a mapping",
    "model_attributes_type": "has to be a mapping",
}
_NO_ID: Final = "no id: lower case letters, digits and . _ -, at most 64, beginning with a letter or digit"
_PATTERNS: Final = {
    "policy": _NO_ID,
    "id": _NO_ID,
    "title": "no title: one line, without control characters",
    "action": "no action: lower case words with dots between, as in service.disable",
}


def similar(word: str, words: list[str]) -> str:
    """Returns `: did you mean 'x'?`, or an empty text without a similar word."""
    near = difflib.get_close_matches(word, words, n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def rule_prefix(document: YamlDocument, path: DocumentPath) -> str:
    """Returns `rule x: ` for a path within a rule that has an id."""
    if len(path) < 2 or path[0] not in ("rules", "events"):
        return ""
    node = document.values.get((*path[:2], "id"))
    return f"rule {node.value}: " if isinstance(node, ScalarNode) else ""


def complain_of_shape(document: YamlDocument, error: ErrorDetails) -> None:
    """Adds the validation errors of the models as problems."""
    path: DocumentPath = error["loc"]
    known = path
    # A choice between types adds its own names to the end of the path.
    while known and known not in document.values:
        known = known[:-1]
    if error["type"] not in ("missing", "extra_forbidden"):
        path = known
    prefix = rule_prefix(document, path)
    within = path[2:] if prefix else path
    name = ".".join(str(part) for part in within if isinstance(part, str))
    context: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "missing":
            document.complain_of(path[:-1], f"{prefix}{path[-1]!r} is missing")
        case "extra_forbidden":
            hint = similar(str(path[-1]), keys_at(path[:-1]))
            document.complain_of(path, f"{prefix}unknown key {path[-1]!r}{hint}", key=True)
        case "literal_error":
            hint = similar(str(error["input"]), re.findall(r"'([^']+)'", context["expected"]))
            document.complain_of(path, f"{prefix}{name}: {error['input']!r} is not {context['expected']}{hint}")
        case "no_rules":
            missing = "" if ("rules",) in document.values else "'rules' is missing: "
            document.complain_of(("rules",), missing + error["msg"])
        case "within_nothing":
            document.complain_of((*path, "after", "within"), prefix + error["msg"])
        case "for_without_isolation" | "for_nothing":
            document.complain_of((*path, "for"), prefix + error["msg"], key=True)
        case "value_error":
            document.complain_of(path, f"{prefix}{name}: {context['error']}")
        case "string_type" | "bool_type" | "int_type" if "params" in path:
            document.complain_of(path, f"{prefix}{name}: has to be text, a whole number, true or false")
        case "string_pattern_mismatch":
            said = _PATTERNS.get(str(path[-1]), "not written as it has to be: " + context["pattern"])
            document.complain_of(path, f"{prefix}{name}: {error['input']!r} is {said}")
        case kind:
            said = _HINTS.get(kind, error["msg"])
            document.complain_of(path, f"{prefix}{name}: {said}" if name else f"a policy {said}")


def compile_at(document: YamlDocument, path: DocumentPath, language: CelEnvironment) -> CelExpression | None:
    """Returns the compiled expression at `path`, if any; its errors are added as problems."""
    node = document.values.get(path)
    if not isinstance(node, ScalarNode) or not node.value.strip():
        return None
    text = node.value.strip()
    offset = node.value.index(text)
    prefix = rule_prefix(document, path)
    for scheme in _SCHEME.finditer(text):
        if scheme.group(2) not in SCHEMES:
            at = index_within(document.text, node, offset + scheme.start(2))
            hint = similar(scheme.group(2), list(SCHEMES))
            names = ", ".join(SCHEMES)
            document.complain(at, f"{prefix}unknown version scheme {scheme.group(2)!r}, one of {names}{hint}")
    try:
        return language.compile(text)
    except ExpressionError as e:
        for line, column, message in _errors(e):
            before = sum(len(one) + 1 for one in text.split("\n")[: line - 1])
            at = index_within(document.text, node, offset + before + column - 1)
            document.complain(at, prefix + _in_words(message, language))
        return None


def _errors(error: ExpressionError) -> list[tuple[int, int, str]]:
    first, *rest = str(error).split("\n")
    found = [(error.line, error.column, first)]
    for line in rest:
        match = _NEXT.match(line)
        if match is not None:
            found.append((int(match.group(1)), int(match.group(2)), match.group(3)))
    causes = [error for error in found if _CONSEQUENCE not in error[2]]
    return sorted(set(causes or found[:1]))


def _in_words(message: str, language: CelEnvironment) -> str:
    if message.startswith(_TOO_SHORT):
        return "the expression ends too early"
    match = _UNDECLARED.match(message)
    if match is None:
        return f"{message}; {_OLDER}" if "'older'" in message else message
    name = match.group(1)
    if name == "older":
        return _OLDER
    return message + similar(name, [*language.names, "older", "exists", "all"])
