"""Compares topic filters of access rules as EMQX does: which filter covers another, which overlap. Pure.

A placeholder such as `${clientid}` stands for one unknown level: it covers only itself, is covered by `+`, and may
overlap anything. A wildcard in the first level does not match a topic that begins with `$`.
"""

import re
from typing import Final

MAX_FILTER: Final = 1024  # characters
MAX_LEVELS: Final = 128  # EMQX `mqtt.max_topic_levels`
EXACT: Final = "eq "  # prefix of a rule's topic whose wildcards are taken literally
_PLACEHOLDER: Final = re.compile(r"\$\{[^{}/]*\}")
_SHARED: Final = ("$queue/", "$exclusive/")


def validation_error(filter_: str) -> str:
    """Returns why a filter is invalid, empty if it is valid."""
    text = filter_.removeprefix(EXACT)
    if not text or len(text) > MAX_FILTER:
        return f"a topic has 1 to {MAX_FILTER} characters"
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return "a topic has no control characters"
    levels = text.split("/")
    if len(levels) > MAX_LEVELS:
        return f"a topic has at most {MAX_LEVELS} levels"
    for position, level in enumerate(levels):
        if "#" in level and (level != "#" or position != len(levels) - 1):
            return "# stands alone, as the last level"
        if "+" in level and level != "+":
            return "+ stands alone in its level"
    return ""


def placeholders(filter_: str) -> tuple[str, ...]:
    """Returns the placeholders with their braces."""
    return tuple(_PLACEHOLDER.findall(filter_))


def covers(wide: str, narrow: str) -> bool:
    """Whether `wide` matches everything that `narrow` matches."""
    if wide.startswith(EXACT):
        return wide == narrow
    return _levels_cover(_levels(wide), _levels(narrow.removeprefix(EXACT)))


def overlaps(first: str, second: str) -> bool:
    """Whether some topic may match both filters."""
    return _levels_overlap(_levels(first.removeprefix(EXACT)), _levels(second.removeprefix(EXACT)))


def matches(name: str, filter_: str) -> bool:
    """Whether a filter without placeholders matches a topic, or a subscription whose wildcards are taken literally."""
    if filter_.startswith(EXACT):
        return filter_.removeprefix(EXACT) == name
    return _levels_cover(_levels(filter_), _levels(name))


def real_topic(subscription: str) -> str:
    """Returns the filter of a shared or exclusive subscription, which EMQX checks against rules."""
    if subscription.startswith("$share/"):
        return subscription.split("/", 2)[-1]
    for prefix in _SHARED:
        if subscription.startswith(prefix):
            return subscription.removeprefix(prefix)
    return subscription


def _levels(text: str) -> list[str]:
    return text.split("/")


def _is_dollar_topic(levels: list[str]) -> bool:
    return levels[0].startswith("$") and not _PLACEHOLDER.match(levels[0])


def _levels_cover(wide: list[str], narrow: list[str]) -> bool:
    if _is_dollar_topic(narrow) and wide[0] in {"+", "#"}:
        return False
    for position, level in enumerate(wide):
        if level == "#":
            return True
        if position >= len(narrow) or narrow[position] == "#":
            return False
        if level not in {"+", narrow[position]}:
            return False
    return len(wide) == len(narrow) or (len(narrow) == len(wide) + 1 and narrow[-1] == "#" and wide[-1] == "#")


def _levels_overlap(first: list[str], second: list[str]) -> bool:
    for wildcard, other in ((first, second), (second, first)):
        if wildcard[0] in {"+", "#"} and _is_dollar_topic(other):
            return False
    for position in range(max(len(first), len(second))):
        left = first[position] if position < len(first) else None
        right = second[position] if position < len(second) else None
        if left == "#" or right == "#":
            return True  # `a/#` matches `a` as well
        if left is None or right is None:
            return False
        is_literal = not (_PLACEHOLDER.search(left) or _PLACEHOLDER.search(right))
        if left != right and "+" not in {left, right} and is_literal:
            return False
    return True
