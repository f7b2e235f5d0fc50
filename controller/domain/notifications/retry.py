"""When a failed delivery is tried again, and when it is given up."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.backoff import Backoff

PAUSE: Final = Backoff(first=2.0, cap=300.0)  # seconds before the next attempt
GIVE_UP: Final = 86_400.0  # seconds that a message waits; one last attempt is made then
REFUSALS: Final = 5  # attempts of a message that the receiver itself refuses
ALERT_AFTER: Final = 900.0  # seconds in which a sink takes nothing


class Fault(StrEnum):
    """What kept an attempt from succeeding.

    `sink`: unreachable, slow, overloaded or misconfigured; every other message would fail too. `message`: the receiver
    refused this message.
    """

    SINK = "sink"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt; `fault` is `None` if the message was taken. `trouble` is for people.

    `retry_after`: seconds that the receiver asked for, 0 if it did not.
    """

    fault: Fault | None = None
    trouble: str = ""
    retry_after: float = 0.0


DELIVERED: Final = Outcome()


def next_attempt(outcome: Outcome, attempts: int, queued_at: float, now: float, jitter: float) -> float | None:
    """Returns when the message is tried again (Unix seconds), or `None` if this attempt was the last one.

    `attempts` counts this one; `jitter` is in [0, 1).
    """
    if outcome.fault is Fault.MESSAGE and attempts >= REFUSALS:
        return None
    last = queued_at + GIVE_UP
    if now >= last:
        return None
    pause = PAUSE.ceiling(attempts - 1) * (0.5 + jitter / 2)
    pause = max(pause, min(outcome.retry_after, PAUSE.cap))
    return min(now + pause, last)
