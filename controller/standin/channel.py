"""Processes the packets of one connection, with EMQX's order of checks and its answers."""

from collections.abc import Sequence
from typing import Protocol

import mqtt5

from controller.standin.access import authorize
from controller.standin.authz import ActionType, AuthzAction, Verdict, render
from controller.standin.client import Client, ClientConnection, ClientEndpoint
from controller.standin.connect import ConnectRefusal, authenticate_connect, connack_event, make_connack
from controller.standin.event_rules import CONNACK
from controller.standin.messages import NO_PROPERTIES, Delivery, Message
from controller.standin.options import MAX_TOPIC_LEVELS
from controller.standin.publishing import encode_publish, publish_properties
from controller.standin.registry import ClientRegistry
from controller.standin.session import OutgoingPacket, SubscriptionOptions
from controller.standin.topics import (
    EXCLUSIVE_PREFIX,
    ParsedFilter,
    level_count,
    parse_filter,
    valid_name,
)

NO_SUBSCRIBERS, NO_SUBSCRIPTION = 16, 17
PROTOCOL_ERROR, NOT_AUTHORIZED = 130, 135
TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID, PACKET_ID_IN_USE, PACKET_ID_NOT_FOUND = 143, 144, 145, 146
RECEIVE_MAX_EXCEEDED, TOPIC_ALIAS_INVALID, QOS_NOT_SUPPORTED = 147, 148, 155
REASON_NAMES = {
    0: "normal", 4: "disconnect_with_will_message", 128: "unspecified_error", 129: "malformed_packet",
    130: "protocol_error", 131: "implementation_specific_error", 135: "not_authorized",
    141: "keepalive_timeout", 143: "topic_filter_invalid", 144: "topic_name_invalid",
    147: "receive_maximum_exceeded", 148: "topic_alias_invalid", 149: "packet_too_large",
    151: "quota_exceeded", 152: "administrative_action", 153: "payload_format_invalid",
    155: "qos_not_supported",
}  # fmt: skip


class ChannelTransport(ClientConnection, Protocol):
    """The connection as the channel uses it."""

    version: int

    def send(self, packet: mqtt5.Packet) -> int:
        """Queues a packet; returns its size in bytes."""

    def send_frame(self, frame: bytes) -> int:
        """Queues an encoded MQTT 5 packet; returns its size in bytes."""

    def start_keepalive(self, keepalive: int) -> None:
        """Starts checking the keep-alive interval."""


