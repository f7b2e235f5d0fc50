"""How fast the work of a backtracking regular expression grows with the length of a text that it does not match.

The pattern becomes an automaton. If one of its states has two different ways back to itself over the same text, the
ways double with each repetition: exponential growth. If two states with such a way are joined by the same text, each
place of the change is tried: quadratic growth. Look-around and back-references are left out, which can only add ways.
"""

import importlib
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

sre: Final[Any] = importlib.import_module("re._constants")
parser: Final[Any] = importlib.import_module("re._parser")
_COPIES: Final = 2  # of a repeated part; with more repetitions it is a loop
_LOOP_FROM: Final = 64  # repetitions from which a bounded loop counts as one without end
_EXTRA: Final = "\0a0 \n\u00e9"  # characters that stand for all that no pattern names


@dataclass(slots=True)
class _Automaton:
    steps: list[list[tuple[frozenset[str], int]]] = field(default_factory=list)
    empty: list[list[int]] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)  # empty steps at the end of a text or line only
    lazy: set[int] = field(default_factory=set)  # what follows is tried before another repetition
    gates: list[list[int]] = field(default_factory=list)  # other empty steps that may fail

    def state(self) -> int:
        for steps in (self.steps, self.empty, self.ends, self.gates):
            steps.append([])
        return len(self.steps) - 1


class _Builder:
    def __init__(self, alphabet: frozenset[str], flags: int, *, is_inside: bool) -> None:
        """`is_inside`: the pattern is tried behind the beginning of the text."""
        self.automaton, self._alphabet, self._flags, self._is_inside = _Automaton(), alphabet, flags, is_inside

    def sequence(self, items: Iterable[Any], at: int) -> int:
        for kind, value in items:
            at = self._item(kind, value, at)
        return at

    def _item(self, kind: Any, value: Any, at: int) -> int:
        if kind in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN, sre.CATEGORY):
            end = self.automaton.state()
            self.automaton.steps[at].append((frozenset(c for c in self._alphabet if self._takes(kind, value, c)), end))
            return end
        if kind is sre.BRANCH:
            return self._branch(value[1], at)
        if kind is sre.SUBPATTERN:
            return self.sequence(value[3], at)
        if kind is sre.ATOMIC_GROUP:
            return self.sequence(value, at)
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            return self._repeat(kind, value, at)
        if kind is sre.GROUPREF_EXISTS:
            return self._branch([value[1], value[2] or []], at)
        end = self.automaton.state()  # anchors, look-around, back-references
        if kind is sre.AT and value is sre.AT_END:
            self.automaton.ends[at].append(end)
        elif not (kind is sre.AT and self._is_impossible(value)):
            self.automaton.gates[at].append(end)
        return end

    def _is_impossible(self, anchor: Any) -> bool:
        """Whether nothing that the pattern has behind the anchor can be tried there: behind its end a text is over."""
        if anchor is sre.AT_BEGINNING:
            return self._is_inside and not self._flags & re.MULTILINE
        return anchor is sre.AT_END_STRING or (anchor is sre.AT_BEGINNING_STRING and self._is_inside)

    def _branch(self, branches: Iterable[Any], at: int) -> int:
        end = self.automaton.state()
        for branch in branches:
            first = self.automaton.state()
            self.automaton.empty[at].append(first)
            self.automaton.empty[self.sequence(branch, first)].append(end)
        return end

    def _repeat(self, kind: Any, value: Any, at: int) -> int:
        least, most, items = value
        is_possessive = kind is sre.POSSESSIVE_REPEAT
        for _ in range(min(least, _COPIES)):
            at = self.sequence(items, at)
        is_loop = (most is sre.MAXREPEAT or most >= _LOOP_FROM) and not is_possessive
        if is_loop:
            first = self.automaton.state()
            self.automaton.empty[at].append(first)
            self.automaton.empty[self.sequence(items, first)].append(first)
            at = first
            if kind is sre.MIN_REPEAT:
                self.automaton.lazy.add(first)
        end = self.automaton.state()
        for _ in range(0 if is_loop else min(most - least, _COPIES)):
            self.automaton.empty[at].append(end)
            at = self.sequence(items, at)
        self.automaton.empty[at].append(end)
        return end

    def _takes(self, kind: Any, value: Any, char: str) -> bool:
        code = ord(char)
        if kind is sre.ANY:
            return char != "\n" or bool(self._flags & re.DOTALL)
        codes = {code, ord(char.lower()), ord(char.upper()[0])} if self._flags & re.IGNORECASE else {code}
        if kind is sre.LITERAL:
            return value in codes
        if kind is sre.NOT_LITERAL:
            return value not in codes
        if kind is sre.CATEGORY:
            return _in_category(value, char)
        is_negated, found = False, False
        for inner, one in value:
            if inner is sre.NEGATE:
                is_negated = True
            elif inner is sre.LITERAL:
                found = found or one in codes
            elif inner is sre.RANGE:
                found = found or any(one[0] <= each <= one[1] for each in codes)
            else:
                found = found or _in_category(one, char)
        return found != is_negated


