"""Topic names and filters, matching, and the index of subscriptions. Pure."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controller.standin.options import MAX_TOPIC_BYTES

K = TypeVar("K", bound=Hashable)

SHARE_PREFIX = "$share/"
QUEUE_PREFIX = "$queue/"
DELAYED_PREFIX = "$delayed/"
EXCLUSIVE_PREFIX = "$exclusive/"


@dataclass(frozen=True, slots=True)
class ParsedFilter:
    """A topic filter and its share group; routing and access rules use the filter without the share prefix."""

    group: str | None
    filter: str


def valid_name(topic: str) -> bool:
    """Whether a text is a valid topic name."""
    return _valid_text(topic) and "+" not in topic and "#" not in topic


def valid_filter(topic: str) -> bool:
    """Whether a text, without share prefix, is a valid topic filter."""
    if not _valid_text(topic):
        return False
    levels = topic.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return False
        if "+" in level and level != "+":
            return False
    return True


def _valid_text(topic: str) -> bool:
    return bool(topic) and "\x00" not in topic and len(topic.encode()) <= MAX_TOPIC_BYTES


def level_count(topic: str) -> int:
    """Counts the levels of a topic."""
    return topic.count("/") + 1


def parse_filter(topic: str) -> ParsedFilter | None:
    """Parses a filter with an optional share prefix; returns None when filter or group is invalid."""
    group: str | None = None
    real = topic
    if topic.startswith(SHARE_PREFIX):
        group, _, real = topic[len(SHARE_PREFIX) :].partition("/")
        if not group or "+" in group or "#" in group:
            return None
    elif topic.startswith(QUEUE_PREFIX):
        group, real = "$queue", topic[len(QUEUE_PREFIX) :]
    # EMQX rejects nested share prefixes.
    if group is not None and real.startswith((SHARE_PREFIX, QUEUE_PREFIX)):
        return None
    return ParsedFilter(group, real) if valid_filter(real) else None


def unparse_filter(parsed: ParsedFilter) -> str:
    """Returns the filter with its share prefix, as in EMQX's API."""
    if parsed.group is None:
        return parsed.filter
    if parsed.group == "$queue":
        return QUEUE_PREFIX + parsed.filter
    return f"{SHARE_PREFIX}{parsed.group}/{parsed.filter}"


def matches(topic: str, pattern: str) -> bool:
    """Whether a pattern matches a topic, or in an access check the text of a filter.

    A leading wildcard never matches a topic that starts with `$`. [MQTT-4.7.2-1]
    """
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    names, levels = topic.split("/"), pattern.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(names) or (level not in ("+", names[index])):
            return False
    return len(names) == len(levels)


@dataclass(slots=True)
class _Node(Generic[K]):
    children: dict[str, "_Node[K]"] = field(default_factory=dict)
    keys: dict[K, None] = field(default_factory=dict)


@dataclass(slots=True)
class TopicIndex(Generic[K]):
    """Finds the keys whose patterns match a topic without checking every pattern."""

    _root: _Node[K] = field(default_factory=_Node)
    _exact: dict[str, dict[K, None]] = field(default_factory=dict)

    def add(self, pattern: str, key: K) -> None:
        """Adds a key with a pattern; idempotent."""
        if not _has_wildcard(pattern):
            self._exact.setdefault(pattern, {})[key] = None
            return
        node = self._root
        for level in pattern.split("/"):
            node = node.children.setdefault(level, _Node())
        node.keys[key] = None

    def remove(self, pattern: str, key: K) -> None:
        """Removes a key with a pattern, and empty branches."""
        if not _has_wildcard(pattern):
            keys = self._exact.get(pattern)
            if keys is not None:
                keys.pop(key, None)
                if not keys:
                    del self._exact[pattern]
            return
        path: list[tuple[_Node[K], str]] = []
        node = self._root
        for level in pattern.split("/"):
            child_node = node.children.get(level)
            if child_node is None:
                return
            path.append((node, level))
            node = child_node
        node.keys.pop(key, None)
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.keys or child.children:
                break
            del parent.children[level]

    def find(self, topic: str) -> list[K]:
        """Returns the keys whose pattern matches the topic, a key once for each of its patterns."""
        keys: list[K] = list(self._exact.get(topic, ()))
        if self._root.children:
            keys.extend(self._walk(topic))
        return keys

    def _walk(self, topic: str) -> Iterator[K]:
        names = topic.split("/")
        dollar = topic.startswith("$")
        stack: list[tuple[_Node[K], int]] = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            wild = not (dollar and depth == 0)
            if wild and (rest := node.children.get("#")) is not None:
                yield from rest.keys
            if depth == len(names):
                yield from node.keys
                continue
            if (exact := node.children.get(names[depth])) is not None:
                stack.append((exact, depth + 1))
            if wild and (plus := node.children.get("+")) is not None:
                stack.append((plus, depth + 1))


def _has_wildcard(pattern: str) -> bool:
    return "+" in pattern or "#" in pattern
