import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.standin.topics import (
    ParsedFilter,
    TopicIndex,
    level_count,
    matches,
    parse_filter,
    unparse_filter,
    valid_filter,
    valid_name,
)

LEVEL = st.sampled_from(["a", "b", "", "$x", "cordon"])
NAMES = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
PATTERNS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.one_of(LEVEL, st.just("+")), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@pytest.mark.parametrize(
    ("topic", "pattern", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/+", True),
        ("a/b", "#", True),
        ("a", "a/#", True),
        ("a/b/c", "a/+", False),
        ("a", "a/+", False),
        ("a/", "a/+", True),
        ("$SYS/x", "#", False),
        ("$SYS/x", "+/x", False),
        ("$SYS/x", "$SYS/#", True),
        ("a/#", "a/#", True),
        ("a/+/c", "a/#", True),
        ("#", "a/#", False),
    ],
)
def test_a_filter_matches_names_by_the_rules_of_mqtt(topic: str, pattern: str, expected: bool) -> None:
    assert matches(topic, pattern) is expected


@pytest.mark.parametrize("bad", ["", "a/#/b", "a#", "+a", "a/b+", "x\x00", "a" * 65_536])
def test_invalid_filters_are_rejected(bad: str) -> None:
    assert not valid_filter(bad)
    assert parse_filter(bad) is None


@pytest.mark.parametrize("bad", ["", "a/#", "+", "x\x00"])
def test_invalid_names_are_rejected(bad: str) -> None:
    assert not valid_name(bad)


@pytest.mark.parametrize("text", ["a/b", "$share/g/a/#", "$queue/a", "$SYS/brokers/+"])
def test_parsed_filters_round_trip(text: str) -> None:
    parsed = parse_filter(text)
    assert parsed is not None
    assert unparse_filter(parsed) == text


@pytest.mark.parametrize("bad", ["$share/g", "$share//a", "$share/g/", "$share/a+/b", "$share/g/$share/h/a"])
def test_invalid_share_filters_are_rejected(bad: str) -> None:
    assert parse_filter(bad) is None


def test_levels_are_counted() -> None:
    assert level_count("a") == 1
    assert level_count("a//b/") == 4


@given(st.lists(PATTERNS, max_size=12), NAMES)
def test_the_index_finds_the_same_filters_as_matching_each(patterns: list[str], topic: str) -> None:
    index: TopicIndex[int] = TopicIndex()
    for number, pattern in enumerate(patterns):
        index.add(pattern, number)
    expected = [n for n, p in enumerate(patterns) if matches(topic, p)]
    assert sorted(index.find(topic)) == expected


@given(st.lists(PATTERNS, max_size=12), NAMES)
def test_removing_every_filter_empties_the_index(patterns: list[str], topic: str) -> None:
    index: TopicIndex[int] = TopicIndex()
    for number, pattern in enumerate(patterns):
        index.add(pattern, number)
    for number, pattern in enumerate(patterns):
        index.remove(pattern, number)
    assert index.find(topic) == []
    assert index == TopicIndex()


def test_removing_an_absent_value_changes_nothing() -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add("a/+", "x")
    for pattern in ("a/+", "b/+", "c"):
        index.remove(pattern, "y")
    assert index.find("a/1") == ["x"]
    assert parse_filter("a") == ParsedFilter(None, "a")
