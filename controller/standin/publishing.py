"""Converts messages from and to PUBLISH packets."""

from typing import Final

import mqtt5

from controller.standin.messages import NO_PROPERTIES, PublishProperties
from controller.standin.session import OutgoingPacket

_ENCODABLE: Final = str.maketrans("+#", "__")  # of the same length


def publish_properties(packet: mqtt5.PublishPacket) -> PublishProperties:
    """Returns the properties that subscribers get."""
    if not (
        packet.payload_format_indicator
        or packet.content_type is not None
        or packet.response_topic is not None
        or packet.correlation_data is not None
        or packet.user_properties
    ):
        return NO_PROPERTIES
    return PublishProperties(
        packet.payload_format_indicator,
        packet.content_type,
        packet.response_topic,
        packet.correlation_data,
        tuple(packet.user_properties),
    )


def encode_publish(item: OutgoingPacket, now: float) -> bytes:
    """Returns the frame of a PUBLISH for a subscriber.

    EMQX reports the presence of a client called `+` under a topic with a wildcard; the library refuses to encode it.
    """
    delivery = item.delivery
    message = delivery.message
    properties = message.properties
    encodable = message.topic.translate(_ENCODABLE)
    frame = mqtt5.PublishPacket(
        encodable,
        message.payload,
        qos=mqtt5.QoS(delivery.qos),
        retain=delivery.retain,
        packet_id=item.packet_id,
        duplicate=item.dup,
        payload_format_indicator=properties.payload_format_indicator,
        message_expiry_interval=message.remaining(now),
        content_type=properties.content_type,
        response_topic=properties.response_topic,
        correlation_data=properties.correlation_data,
        subscription_ids=None if delivery.subscription_id is None else [delivery.subscription_id],
        user_properties=list(properties.user_properties),
    ).write()
    return frame if encodable == message.topic else frame.replace(encodable.encode(), message.topic.encode(), 1)
