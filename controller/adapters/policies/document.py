"""YAML as plain data with positions, and with bounds on nesting and size."""

from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from controller.ports.policies import PolicyProblem

MAX_DEPTH: Final = 16  # levels of nesting
MAX_NODES: Final = 20_000  # keys and values in one file, counted where an alias repeats them too
MAX_EXCERPT: Final = 160  # characters of a line that a problem shows

DocumentPath = tuple[str | int, ...]
_TAG: Final = "tag:yaml.org,2002:"
_NUMBERS: Final = frozenset(_TAG + name for name in ("int", "float"))
_MAX_NUMBER: Final = 64  # characters
_PLAIN_TYPES: Final = frozenset(_TAG + name for name in ("str", "int", "bool", "null", "float"))
_TOO_DEEP: Final = f"nested more than {MAX_DEPTH} levels deep"
_TOO_MANY: Final = f"more than {MAX_NODES} keys and values"
_COLLECTIONS: Final = frozenset((_TAG + "map", _TAG + "seq"))


@dataclass(slots=True)
class YamlDocument:
    """A parsed file: `data`, the nodes of all values and keys by path, and its problems."""

    source: str
    text: str
    data: Any = None
    values: dict[DocumentPath, Node] = field(default_factory=dict)
    keys: dict[DocumentPath, Node] = field(default_factory=dict)
    problems: list[PolicyProblem] = field(default_factory=list)

    def complain(self, index: int, message: str) -> None:
        """Adds a problem at the character `index` of the text."""
        index = min(max(index, 0), len(self.text))
        line_start = self.text.rfind("\n", 0, index) + 1
        line_end = self.text.find("\n", index)
        line = self.text[line_start : line_end if line_end >= 0 else len(self.text)].replace("\t", " ")
        offset = index - line_start
        # A long line is shown around the place that is meant.
        cut = max(0, offset - MAX_EXCERPT // 2) if len(line) > MAX_EXCERPT else 0
        shown = "".join(c if c.isprintable() else "?" for c in line[cut : cut + MAX_EXCERPT])
        number = self.text.count("\n", 0, index) + 1
        self.problems.append(PolicyProblem(self.source, number, offset + 1, message, shown, offset - cut + 1))

    def complain_of(self, path: DocumentPath, message: str, *, key: bool = False) -> None:
        """Adds a problem at the value (or the key) at `path`, or at the start of the file if there is none."""
        node = (self.keys if key else self.values).get(path)
        self.complain(node.start_mark.index if node is not None else 0, message)


class _TooMuchError(Exception):
    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node = node


class _BoundedLoader(yaml.SafeLoader):
    """Stops at the limits while it parses, before Python's recursion limit."""

    depth = 0
    left = MAX_NODES

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.left -= 1
        if self.depth >= MAX_DEPTH or self.left < 0:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # PyYAML's stubs leave it open
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP if self.left >= 0 else _TOO_MANY, problem_mark=mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def read_document(text: str, source: str) -> YamlDocument:
    """Parses `text`; errors are in `problems` of the result, never raised."""
    document = YamlDocument(source, text)
    try:
        loader = _BoundedLoader(text)
        try:
            root = loader.get_single_node()
            if root is None or root.tag == _TAG + "null":
                document.problems.append(PolicyProblem(source, 0, 0, "the file is empty: it would pass every device"))
            else:
                document.data = _Builder(document, loader).build(root, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        message = ": ".join(part for part in (e.context, e.problem) if part)
        document.complain(mark.index if mark is not None else 0, f"not YAML: {message}")
    except yaml.reader.ReaderError as e:
        document.complain(e.position, f"not text: {e.reason} (U+{ord(text[e.position]):04X})")
    except _TooMuchError as e:
        document.complain(e.node.start_mark.index, str(e))
    return document


class _Builder:
    def __init__(self, document: YamlDocument, loader: _BoundedLoader) -> None:
        self._document = document
        self._loader = loader
        self._left = MAX_NODES

    def build(self, node: Node, path: DocumentPath) -> Any:
        """Returns the plain value of `node`, None for an invalid one; adds its problems."""
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError(node, _TOO_MANY)
        # An alias may refer to a node that contains it.
        if len(path) > MAX_DEPTH:
            raise _TooMuchError(node, _TOO_DEEP)
        self._document.values[path] = node
        if not isinstance(node, ScalarNode) and node.tag not in _COLLECTIONS:
            self._document.complain(node.start_mark.index, f"unknown YAML tag {node.tag.removeprefix(_TAG)!r}")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.build(child, (*path, number)) for number, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: MappingNode, path: DocumentPath) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if key is None:
                self._document.complain(key_node.start_mark.index, "a key has to be text")
                continue
            if key in built:
                first = self._document.keys[(*path, key)].start_mark.line + 1
                self._document.complain(key_node.start_mark.index, f"{key!r} is a duplicate: first in line {first}")
                continue
            self._document.keys[(*path, key)] = key_node
            built[key] = self.build(value_node, (*path, key))
        return built

    def _scalar(self, node: Node) -> Any:
        at = node.start_mark.index
        if node.tag not in _PLAIN_TYPES:
            if node.tag.startswith("!"):
                message = "YAML takes text that starts with '!' for a tag: put the expression in quotes"
            else:
                message = f"YAML takes this for a {node.tag.removeprefix(_TAG)}: put it in quotes"
            self._document.complain(at, message)
            return None
        # PyYAML reads `1:30:00` as a number to the base 60, in time that grows with the square of its length.
        if node.tag in _NUMBERS and (":" in node.value or len(node.value) > _MAX_NUMBER):
            self._document.complain(at, "YAML takes this for a number: put it in quotes")
            return None
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as e:
            self._document.complain(at, f"cannot be read: {e}")
            return None


def index_within(text: str, node: ScalarNode, offset: int) -> int:
    """Returns the position in the file of the character `offset` of a scalar's value; `text` is the whole file.

    Quotes, escapes, folding and indentation lie between the two; what both have in common are the characters that are
    not blank, so those are counted.
    """
    value = node.value
    solid = sum(1 for c in value[:offset] if not c.isspace())
    at, end = node.start_mark.index, node.end_mark.index
    if node.style in ("|", ">"):
        at = text.find("\n", at, end) + 1  # the header line is no content
    elif node.style in ('"', "'"):
        at, end = at + 1, end - 1
    last = at
    for start, after, blank in _characters(text, at, end, node.style):
        if blank:
            continue
        if solid == 0:
            return start
        solid -= 1
        last = after
    return last


def _characters(text: str, at: int, end: int, style: str | None) -> list[tuple[int, int, bool]]:
    """Yields start, end and blankness of each character of a scalar in the file."""
    found = []
    while at < end:
        size = 1
        blank = text[at].isspace()
        if style == "'" and text.startswith("''", at):
            size = 2
        elif style == '"' and text[at] == "\\":
            kind = text[at + 1 : at + 2]
            size = {"x": 4, "u": 6, "U": 10}.get(kind, 2)
            blank = kind in " \n\t_nrtNLPvf"
        found.append((at, at + size, blank))
        at += size
    return found
