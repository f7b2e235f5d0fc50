"""Gives every device its share, so that one that floods harms itself: what it says beyond the share is not read.

A bucket is one number: the moment until which what was taken so far is paid for. It needs no timer to fill up, and one
that is full again says nothing any more and is forgotten, so memory follows those who talk now, not those known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.ports.messages import IncomingMessage
from schemas.topics import TopicError, UpChannel, parse_up

MESSAGES_PER_SECOND: Final = 20.0  # of one device on one channel, sustained
MESSAGE_BURST: Final = 100  # messages at once, after silence
ANSWERS_PER_SECOND: Final = 1.0  # refusals of one device that are answered and kept
ANSWER_BURST: Final = 20  # as many as the store keeps for a device
LETTERS_PER_SECOND: Final = 500.0  # refused messages of all devices that are kept
LETTER_BURST: Final = 1000  # as many as the store keeps at all
MAX_BUCKETS: Final = 50_000  # devices and channels talking at one moment
MAX_KEY: Final = 128  # characters; no valid topic is longer, and all others share one bucket
MAX_HELD: Final = 10_000  # devices whose last status waits for its turn

# A status may send every open command again and an event becomes a line of the record: they count for more than one.
# A renewal costs a signature and rows in the registry.
_WEIGHTS: Final = {"/status": 10.0, "p/event": 4.0, "p/renew": 20.0}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What one device may say on one channel.

    Attributes:
        per_second: posture messages or results a second; a status counts as ten of them, an event as four.
        burst: how many at once.
    """

    per_second: float = MESSAGES_PER_SECOND
    burst: int = MESSAGE_BURST


class TokenBuckets:
    """Token buckets by key; times are monotonic seconds."""

    def __init__(self, per_second: float, burst: int, most: int = MAX_BUCKETS) -> None:
        self._cost = 1.0 / per_second
        self._slack = (burst - 1) / per_second
        self._most = most
        self._paid_until: dict[str, float] = {}

    def __len__(self) -> int:
        """Buckets that are not known to be full."""
        return len(self._paid_until)

    def take(self, key: str, now: float, weight: float = 1.0) -> bool:
        """Whether there is enough left in the bucket; if so it is taken."""
        paid_until = self._paid_until
        at = paid_until.get(key, now)
        if at <= now:
            if len(paid_until) >= self._most and key not in paid_until:
                self._make_room(now)
            at = now
        elif at - now > self._slack + 1e-9:  # sums of fractions are not exact
            return False
        paid_until[key] = at + self._cost * weight
        return True

    def _make_room(self, now: float) -> None:
        """Forget who has a full bucket again; if that is not enough, those who came first."""
        left = {key: at for key, at in self._paid_until.items() if at > now}
        for key in list(left)[: max(0, len(left) - self._most // 2)]:
            del left[key]
        self._paid_until = left


class RateLimiter:
    """Decides which messages are read, and which refusals are told and kept."""

    def __init__(self, share: RateLimit | None = None) -> None:
        share = share or RateLimit()
        self._messages = TokenBuckets(share.per_second, share.burst)
        self._answers = TokenBuckets(ANSWERS_PER_SECOND, ANSWER_BURST)
        self._letters = TokenBuckets(LETTERS_PER_SECOND, LETTER_BURST)
        self._held: dict[str, IncomingMessage] = {}
        self.why = f"more than {share.per_second:g} messages a second: this one was not read, send it later"

    @property
    def is_holding(self) -> bool:
        """Whether a status waits for its turn."""
        return bool(self._held)

    def choose(
        self, messages: Sequence[IncomingMessage], now: float, is_awaited: Callable[[str], bool]
    ) -> tuple[list[IncomingMessage], list[IncomingMessage]]:
        """Those to read, in order, and those beyond their device's share.

        `now` is monotonic seconds; `is_awaited` says whether a device owes the result of a command.
        """
        taken = self._due(now) if self._held else []
        over: list[IncomingMessage] = []
        for message in messages:
            topic = message.topic
            key = topic if len(topic) <= MAX_KEY else ""
            if self._messages.take(key, now, _WEIGHTS.get(topic[-7:], 1.0)):
                taken.append(message)
                if self._held:
                    self._held.pop(topic, None)  # a later word of the same device
            elif not self._spared(message, taken, is_awaited):
                over.append(message)
        return taken, over

    def _spared(
        self, message: IncomingMessage, taken: list[IncomingMessage], is_awaited: Callable[[str], bool]
    ) -> bool:
        """What nobody would send again must not be lost: a result that is waited for, and the last status."""
        try:
            topic = parse_up(message.topic)
        except TopicError:
            return False
        if topic.channel is UpChannel.RESULT and is_awaited(topic.device_id):
            taken.append(message)
            return True
        if topic.channel is UpChannel.STATUS and (message.topic in self._held or len(self._held) < MAX_HELD):
            self._held[message.topic] = message
            return True
        return False

    def _due(self, now: float) -> list[IncomingMessage]:
        """Held statuses whose turn has come."""
        due = [topic for topic in self._held if self._messages.take(topic, now, _WEIGHTS["/status"])]
        return [self._held.pop(topic) for topic in due]

    def may_answer(self, device_id: str, now: float) -> bool:
        """Whether a refusal of this device is answered and kept; an empty id stands for all that is nobody's."""
        return self._answers.take(device_id, now)

    def may_keep(self, now: float) -> bool:
        """Whether one more refused message is kept, of whatever device."""
        return self._letters.take("", now)


def devices_of(messages: Iterable[IncomingMessage]) -> Iterable[tuple[IncomingMessage, str]]:
    """Each message with its device's id, empty where the topic names none."""
    for message in messages:
        try:
            yield message, parse_up(message.topic).device_id
        except TopicError:
            yield message, ""
