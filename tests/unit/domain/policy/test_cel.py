"""The rule language: types, positions of errors, versions, and the facts of an expression."""

import pytest

from controller.domain.policy.cel import (
    MAX_EXPRESSION,
    CelEnvironment,
    CelExpression,
    EvaluationError,
    ExpressionError,
    evaluate,
)

LANGUAGE = CelEnvironment({"ports": "list(int)", "name": "string", "on": "bool", "device.class": "string", "n": "int"})


def evaluated(text: str, **facts: object) -> bool:
    return evaluate(LANGUAGE.compile(text), LANGUAGE.activation(facts))


def test_expression_is_true_or_false() -> None:
    assert evaluated("23 in ports", ports=[22, 23]) is True
    assert evaluated("ports.exists(p, p > 23)", ports=[22, 23]) is False


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("!prots.exists(p, p == 23)", "undeclared reference to 'prots'", 1, 2),
        ("on &&\n  nme == 'x'", "undeclared reference to 'nme'", 2, 3),
        ("name < 3", "found no matching overload", 1, 6),
        ("1 +", "Syntax error", 1, 4),
        ("ports", "an expression has the type bool, this one has LIST<INT>", 1, 1),
        ("n" * (MAX_EXPRESSION + 1), f"expression too long: {MAX_EXPRESSION + 1} > {MAX_EXPRESSION}", 1, 1),
    ],
)
def test_compile_error_has_a_position(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(ExpressionError, match=message.replace("(", r"\(")) as caught:
        LANGUAGE.compile(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_compile_error_without_a_position_is_at_the_beginning() -> None:
    deep = "(" * 400 + "on" + ")" * 400
    with pytest.raises(ExpressionError) as caught:
        LANGUAGE.compile(deep)
    assert (caught.value.line, caught.value.column) >= (1, 1)


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("on", {"on"}),
        ("ports.exists(p, p == n)", {"ports", "n"}),
        ("device.class == 'name'", {"device.class"}),
        ("name != '''it's''' && on && name != 'x'", {"name", "on"}),
        (r"""name != r"\\" && on || name == "" """, {"name", "on"}),
        ("name == 'a' // on\n", {"name"}),
        ("true || on", {"on"}),
        # A variable that shadows a fact counts as the fact: unknown is safer than a pass.
        ("ports.exists(n, n == 1)", {"ports", "n"}),
        ("ports.size() == 0 && name.startsWith('ports')", {"ports", "name"}),
    ],
)
def test_facts_of_an_expression(text: str, uses: set[str]) -> None:
    assert LANGUAGE.compile(text).uses == uses


@pytest.mark.parametrize("text", ["older(name, '1', 'deb')", "older('1', '2', name)", "1 / n == 1", "ports[5] == 1"])
def test_failed_evaluation_is_an_error(text: str) -> None:
    with pytest.raises(EvaluationError):
        evaluated(text, name="not a version !!", n=0, ports=[])


def test_missing_fact_is_an_error() -> None:
    with pytest.raises(EvaluationError):
        evaluated("on")


def test_expensive_expression_is_an_error() -> None:
    text = "ports.all(a, ports.all(b, ports.all(c, ports.all(d, a + b + c + d >= 0))))"
    with pytest.raises(EvaluationError):
        evaluated(text, ports=list(range(256)))


def test_expressions_are_equal_by_their_text() -> None:
    first, second = LANGUAGE.compile("on"), LANGUAGE.compile("on")
    assert first == second
    assert hash(first) == hash(second)
    assert first != LANGUAGE.compile("!on")
    assert first != "on"
    assert CelExpression("on", frozenset(), None) == first
