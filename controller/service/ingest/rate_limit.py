"""Rate limits per device and channel: messages beyond the limit are not read.

A bucket is one number: the time until which what was taken so far is paid for. It needs no timer, and a bucket that is
full again is dropped, so memory grows with the devices that send now and not with those that are known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.ports.messages import IncomingMessage
from schemas.topics import TopicError, UpChannel, parse_up

MESSAGES_PER_SECOND: Final = 20.0  # of one device on one channel, sustained
MESSAGE_BURST: Final = 100  # messages at once, after silence
ANSWERS_PER_SECOND: Final = 1.0  # rejections of one device that are answered and stored
ANSWER_BURST: Final = 20  # as many as the store keeps for a device
LETTERS_PER_SECOND: Final = 500.0  # rejected messages of all devices that are stored
LETTER_BURST: Final = 1000  # as many as the store keeps at all
MAX_BUCKETS: Final = 50_000  # devices and channels that send at the same time
MAX_KEY: Final = 128  # characters; no valid topic is longer, and all others share one bucket
MAX_DEFERRED: Final = 10_000  # devices whose last status is deferred

# A status may have every open command sent again, an event becomes an audit entry, and a renewal costs a signature and
# rows of the registry: each counts as several messages.
_WEIGHTS: Final = {"/status": 10.0, "p/event": 4.0, "p/renew": 20.0}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limit of one device on one channel.

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
        """The number of buckets that are not known to be full."""
        return len(self._paid_until)

    def take(self, key: str, now: float, weight: float = 1.0) -> bool:
        """Takes from the bucket; false if it has not enough left."""
        paid_until = self._paid_until
        at = paid_until.get(key, now)
        if at <= now:
            if len(paid_until) >= self._most and key not in paid_until:
                self._evict(now)
            at = now
        elif at - now > self._slack + 1e-9:  # sums of fractions are not exact
            return False
        paid_until[key] = at + self._cost * weight
        return True

    def _evict(self, now: float) -> None:
        """Drops buckets that are full again; if that is not enough, the oldest ones."""
        left = {key: at for key, at in self._paid_until.items() if at > now}
        for key in list(left)[: max(0, len(left) - self._most // 2)]:
            del left[key]
        self._paid_until = left


class RateLimiter:
    """Decides which messages are read, and which rejections are answered and stored."""

    def __init__(self, share: RateLimit | None = None) -> None:
        share = share or RateLimit()
        self._messages = TokenBuckets(share.per_second, share.burst)
        self._answers = TokenBuckets(ANSWERS_PER_SECOND, ANSWER_BURST)
        self._letters = TokenBuckets(LETTERS_PER_SECOND, LETTER_BURST)
        self._deferred: dict[str, IncomingMessage] = {}
        self.why = f"more than {share.per_second:g} messages a second: this one was not read, send it later"

    @property
    def has_deferred_status(self) -> bool:
        return bool(self._deferred)

    def admit(
        self, messages: Sequence[IncomingMessage], now: float, is_awaited: Callable[[str], bool]
    ) -> tuple[list[IncomingMessage], list[IncomingMessage]]:
        """Returns the messages to read, in order, and those beyond the limit.

        `now` is monotonic seconds; `is_awaited` says whether a device owes the result of a command.
        """
        taken = self._due_statuses(now) if self._deferred else []
        over: list[IncomingMessage] = []
        for message in messages:
            topic = message.topic
            key = topic if len(topic) <= MAX_KEY else ""
            if self._messages.take(key, now, _WEIGHTS.get(topic[-7:], 1.0)):
                taken.append(message)
                if self._deferred:
                    self._deferred.pop(topic, None)  # superseded by this one
            elif not self._is_exempt(message, taken, is_awaited):
                over.append(message)
        return taken, over

    def _is_exempt(
        self, message: IncomingMessage, taken: list[IncomingMessage], is_awaited: Callable[[str], bool]
    ) -> bool:
        """Exempts messages that are not sent again: awaited results; the last status is deferred."""
        try:
            topic = parse_up(message.topic)
        except TopicError:
            return False
        if topic.channel is UpChannel.RESULT and is_awaited(topic.device_id):
            taken.append(message)
            return True
        if topic.channel is UpChannel.STATUS and (
            message.topic in self._deferred or len(self._deferred) < MAX_DEFERRED
        ):
            self._deferred[message.topic] = message
            return True
        return False

    def _due_statuses(self, now: float) -> list[IncomingMessage]:
        """Deferred statuses that the limit admits now."""
        due = [topic for topic in self._deferred if self._messages.take(topic, now, _WEIGHTS["/status"])]
        return [self._deferred.pop(topic) for topic in due]

    def may_send_receipt(self, device_id: str, now: float) -> bool:
        """Whether a rejection of this device is answered and stored; an empty id stands for all invalid topics."""
        return self._answers.take(device_id, now)

    def may_store_rejection(self, now: float) -> bool:
        """Whether one more rejected message of any device is stored."""
        return self._letters.take("", now)


def device_ids(messages: Iterable[IncomingMessage]) -> Iterable[tuple[IncomingMessage, str]]:
    """Each message with its device id, which is empty if the topic names none."""
    for message in messages:
        try:
            yield message, parse_up(message.topic).device_id
        except TopicError:
            yield message, ""