class Channel:
    """The protocol state of one connection; the client may outlive it."""

    def __init__(
        self, registry: ClientRegistry, transport: ChannelTransport, endpoint: ClientEndpoint, common_name: str | None
    ) -> None:
        self._registry = registry
        self._router = registry.router
        self._state = registry.state
        self._transport = transport
        self._endpoint = endpoint
        self._common_name = common_name
        self._client: Client | None = None
        self._aliases: dict[int, str] = {}
        self._max_packet: int | None = None
        self._max_qos = 2

    # connect and disconnect ---------------------------------------------------------------------------------------

    def handle(self, packet: mqtt5.Packet) -> None:
        """Processes a packet."""
        client = self._client
        if isinstance(packet, mqtt5.ConnectPacket):
            if client is None:
                self._connect(packet)
            else:
                self.disconnect_client(PROTOCOL_ERROR)
        elif client is None:
            self._transport.finish(None)
        elif isinstance(packet, mqtt5.PublishPacket):
            self._publish(client, packet)
        elif isinstance(packet, mqtt5.PubAckPacket):
            self._advance(client, client.session.acknowledge(packet.packet_id))
        elif isinstance(packet, mqtt5.SubscribePacket):
            self._subscribe(client, packet)
        elif isinstance(packet, mqtt5.UnsubscribePacket):
            self._unsubscribe(client, packet)
        elif isinstance(packet, mqtt5.PingReqPacket):
            self._transport.send(mqtt5.PingRespPacket())
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self._disconnect(client, packet)
        else:
            self._handle_qos2(client, packet)

    def count_received(self, size: int) -> None:
        """Updates the counters of the client."""
        if self._client is not None:
            self._client.counters.recv_oct += size
            self._client.counters.recv_pkt += 1

    def reject_version(self, version: int) -> None:
        """Rejects an unsupported protocol version: CONNACK 1 below version 5, 132 above."""
        self._transport.version = 4 if version < 5 else 5
        self._reject_connect(132)

    def _reject_connect(self, code: int) -> None:
        self._transport.send(mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode(code)))
        self._transport.finish(None)

    def _connect(self, packet: mqtt5.ConnectPacket) -> None:
        client = authenticate_connect(self._state, packet, self._transport.version, self._endpoint, self._common_name)
        if isinstance(client, ConnectRefusal):
            self._emit_connack(packet, client.clientid, client.code)
            self._reject_connect(client.code)
            return
        self._emit_connack(packet, client.clientid, 0)
        self._max_packet = packet.max_packet_size
        present = self._registry.open(client)
        self._client = client
        client.connection = self._transport
        client.counters.recv_pkt = 1
        self._max_qos = self._state.limits_of(self._endpoint.listener).max_qos
        self._transport.send(make_connack(client, packet, self._max_qos, present=present))
        self._transport.start_keepalive(client.keepalive)
        self._auto_subscribe(client)
        if present:
            self.send_messages(
                client.session.resume(self._state.now(), lambda sender: not self._state.bans.sender_banned(sender))
            )

    def _emit_connack(self, packet: mqtt5.ConnectPacket, clientid: str, code: int) -> None:
        event = connack_event(packet, self._transport.version, self._endpoint, clientid, code)
        self._state.emit(CONNACK, self._endpoint.node, event)

    def _auto_subscribe(self, client: Client) -> None:
        """Makes the subscriptions of `auto_subscribe`, which no access rule concerns."""
        for row in self._state.auto_subscribe:
            topic = render(str(row["topic"]), client.identity)
            target = None if topic is None else parse_filter(topic)
            if target is None:
                continue
            options = SubscriptionOptions(row["qos"], bool(row["nl"]), bool(row["rap"]), row["rh"])
            for delivery in self._router.subscribe(client, target, options):
                client.deliver(delivery)

    def _disconnect(self, client: Client, packet: mqtt5.DisconnectPacket) -> None:
        asked = packet.session_expiry_interval
        if asked and client.expiry == 0:
            self.disconnect_client(PROTOCOL_ERROR)
            return
        if asked is not None:
            client.expiry = float(asked)
        if packet.reason_code == 0:
            client.will = None
        self._end(REASON_NAMES.get(int(packet.reason_code), "unknown_error"), None)

    def disconnect_client(self, code: int, reason: str | None = None) -> None:
        """Ends the connection, on MQTT 5 with a DISCONNECT."""
        self._end(reason or REASON_NAMES[code], code if self._client is not None else None)

    def _end(self, reason: str, code: int | None) -> None:
        client, self._client = self._client, None
        is_current = client is not None and client.connection is self._transport
        self._transport.finish(code)
        if client is not None and is_current:
            self._registry.on_connection_closed(client, reason)

    def on_socket_closed(self, reason: str) -> None:
        """Ends the connection after its socket was closed."""
        client, self._client = self._client, None
        if client is not None and client.connection is self._transport:
            self._registry.on_connection_closed(client, reason)

    # broker to client ---------------------------------------------------------------------------------------------

    def send_messages(self, out: Sequence[OutgoingPacket]) -> None:
        """Sends messages, except those above the client's maximum packet size."""
        client = self._client
        if client is None:
            return
        now = self._state.now()
        for item in out:
            if item.release:
                assert item.packet_id is not None
                self._transport.send(mqtt5.PubRelPacket(item.packet_id))
                continue
            frame = encode_publish(item, now)
            if self._max_packet is not None and len(frame) > self._max_packet:
                client.counters.send_too_large += 1
                continue
            client.counters.send_oct += self._transport.send_frame(frame)
            client.counters.send_pkt += 1
            client.counters.send_msg[item.delivery.qos] += 1

    def _advance(self, client: Client, result: bool | None) -> None:
        if result is None:
            self.disconnect_client(PROTOCOL_ERROR)
        elif result and client.session.queue:
            self.send_messages(client.session.refill(self._state.now()))

    # QoS 2 --------------------------------------------------------------------------------------------------------

    def _handle_qos2(self, client: Client, packet: mqtt5.Packet) -> None:
        session = client.session
        if isinstance(packet, mqtt5.PubRecPacket):
            result = session.received(packet.packet_id)
            if result is None:
                self.disconnect_client(PROTOCOL_ERROR)
                return
            code = 0 if result else PACKET_ID_NOT_FOUND
            self._transport.send(mqtt5.PubRelPacket(packet.packet_id, reason_code=mqtt5.PubRelReasonCode(code)))
        elif isinstance(packet, mqtt5.PubRelPacket):
            code = 0 if packet.packet_id in session.awaiting_rel else PACKET_ID_NOT_FOUND
            session.awaiting_rel.discard(packet.packet_id)
            self._transport.send(mqtt5.PubCompPacket(packet.packet_id, reason_code=mqtt5.PubCompReasonCode(code)))
        elif isinstance(packet, mqtt5.PubCompPacket):
            self._advance(client, session.completed(packet.packet_id))
        else:
            self.disconnect_client(PROTOCOL_ERROR)

    # publish ------------------------------------------------------------------------------------------------------

    def _publish(self, client: Client, packet: mqtt5.PublishPacket) -> None:
        qos = int(packet.qos)
        topic = self._resolve_topic(packet)
        if isinstance(topic, int):
            self.disconnect_client(topic)
            return
        action = AuthzAction(ActionType.PUBLISH, qos, packet.retain)
        client.counters.recv_msg[qos] += 1
        if authorize(self._state, client, action, topic) is Verdict.DENY:
            client.counters.recv_dropped += 1
            self._reject_publish(packet)
            return
        if level_count(topic) > MAX_TOPIC_LEVELS:
            self.disconnect_client(TOPIC_NAME_INVALID)
            return
        if qos > self._max_qos:
            self.disconnect_client(QOS_NOT_SUPPORTED)
            return
        if qos == 2 and not self._accept_qos2(client, packet):
            return
        code = 0 if self._router.publish(self._message(client, packet, topic), client) else NO_SUBSCRIBERS
        self._acknowledge(packet, code)

    def _resolve_topic(self, packet: mqtt5.PublishPacket) -> str | int:
        """Returns the topic, resolving an alias, or the reason code to disconnect with."""
        if packet.packet_id == 0 or packet.subscription_ids:
            return PROTOCOL_ERROR
        topic, alias = packet.topic, packet.topic_alias
        if alias == 0:
            return TOPIC_ALIAS_INVALID
        if not topic:
            if alias is None or alias not in self._aliases:
                return PROTOCOL_ERROR
            return self._aliases[alias]
        if not valid_name(topic):
            return TOPIC_NAME_INVALID
        if packet.response_topic is not None and not valid_name(packet.response_topic):
            return PROTOCOL_ERROR
        if alias is not None:
            self._aliases[alias] = topic
        return topic

    def _reject_publish(self, packet: mqtt5.PublishPacket) -> None:
        if self._state.settings.authz["deny_action"] == "disconnect":
            self.disconnect_client(NOT_AUTHORIZED)
        else:
            self._acknowledge(packet, NOT_AUTHORIZED)

    def _accept_qos2(self, client: Client, packet: mqtt5.PublishPacket) -> bool:
        assert packet.packet_id is not None
        session = client.session
        if packet.packet_id in session.awaiting_rel:
            self._acknowledge(packet, PACKET_ID_IN_USE)
            return False
        if session.awaiting_full():
            self.disconnect_client(RECEIVE_MAX_EXCEEDED)
            return False
        session.awaiting_rel.add(packet.packet_id)
        return True

    def _acknowledge(self, packet: mqtt5.PublishPacket, code: int) -> None:
        if packet.packet_id is None:
            return
        if packet.qos == 1:
            self._transport.send(mqtt5.PubAckPacket(packet.packet_id, reason_code=mqtt5.PubAckReasonCode(code)))
        else:
            self._transport.send(mqtt5.PubRecPacket(packet.packet_id, reason_code=mqtt5.PubRecReasonCode(code)))

    def _message(self, client: Client, packet: mqtt5.PublishPacket, topic: str) -> Message:
        return Message(
            self._state.message_id(),
            topic,
            packet.payload,
            int(packet.qos),
            packet.retain,
            client.clientid,
            client.identity.username,
            self._state.now(),
            packet.message_expiry_interval,
            NO_PROPERTIES if self._transport.version < 5 else publish_properties(packet),
        )

    # subscribe ----------------------------------------------------------------------------------------------------

    def _subscribe(self, client: Client, packet: mqtt5.SubscribePacket) -> None:
        parsed = [(parse_filter(f.pattern), f) for f in packet.topic_filters]
        if packet.packet_id == 0:
            self.disconnect_client(PROTOCOL_ERROR)
            return
        if not parsed or any(p is None for p, _ in parsed):
            self.disconnect_client(TOPIC_FILTER_INVALID)
            return
        if any(p is not None and p.group is not None and f.no_local for p, f in parsed):
            self.disconnect_client(PROTOCOL_ERROR)
            return
        codes: list[int] = []
        retained: list[Delivery] = []
        verdicts = [self._check_subscribe(client, p, int(f.max_qos)) for p, f in parsed if p is not None]
        if NOT_AUTHORIZED in verdicts and self._state.settings.authz["deny_action"] == "disconnect":
            self.disconnect_client(NOT_AUTHORIZED)
            return
        for (target, requested), code in zip(parsed, verdicts, strict=True):
            if code == 0 and target is not None:
                retained.extend(self._router.subscribe(client, target, self._options(requested, packet)))
                codes.append(int(requested.max_qos))
            else:
                codes.append(code)
        self._transport.send(mqtt5.SubAckPacket(packet.packet_id, [mqtt5.SubAckReasonCode(c) for c in codes]))
        for delivery in retained:
            client.deliver(delivery)

    def _options(self, requested: mqtt5.TopicFilter, packet: mqtt5.SubscribePacket) -> SubscriptionOptions:
        if self._transport.version < 5:
            return SubscriptionOptions(int(requested.max_qos))
        return SubscriptionOptions(
            int(requested.max_qos),
            requested.no_local,
            requested.retain_as_published,
            int(requested.retain_handling),
            packet.subscription_id,
        )

    def _check_subscribe(self, client: Client, parsed: ParsedFilter, qos: int) -> int:
        action = AuthzAction(ActionType.SUBSCRIBE, qos)
        if authorize(self._state, client, action, parsed.filter.removeprefix(EXCLUSIVE_PREFIX)) is Verdict.DENY:
            return NOT_AUTHORIZED
        if parsed.filter.startswith(EXCLUSIVE_PREFIX):
            return TOPIC_FILTER_INVALID  # EMQX: `exclusive_subscription` is off by default
        return TOPIC_FILTER_INVALID if level_count(parsed.filter) > MAX_TOPIC_LEVELS else 0

    def _unsubscribe(self, client: Client, packet: mqtt5.UnsubscribePacket) -> None:
        parsed = [parse_filter(pattern) for pattern in packet.patterns]
        if packet.packet_id == 0:
            self.disconnect_client(PROTOCOL_ERROR)
            return
        if not parsed or any(p is None for p in parsed):
            self.disconnect_client(TOPIC_FILTER_INVALID)
            return
        codes = [0 if p is not None and self._router.unsubscribe(client, p) else NO_SUBSCRIPTION for p in parsed]
        self._transport.send(mqtt5.UnsubAckPacket(packet.packet_id, [mqtt5.UnsubAckReasonCode(code) for code in codes]))
