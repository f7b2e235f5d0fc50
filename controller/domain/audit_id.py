"""How a line of the audit log is named: by the run of a controller that wrote it, and by its number there."""

import re
from dataclasses import dataclass
from typing import Final, Self

_SEQ_BITS: Final = 40
KEYS: Final = 1 << _SEQ_BITS  # keys of one writer; more than it can ever use
_MAX_WRITER: Final = (1 << 22) - 1  # a key has 63 bits
FIRST_WRITER: Final = 1  # the only one on SQLite; on PostgreSQL, what was before the first controller, and commands
_FORM: Final = re.compile(r"([0-9]{1,7})-([0-9]{1,12})\Z")
CURSOR_FORM: Final = r"^[0-9]{1,7}-[0-9]{1,12}(@[0-9]{1,12}(\.[0-9]{1,17})?)?$"


@dataclass(frozen=True, slots=True, order=True)
class AuditId:
    """`WRITER-SEQ`: `seq` counts the lines of one writer from 1 on, without gaps."""

    writer: int
    seq: int

    def __str__(self) -> str:
        return f"{self.writer}-{self.seq}"

    @property
    def key(self) -> int:
        """The line's key in the table."""
        return self.writer * KEYS + self.seq

    @classmethod
    def of_key(cls, key: int) -> Self:
        return cls(*divmod(key, KEYS))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `WRITER-SEQ`.

        Raises:
            ValueError: the text has another form.
        """
        found = _FORM.match(text)
        if found is None or int(found[1]) > _MAX_WRITER:
            raise ValueError(f"{text!r} is not an audit line: WRITER-SEQ, such as 1-4711")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class AuditCursor:
    """A place in the log in the order of lists (time, writer, seq), which stays right when its line is pruned.

    `at`: Unix seconds of the line; `None`: to be looked up.
    """

    id: AuditId
    at: float | None = None

    def __str__(self) -> str:
        return str(self.id) if self.at is None else f"{self.id}@{self.at!r}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the text of a cursor, or the name of a line.

        Raises:
            ValueError: the text has another form.
        """
        name, _, at = text.partition("@")
        return cls(AuditId.parse(name), float(at) if at else None)
