"""Topic filters compared as EMQX reads them in access rules: which covers which, which may meet. Pure.

A placeholder such as `${clientid}` stands for one level that is not known here: it covers only itself, is covered by
`+`, and may meet anything. A topic that begins with `$` is matched by no wildcard in its first level.
"""

import re
from typing import Final

MAX_FILTER: Final = 1024  # characters
MAX_LEVELS: Final = 128  # EMQX `mqtt.max_topic_levels`
EXACT: Final = "eq "  # a rule whose topic begins so means its text, wildcards included
_PLACEHOLDER: Final = re.compile(r"\$\{[^}/]*\}")
_SHARED: Final = ("$queue/", "$exclusive/")


def validation_error(filter_: str) -> str:
    """What is wrong with the filter of a rule; empty if nothing is."""
    text = filter_.removeprefix(EXACT)
    if not text or len(text) > MAX_FILTER:
        return f"a topic has 1 to {MAX_FILTER} characters"
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return "a topic has no control characters"
    levels = text.split("/")
    if len(levels) > MAX_LEVELS:
        return f"a topic has at most {MAX_LEVELS} levels"
    for place, level in enumerate(levels):
        if "#" in level and (level != "#" or place != len(levels) - 1):
            return "# stands alone, as the last level"
        if "+" in level and level != "+":
            return "+ stands alone in its level"
    return ""


def placeholders(filter_: str) -> tuple[str, ...]:
    """The placeholders in it, with their braces."""
    return tuple(_PLACEHOLDER.findall(filter_))


def covers(wide: str, narrow: str) -> bool:
    """Whether everything that `narrow` means is meant by `wide` as well."""
    if wide.startswith(EXACT):
        return wide == narrow
    return _levels_cover(_levels(wide), _levels(narrow.removeprefix(EXACT)))


def overlaps(one: str, other: str) -> bool:
    """Whether there can be a topic that both mean."""
    return _levels_overlap(_levels(one.removeprefix(EXACT)), _levels(other.removeprefix(EXACT)))


def matches(name: str, filter_: str) -> bool:
    """Whether a filter without placeholders matches a topic, or a subscription, whose wildcards are then text."""
    if filter_.startswith(EXACT):
        return filter_.removeprefix(EXACT) == name
    return _levels_cover(_levels(filter_), _levels(name))


def real_topic(subscription: str) -> str:
    """The filter behind a shared or exclusive subscription, which is what EMQX asks rules about."""
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
    for place, level in enumerate(wide):
        if level == "#":
            return True
        if place >= len(narrow) or narrow[place] == "#":
            return False
        if level not in {"+", narrow[place]}:
            return False
    return len(wide) == len(narrow) or (len(narrow) == len(wide) + 1 and narrow[-1] == "#" and wide[-1] == "#")


def _levels_overlap(one: list[str], other: list[str]) -> bool:
    if (_is_dollar_topic(one) and other[0] in {"+", "#"}) or (_is_dollar_topic(other) and one[0] in {"+", "#"}):
        return False
    for place in range(max(len(one), len(other))):
        left = one[place] if place < len(one) else None
        right = other[place] if place < len(other) else None
        if left == "#" or right == "#":
            return True  # `a/#` means `a` as well
        if left is None or right is None:
            return False
        known = not (_PLACEHOLDER.search(left) or _PLACEHOLDER.search(right))
        if left != right and "+" not in {left, right} and known:
            return False
    return True
