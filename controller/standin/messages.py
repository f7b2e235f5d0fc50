"""Messages inside of the broker, between the publisher's and the subscribers' packets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishProperties:
    """MQTT 5 properties that the broker forwards to subscribers."""

    payload_format_indicator: int = 0
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


NO_PROPERTIES = PublishProperties()


@dataclass(frozen=True, slots=True)
class Message:
    """An application message; `at` is Unix time, `expiry` whole seconds or None for never."""

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
        """Whether the message must not be delivered any more."""
        return self.expiry is not None and now >= self.at + self.expiry

    def remaining(self, now: float) -> int | None:
        """Returns the expiry to send, reduced by the time in the broker. [MQTT-3.3.2-6]"""
        return None if self.expiry is None else max(1, self.expiry - int(now - self.at))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for one subscriber, with the options of its subscription applied."""

    message: Message
    qos: int
    retain: bool
    subscription_id: int | None = None
    share: tuple[str, str] | None = None  # group and filter of a shared subscription, for redispatch
