"""Decisions that are made once more, because another controller changed what they rested on."""

import asyncio
import random
from contextvars import ContextVar
from typing import Final

from controller.ports.errors import ConflictError
from controller.ports.log import Log

MOST_ATTEMPTS: Final = 10  # of a decision that somebody waits for
_TOLD_EVERY: Final = 300  # attempts: about half a minute
PAUSE: Final = 0.02  # seconds, at most, before the second attempt; more before each of the next
# Set where somebody waits for an answer. Whatever else is decided goes on being tried.
MAY_GIVE_UP: Final = ContextVar("may_give_up", default=False)


async def pause(attempt: int, conflict: ConflictError, log: Log | None) -> None:
    """Waits before a decision is made once more, after so many attempts that others got ahead of."""
    if log is not None and (attempt == MOST_ATTEMPTS or attempt % _TOLD_EVERY == 0):
        log("others changed what was decided on, it is tried again", {"attempts": attempt, "cause": str(conflict)})
    longest = PAUSE * min(attempt, MOST_ATTEMPTS)
    await asyncio.sleep(longest * random.random())  # noqa: S311 - keeps controllers apart, no secret
