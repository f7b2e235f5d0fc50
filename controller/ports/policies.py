"""Policies as texts, the set in force that controllers share, and errors in files with their positions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.domain.policy.model import PolicySet
from controller.ports.errors import ControllerError

PolicyTexts = tuple[tuple[str, str], ...]  # name of the file, and what is in it


@dataclass(frozen=True, slots=True)
class StoredPolicySet:
    """The policies in force of all controllers on a store.

    `epoch` grows with each set, 0: none yet. `by`: who put it in force, at which `controller`, `at` Unix seconds.
    """

    epoch: int
    version: str = ""
    texts: PolicyTexts = ()
    by: str = ""
    controller: str = ""
    at: float = 0.0


class PolicySetStore(Protocol):
    """The set in force, in the store."""

    async def epoch(self) -> int:
        """The epoch of the set in force."""
        ...

    async def present(self) -> StoredPolicySet:
        """The set in force."""
        ...

    async def replace(self, fresh: StoredPolicySet) -> bool:
        """Puts `fresh` in force if that of the epoch before it still is; from then on no decision of that is stored."""
        ...


class PolicyTextReader(Protocol):
    """This host's policy files, and how texts become policies."""

    def read(self) -> PolicyTexts:
        """Raises PolicyError: a file cannot be read."""
        ...

    def compile(self, texts: PolicyTexts) -> PolicySet:
        """Raises PolicyError: a mistake in them."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """An error and its position: line and column from 1, 0 if it concerns the whole file.

    `excerpt` is the line of the file, `caret` the column within it.
    """

    source: str
    line: int
    column: int
    message: str
    excerpt: str = ""
    caret: int = 0

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        text = f"{place}: {self.message}"
        if self.excerpt:
            text += f"\n {self.excerpt}\n {' ' * (self.caret - 1)}^"
        return text


class PolicyError(ControllerError):
    """Policies cannot be used; `str()` has every problem of every file.

    Attributes:
        problems: all of them, in the order of files and lines.
    """

    def __init__(self, problems: Iterable[PolicyProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class KnowledgeError(ControllerError):
    """A knowledge file cannot be used; the text says why."""
