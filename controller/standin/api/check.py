"""Validates request bodies and queries as EMQX's schema does, with its error texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.standin.api.web import ApiError, Request, compact
from controller.standin.options import DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS

FieldProblem = dict[str, object]


class FieldError(ValueError):
    """A value is invalid; `problem` is EMQX's description of it."""

    def __init__(self, problem: FieldProblem) -> None:
        super().__init__(str(problem.get("reason")))
        self.problem = problem


Converter = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """The validation of one key of a body."""

    convert: Converter
    required: bool = False
    default: Any = None


def bad_request(problem: object) -> ApiError:
    """Returns a 400 with one or several problems, as JSON in its message."""
    return ApiError(400, "BAD_REQUEST", problem if isinstance(problem, str) else compact(problem))


def problem(path: str, reason: object, value: object = None, *, with_value: bool = True) -> FieldProblem:
    """Returns EMQX's description of an invalid value."""
    with_given: FieldProblem = {"value": value} if with_value else {}
    return {**with_given, "reason": reason, "path": path, "kind": "validation_error"}


def struct(path: str, value: object, fields: Mapping[str, Field]) -> tuple[dict[str, Any], list[FieldProblem]]:
    """Validates an object; returns its valid fields and the problems."""
    if not isinstance(value, dict):
        return {}, [problem(path, "bad_value_for_struct", with_value=False)]
    out: dict[str, Any] = {}
    wrong: list[FieldProblem] = []
    for name, spec in fields.items():
        where = f"{path}.{name}"
        given = value.get(name)
        if given is None:
            if spec.required:
                wrong.append(problem(where, "required_field", with_value=False))
            else:
                out[name] = spec.default
            continue
        try:
            out[name] = spec.convert(where, given)
        except FieldError as error:
            wrong.append(error.problem)
    if not wrong and (unknown := [k for k in value if k not in fields]):
        wrong.append(
            {
                "unmatched": ",".join(sorted(k for k in fields if k not in value)),
                "unknown": ",".join(unknown),
                "reason": "unknown_fields",
                "path": path,
                "kind": "validation_error",
            }
        )
    return out, wrong


def body_object(request: Request, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Returns the validated body, an object.

    Raises:
        ApiError: 400 with one problem as an object, several as a list.
    """
    out, wrong = struct("root", request.json(), fields)
    _raise(wrong)
    return out


def body_objects(request: Request, fields: Mapping[str, Field], limit: int) -> list[dict[str, Any]]:
    """Returns the validated body, a list of objects; paths count from one.

    Raises:
        ApiError: 400 when it is not a list, too long, or an item is invalid.
    """
    value = request.json()
    if not isinstance(value, list):
        raise bad_request(problem("root", "bad_array_value", with_value=False))
    if len(value) > limit:
        raise bad_request(problem("root", f"more than {limit} items", with_value=False))
    rows: list[dict[str, Any]] = []
    wrong: list[FieldProblem] = []
    for index, item in enumerate(value, 1):
        row, problems = struct(f"root.{index}", item, fields)
        rows.append(row)
        wrong.extend(problems)
    _raise(wrong)
    return rows


def _raise(wrong: Sequence[FieldProblem]) -> None:
    if wrong:
        raise bad_request(wrong[0] if len(wrong) == 1 else list(wrong))


def text(path: str, value: Any) -> str:
    """Converts a string."""
    if not isinstance(value, str):
        raise FieldError(problem(path, "invalid_type", value))
    return value


def boolean(path: str, value: Any) -> bool:
    """Converts a boolean, also as text."""
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    raise FieldError(problem(path, "bad_value_for_boolean", value))


def number(low: int, high: int) -> Converter:
    """Converts an integer within bounds, also as text."""

    def convert(path: str, value: Any) -> int:
        if isinstance(value, str) and value.lstrip("-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise FieldError(problem(path, "invalid_type", value))
        if not low <= value <= high:
            raise FieldError(problem(path, "out_of_range", value))
        return value

    return convert


def one_of(*allowed: str) -> Converter:
    """Converts one of the allowed values."""

    def convert(path: str, value: Any) -> str:
        if value not in allowed:
            raise FieldError(problem(path, "not_a_enum_symbol", value))
        return str(value)

    return convert


@dataclass(frozen=True, slots=True)
class Page:
    """Number and size of a requested page."""

    page: int
    limit: int

    def slice(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Returns the rows of this page."""
        return rows[(self.page - 1) * self.limit : self.page * self.limit]

    def meta(self, count: int, *, hasnext: bool = True, counted: bool = True) -> dict[str, object]:
        """Returns the `meta` object; EMQX omits the count where it would have to scan for it."""
        meta: dict[str, object] = {"count": count} if counted else {}
        if hasnext:
            meta["hasnext"] = self.page * self.limit < count
        return {**meta, "limit": self.limit, "page": self.page}


def page_of(request: Request) -> Page:
    """Returns the page that a request asks for.

    Raises:
        ApiError: 400 when a number is out of bounds.
    """
    values = []
    for name, default, high in (("page", 1, 10**9), ("limit", DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS)):
        given = request.first(name)
        try:
            values.append(default if given is None else number(1, high)(name, given))
        except FieldError as error:
            raise bad_request(error.problem) from error
    return Page(values[0], values[1])