def _in_category(category: Any, char: str) -> bool:
    name = str(category).removeprefix("CATEGORY_").removeprefix("UNI_")
    positive = {"DIGIT": char.isdigit(), "SPACE": char.isspace(), "WORD": char.isalnum() or char == "_"}
    return not positive[name.removeprefix("NOT_")] if name.startswith("NOT_") else positive[name]


def _alphabet(items: Iterable[Any]) -> Iterator[str]:
    """Yields characters that a pattern names, and those beside its ranges."""
    for kind, value in items:
        if kind in (sre.LITERAL, sre.NOT_LITERAL):
            yield chr(value)
        elif kind is sre.IN:
            yield from _alphabet(value)
        elif kind is sre.RANGE:
            yield from map(chr, value)
        elif kind is sre.BRANCH:
            for branch in value[1]:
                yield from _alphabet(branch)
        elif kind is sre.SUBPATTERN:
            yield from _alphabet(value[3])
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            yield from _alphabet(value[2])
        elif kind is sre.ATOMIC_GROUP:
            yield from _alphabet(value)
        elif kind is sre.GROUPREF_EXISTS:
            yield from _alphabet(value[1])
            yield from _alphabet(value[2] or [])


def growth(pattern: "re.Pattern[Any]", method: str) -> str:
    """Returns `linear`, `quadratic` (or more) or `exponential`; `method`: how it is used, such as `search`."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    tree = parser.parse(text, pattern.flags & ~re.UNICODE)
    places = (False,) if method in {"match", "fullmatch"} else (False, True)
    found = {_growth(tree, pattern.flags, is_inside=inside, is_full=method == "fullmatch") for inside in places}
    return max(found, key=("linear", "quadratic", "exponential").index)


def _growth(tree: Any, flags: int, *, is_inside: bool, is_full: bool) -> str:
    alphabet = frozenset({*_alphabet(tree), *_EXTRA})
    builder = _Builder(alphabet, flags, is_inside=is_inside)
    automaton, start = builder.automaton, builder.automaton.state()
    if is_inside:
        automaton.steps[start].append((alphabet, start))
        if _is_anchored(tree):  # to a line: behind its end only
            first = automaton.state()
            automaton.steps[start].append((frozenset("\n"), first))
            start = first
    end = builder.sequence(tree, start)
    if is_full:
        automaton.ends[end].append(end := automaton.state())
    moves, done = _without_empty(automaton), _always_done(automaton, end, alphabet - {"\n"})
    # What cannot fail any more is not tried another way.
    loops = {state: members for state, members in _loops(moves).items() if not members & done}
    if any(_is_ambiguous(moves, state, members) for state, members in loops.items()):
        return "exponential"
    pairs = ((p, q) for p, q in product(loops, loops) if p != q)
    if any(_are_joined(moves, p, loops[p], q, loops[q]) for p, q in pairs):
        return "quadratic"
    return "linear"


def _is_anchored(tree: Any) -> bool:
    for kind, value in tree:
        if kind is sre.SUBPATTERN:
            return _is_anchored(value[3])
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            return value[0] > 0 and _is_anchored(value[2])
        return kind is sre.AT and value in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
    return False


def _always_done(automaton: _Automaton, end: int, line: frozenset[str]) -> frozenset[int]:
    """Returns the states from which the pattern has matched, or matches however the line goes on."""
    done = _before(automaton, {end}, with_ends=False)
    for state in _before(automaton, {end}, with_ends=True) - automaton.lazy:
        goes_on = (chars for chars, after in automaton.steps[state] if state in _after(automaton, after))
        if line <= frozenset[str]().union(*goes_on):
            done |= {state}
    return frozenset(_before(automaton, done, with_ends=False))


def _before(automaton: _Automaton, states: set[int], *, with_ends: bool) -> set[int]:
    """Returns the states from which empty steps lead to one of these."""
    found, before = set(states), -1
    while before != len(found):
        before = len(found)
        for state, others in enumerate(automaton.empty):
            if not found.isdisjoint((*others, *(automaton.ends[state] if with_ends else ()))):
                found.add(state)
    return found


def _after(automaton: _Automaton, state: int) -> set[int]:
    """Returns the states to which empty steps lead."""
    seen, todo = {state}, [state]
    while todo:
        for other in automaton.empty[todo.pop()]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


Moves = list[list[tuple[frozenset[str], int]]]


def _without_empty(automaton: _Automaton) -> Moves:
    """Returns the steps with a character; each way over empty steps to it counts, as a backtracking engine tries it."""
    moves: Moves = []
    for state in range(len(automaton.steps)):
        found: list[tuple[frozenset[str], int]] = []
        seen, todo = {state}, [state]
        while todo:
            one = todo.pop()
            found += [step for step in automaton.steps[one] if step[0]]
            for other in (*automaton.empty[one], *automaton.ends[one], *automaton.gates[one]):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        moves.append(found)
    return moves


def _reachable(moves: Moves, start: int) -> set[int]:
    seen, todo = set[int](), [start]
    while todo:
        for _, after in moves[todo.pop()]:
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


def _loops(moves: Moves) -> dict[int, frozenset[int]]:
    """Returns each state that is on a loop, reachable from the start, with the states of its loops."""
    reach = {state: _reachable(moves, state) for state in {0, *_reachable(moves, 0)}}
    return {
        state: frozenset(other for other in reach[state] if other in reach and state in reach[other])
        for state in reach
        if state in reach[state]
    }


def _is_ambiguous(moves: Moves, state: int, members: frozenset[int]) -> bool:
    """Whether two different ways lead from a state back to itself over the same text."""
    todo = deque([(state, state, False)])
    seen = set(todo)
    while todo:
        first, second, differs = todo.popleft()
        for (at, (one, after)), (beside, (two, other)) in product(enumerate(moves[first]), enumerate(moves[second])):
            if after not in members or other not in members or not one & two:
                continue
            now = differs or after != other or (first == second and at != beside)
            if now and after == other == state:
                return True
            if (after, other, now) not in seen:
                seen.add((after, other, now))
                todo.append((after, other, now))
    return False


def _are_joined(moves: Moves, p: int, of_p: frozenset[int], q: int, of_q: frozenset[int]) -> bool:
    """Whether the same text leads from p to p, from p to q and from q to q."""
    todo = deque([(p, p, q)])
    seen = set(todo)
    while todo:
        here = todo.popleft()
        for (one, a), (two, b), (three, c) in product(*(moves[state] for state in here)):
            if a in of_p and c in of_q and one & two & three and (a, b, c) not in seen:
                if (a, b, c) == (p, q, q):
                    return True
                seen.add((a, b, c))
                todo.append((a, b, c))
    return False
