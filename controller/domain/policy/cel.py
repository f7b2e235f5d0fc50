"""The rule language: CEL expressions over declared, typed facts, compiled once and type-checked before evaluation.

cel-expr-python does not tell which variables an expression refers to. `referenced_names` therefore reads them from the
serialized checked expression, a protobuf message, so that no protobuf library and generated code are needed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cel_expr_python import cel

from controller.domain.policy.versions import is_older_version

MAX_EXPRESSION: Final = 2000  # characters

_TYPES: Final[dict[str, cel.Type]] = {
    "string": cel.Type.STRING,
    "int": cel.Type.INT,
    "bool": cel.Type.BOOL,
    "list(string)": cel.Type.List(cel.Type.STRING),
    "list(int)": cel.Type.List(cel.Type.INT),
    "map(string,string)": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
}


class ExpressionError(ValueError):
    """The expression does not compile; `str()` has line, column and a caret under the position.

    Attributes:
        line: line within the expression, from 1.
        column: column within that line, from 1.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class EvaluationError(ValueError):
    """A compiled expression cannot be evaluated with these facts."""


@dataclass(frozen=True, slots=True)
class CelExpression:
    """A compiled boolean expression and the facts that it refers to."""

    text: str
    uses: frozenset[str]
    compiled: Any  # cel.Expression, used by `evaluate` only

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CelExpression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


class CelEnvironment:
    """CEL with a set of declared facts.

    Args:
        facts: type of each fact by its name: string, int, bool, list(string), list(int) or map(string,string).
        subject: `device` or `broker`; policies for the other subject are refused.

    Attributes:
        names: the declared facts.
    """

    def __init__(self, facts: Mapping[str, str], subject: str = "device") -> None:
        self.subject = subject
        self.names = frozenset(facts)
        string = cel.Type.STRING
        overload = cel.Overload(
            "older_versions", return_type=cel.Type.BOOL, parameters=[string, string, string], impl=is_older_version
        )
        self._env = cel.NewEnv(
            variables={name: _TYPES[kind] for name, kind in facts.items()},
            functions=[cel.FunctionDecl("older", [overload])],
        )

    def compile(self, text: str) -> CelExpression:
        """Compiles an expression and checks its names and types.

        Raises:
            ExpressionError: the expression does not compile, is not boolean, or is too long.
        """
        if len(text) > MAX_EXPRESSION:
            raise ExpressionError(f"expression too long: {len(text)} > {MAX_EXPRESSION} characters")
        try:
            compiled = self._env.compile(text)
        except RuntimeError as e:
            raise _parse_error(str(e)) from e
        if compiled.return_type() != cel.Type.BOOL:
            kind = compiled.return_type().name()
            raise ExpressionError(f"an expression has the type bool, this one has {kind}\n | {text}")
        return CelExpression(text, referenced_names(compiled.serialize()) & self.names, compiled)

    def activation(self, facts: Mapping[str, Any]) -> Any:
        """Prepares facts for `evaluate`; sharing it among the rules of a device halves the cost."""
        return self._env.Activation(dict(facts))


def evaluate(expression: CelExpression, activation: Any) -> bool:
    """Returns the value of `expression`.

    Raises:
        EvaluationError: a fact is missing, a version is invalid, or the evaluation exceeds its limit.
    """
    try:
        value = expression.compiled.eval(activation)
        answer = value.value()
    except RuntimeError as e:
        raise EvaluationError(str(e)) from e
    if answer is True or answer is False:
        return bool(answer)
    raise EvaluationError(str(answer))


_POSITION: Final = re.compile(r"<input>:(\d+):(\d+): (.*)", re.DOTALL)


def _parse_error(raw: str) -> ExpressionError:
    text = raw.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ").removesuffix(" [INVALID_ARGUMENT]")
    text = text.replace(" (in container '')", "")
    match = _POSITION.match(text)
    if match is None:
        return ExpressionError(text)
    return ExpressionError(match.group(3), int(match.group(1)), int(match.group(2)))


# Field numbers: google.protobuf.Any.value, cel.expr.CheckedExpr.reference_map, its entries' value, Reference.name.
_ANY_VALUE: Final = 2
_REFERENCE_MAP: Final = 2
_ENTRY_VALUE: Final = 2
_REFERENCE_NAME: Final = 1
_TYPE: Final = b"type.googleapis.com/cel.expr.CheckedExpr"

_VARINT: Final = 0
_BYTES: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}  # wire type: bytes


def referenced_names(checked: bytes) -> frozenset[str]:
    """Returns the names of variables and functions in a serialized `CheckedExpr` (inside an `Any`).

    Raises:
        ValueError: the bytes have another form.
    """
    if _TYPE not in checked:
        raise ValueError("not a checked CEL expression")
    names: set[str] = set()
    for expression in protobuf_fields(checked, _ANY_VALUE):
        for entry in protobuf_fields(expression, _REFERENCE_MAP):
            for reference in protobuf_fields(entry, _ENTRY_VALUE):
                names.update(name.decode() for name in protobuf_fields(reference, _REFERENCE_NAME))
    return frozenset(names)


def protobuf_fields(message: bytes, field_number: int) -> Iterator[bytes]:
    """Yields the values of a field of type message, string or bytes in a protobuf message.

    Raises:
        ValueError: the bytes are no such message.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, at = _read_varint(message, at)
        elif wire == _BYTES:
            size, at = _read_varint(message, at)
            if number == field_number:
                yield message[at : at + size]
            at += size
        elif wire in _FIXED_SIZES:
            at += _FIXED_SIZES[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("truncated varint")
