"""Errors in policy files, with their positions, and in knowledge files."""

from collections.abc import Iterable
from dataclasses import dataclass

from controller.ports.errors import ControllerError


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
