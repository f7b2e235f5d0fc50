"""What more entries in an incomplete list do to a rule; checked by adding entries."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.policy.cel import CelEnvironment, evaluate
from controller.domain.policy.monotonicity import Growth, effect_of_growth

ENVIRONMENT: Final = CelEnvironment({"a": "list(string)", "n": "list(int)", "b": "bool", "soonest_expiry_days": "int"})
LISTS: Final = frozenset({"a", "n"})


@pytest.mark.parametrize(
    ("text", "growth"),
    [
        ('!("x" in a)', Growth.FALLS),
        ('a.all(e, e != "q")', Growth.FALLS),
        ("a.size() == 0", Growth.FALLS),
        ("0 == size(a)", Growth.FALLS),
        ("size(a) <= 3", Growth.FALLS),
        ("a.size() != 0", Growth.RISES),
        ('a.exists(e, e.startsWith("q"))', Growth.RISES),
        ('a.filter(e, e == "x").size() > 1', Growth.RISES),
        ('a.map(e, e == "y", e + "x").size() < 1', Growth.FALLS),
        ('["q"].exists(x, x in a)', Growth.RISES),
        ('b ? true : "x" in a', Growth.RISES),
        ('"x" in a || b', Growth.RISES),
        ("b", Growth.NONE),
        ('"a-b".contains("x")', Growth.NONE),
        ("a.size() == 1", Growth.EITHER),
        ('!a.exists_one(e, e == "x")', Growth.EITHER),
        ('a == ["x"]', Growth.EITHER),
        ('a[0] == "x"', Growth.EITHER),
        ('"x" in a && !("y" in a)', Growth.EITHER),
        ("!n.exists(p, p == 514) || a.size() > 0", Growth.EITHER),
    ],
)
def test_the_effect_of_more_entries(text: str, growth: Growth) -> None:
    assert effect_of_growth(ENVIRONMENT.compile(text), LISTS) is growth


def test_a_number_that_falls_with_more_entries() -> None:
    soonest = ENVIRONMENT.compile("soonest_expiry_days >= 14")
    assert effect_of_growth(soonest, frozenset({"soonest_expiry_days"})) is Growth.FALLS


ATOMS: Final = st.sampled_from(
    [
        "b", '"x" in a', "size(a) > 1", "a.size() == 0", 'a.exists(e, e == "y")', 'a.all(e, e != "x")',
        'a.filter(e, e != "z").size() <= 1', "n.exists(i, i > 2)", "n.all(i, i in [1, 2])", "size(n) != 0",
        'a.exists_one(e, e == "x")', 'n.exists(i, i == 1) && "y" in a', 'n.all(i, a.exists(e, e == "x"))',
    ]
)  # fmt: skip
EXPRESSIONS: Final = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) && ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) || ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"b ? ({two[0]}) : ({two[1]})"),
    ),
    max_leaves=4,
)
STRINGS: Final = st.lists(st.sampled_from(["x", "y", "z"]), max_size=4)
NUMBERS: Final = st.lists(st.integers(0, 4), max_size=4)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, st.booleans(), STRINGS, STRINGS, NUMBERS, NUMBERS)
def test_adding_entries_never_contradicts_the_analysis(
    text: str, flag: bool, known: list[str], hidden: list[str], numbers: list[int], more: list[int]
) -> None:
    expression = ENVIRONMENT.compile(text)
    growth = effect_of_growth(expression, LISTS)

    def value(strings: list[str], integers: list[int]) -> bool:
        facts = {"a": strings, "n": integers, "b": flag, "soonest_expiry_days": 0}
        return evaluate(expression, ENVIRONMENT.activation(facts))

    part, whole = value(known, numbers), value(known + hidden, numbers + more)
    if growth is Growth.NONE:
        assert part == whole
    elif growth is Growth.FALLS:
        assert part or not whole
    elif growth is Growth.RISES:
        assert whole or not part
