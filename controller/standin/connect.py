"""Processes CONNECT as EMQX does: checks, authentication, the client, the CONNACK."""

from dataclasses import dataclass

import mqtt5

from controller.standin import access
from controller.standin.authz import ClientIdentity
from controller.standin.client import Client, ClientEndpoint, Will
from controller.standin.messages import Message, PublishProperties
from controller.standin.options import MAX_PACKET_BYTES, MAX_SESSIONS, MAX_TOPIC_ALIAS
from controller.standin.session import new_session
from controller.standin.state import ClusterState
from controller.standin.topics import valid_name

PROTOCOL_ERROR, UNSUPPORTED_VERSION, BAD_CLIENT_ID, SERVER_BUSY = 130, 132, 133, 137
TOPIC_NAME_INVALID, QUOTA_EXCEEDED, QOS_NOT_SUPPORTED = 144, 151, 155
_V5, _V31 = 5, 3
_ASSIGNED_ID_BYTES = 12
_PROTO_NAMES = {3: "MQIsdp", 4: "MQTT", 5: "MQTT"}


@dataclass(frozen=True, slots=True)
class ConnectRefusal:
    """The CONNACK reason of a rejected client."""

    code: int
    clientid: str


def authenticate_connect(
    state: ClusterState, packet: mqtt5.ConnectPacket, version: int, endpoint: ClientEndpoint, common_name: str | None
) -> Client | ConnectRefusal:
    """Checks packet, bans and password, in EMQX's order; returns the client."""
    limits = state.limits_of(endpoint.listener)
    problem = _check(packet, version, limits.max_qos)
    if problem:
        return ConnectRefusal(problem, packet.client_id)
    clientid = packet.client_id
    if limits.cert_clientid and common_name:
        clientid = common_name
    if not clientid:
        clientid = "mqtt_" + state.randbytes(_ASSIGNED_ID_BYTES).hex()
    identity = ClientIdentity(clientid, packet.username, common_name, endpoint.peerhost)
    code, superuser = access.check_connect(state, identity, packet.password, endpoint)
    if not code and packet.authentication_method is not None and state.authn is not None:
        code = access.NOT_AUTHORIZED  # no authenticator supports the method
    if code:
        return ConnectRefusal(code, clientid)
    if state.max_sessions is not None and len(state.clients) >= state.max_sessions and clientid not in state.clients:
        return ConnectRefusal(QUOTA_EXCEEDED, clientid)  # the licence's limit; a known client gets in
    if len(state.clients) >= MAX_SESSIONS and clientid not in state.clients:
        return ConnectRefusal(SERVER_BUSY, clientid)
    now = state.now()
    return Client(
        identity=identity,
        endpoint=endpoint,
        proto_name=_PROTO_NAMES[version],
        proto_ver=version,
        keepalive=packet.keep_alive,
        clean_start=packet.clean_start,
        expiry=_expiry(packet, version, limits.session_expiry),
        session=new_session(limits, now, packet.receive_max),
        connected_at=now,
        is_superuser=superuser,
        will=_will(state, packet, identity, now),
    )


def _check(packet: mqtt5.ConnectPacket, version: int, max_qos: int) -> int:
    if not packet.client_id and (version == _V31 or (version < _V5 and not packet.clean_start)):
        return BAD_CLIENT_ID
    if packet.receive_max == 0:
        return PROTOCOL_ERROR
    if packet.will is not None:
        if not valid_name(packet.will.topic):
            return TOPIC_NAME_INVALID
        if int(packet.will.qos) > max_qos:
            return QOS_NOT_SUPPORTED
    return 0


def _expiry(packet: mqtt5.ConnectPacket, version: int, configured: float) -> float:
    if version == _V5:
        return float(packet.session_expiry_interval)
    return 0.0 if packet.clean_start else configured


def _will(state: ClusterState, packet: mqtt5.ConnectPacket, identity: ClientIdentity, now: float) -> Will | None:
    will = packet.will
    if will is None:
        return None
    properties = PublishProperties(
        will.payload_format_indicator,
        will.content_type,
        will.response_topic,
        will.correlation_data,
        tuple(will.user_properties),
    )
    message = Message(
        state.message_id(),
        will.topic,
        will.payload or b"",
        int(will.qos),
        will.retain,
        identity.clientid,
        identity.username,
        now,
        will.message_expiry_interval,
        properties,
    )
    return Will(message, will.will_delay_interval)


def connack_event(
    packet: mqtt5.ConnectPacket, version: int, endpoint: ClientEndpoint, clientid: str, code: int
) -> dict[str, object]:
    """Returns the event of a CONNACK, as rules see it."""
    properties = {"User-Property": dict(packet.user_properties)}
    return {
        "clientid": clientid,
        "username": access.shown_name(packet.username),
        "peername": endpoint.peername,
        "sockname": f"{endpoint.sockhost}:{endpoint.sockport}",
        "reason_code": access.CONNACK_NAMES[code],
        "proto_name": _PROTO_NAMES[version],
        "proto_ver": version,
        "keepalive": packet.keep_alive,
        "clean_start": packet.clean_start,
        "expiry_interval": packet.session_expiry_interval if version == _V5 else 0,
        "conn_props": properties if version == _V5 else {},
    }


def make_connack(client: Client, packet: mqtt5.ConnectPacket, max_qos: int, *, present: bool) -> mqtt5.ConnAckPacket:
    """Returns the successful CONNACK with the properties that EMQX sends."""
    return mqtt5.ConnAckPacket(
        session_present=present,
        assigned_client_id=None if packet.client_id else client.clientid,
        receive_max=client.session.window,
        topic_alias_max=MAX_TOPIC_ALIAS,
        max_packet_size=MAX_PACKET_BYTES,
        max_qos=mqtt5.QoS(max_qos),
    )
