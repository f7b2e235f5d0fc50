"""Counts how a reader agrees with the program that owns its format, and what must hold."""

from collections.abc import Collection

MAX_UNKNOWN_SHARE = 0.02


class Verdicts:
    """The comparisons of one seed.

    A false pass: the program found something that the reader neither found nor reported as not understood.
    """

    def __init__(self, reader: str, seed: int) -> None:
        self._title = f"{reader}, seed {seed}"
        self.cases = 0
        self._unknown: list[str] = []
        self._false_passes: list[str] = []
        self._false_fails: list[str] = []

    def add(self, text: str, expected: Collection[str], found: Collection[str], *, is_unknown: bool) -> None:
        """Compares the findings of the program (`expected`) with those of the reader for one input."""
        self.cases += 1
        if is_unknown:
            self._unknown.append(text)
        elif missed := set(expected) - set(found):
            self._false_passes.append(f"{text}\nnot found: {sorted(missed)}")
        elif extra := set(found) - set(expected):
            self._false_fails.append(f"{text}\nonly found here: {sorted(extra)}")

    def check(self) -> None:
        """Prints the figures; fails on a false pass, a false fail, or too many inputs that were not understood."""
        counts = f"{len(self._false_passes)} false passes, {len(self._false_fails)} false fails, "
        counts += f"{len(self._unknown)} unknown"
        print(f"{self._title}: {self.cases} inputs, {counts}")
        assert not self._false_passes, f"{self._title}: {counts}\n{self._false_passes[0]}"
        assert not self._false_fails, f"{self._title}: {counts}\n{self._false_fails[0]}"
        assert len(self._unknown) <= MAX_UNKNOWN_SHARE * self.cases, f"{self._title}: {counts}\n{self._unknown[0]}"
