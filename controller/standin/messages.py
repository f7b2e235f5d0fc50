"""The message as the broker holds it, between the publisher's packet and the subscribers' packets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishProperties:
    """What MQTT 5 lets a publisher attach and a broker must pass on."""

    payload_format_indicator: int = 0
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


NO_PROPERTIES = PublishProperties()


@dataclass(frozen=True, slots=True)
class Message:
    """One application message; `at` is wall-clock seconds, `expiry` whole seconds or None for never."""

    id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    sender: str
    username: str | None
    at: float
    expiry: int | None = None
    properties: PublishProperties = NO_PROPERTIES

    def expired(self, now: float) -> bool:
        """Whether nobody may receive it any more."""
        return self.expiry is not None and now >= self.at + self.expiry

    def remaining(self, now: float) -> int | None:
        """The expiry to send on, shortened by the time the broker held it."""
        return None if self.expiry is None else max(1, self.expiry - int(now - self.at))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way to one subscriber, with what that subscription changes."""

    message: Message
    qos: int
    retain: bool
    subscription_id: int | None = None
    share: tuple[str, str] | None = None  # group and filter, so that a dying member can hand it over
