"""Rows of clients and subscriptions, with the keys of the imitated release."""

from datetime import UTC, datetime
from typing import Any, Final

from controller.standin.client import Client
from controller.standin.options import MAX_AWAITING_REL
from controller.standin.release import EmqxRelease
from controller.standin.session import SubscriptionOptions
from controller.standin.topics import ParsedFilter, unparse_filter


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


# Values of Erlang processes and of features that the stand-in does not have.
_CONSTANT: Final[dict[str, Any]] = {
    "is_expired": False,
    "is_bridge": False,
    "durable": False,
    "enable_authn": True,
    "auth_expire_at": None,
    "mountpoint": None,
    "peersni": None,
    "subscriptions_max": "infinity",
    "awaiting_rel_max": MAX_AWAITING_REL,
    "heap_size": 0,
    "mailbox_len": 0,
    "reductions": 0,
    "recv_msg.dropped.await_pubrel_timeout": 0,
}


def client_row(client: Client, release: EmqxRelease) -> dict[str, Any]:
    """Returns a client in EMQX's format; values of Erlang processes (heap, reductions, mailbox) are 0."""
    session, endpoint = client.session, client.endpoint
    connected = client.connection is not None
    row: dict[str, Any] = {
        **_CONSTANT,
        **release.client,
        "clientid": client.clientid,
        "username": client.identity.username,
        "node": endpoint.node,
        "listener": endpoint.listener,
        "ip_address": endpoint.peerhost,
        "port": endpoint.peerport,
        "proto_name": client.proto_name,
        "proto_ver": client.proto_ver,
        "keepalive": client.keepalive,
        "clean_start": client.clean_start,
        "connected": connected,
        "is_persistent": client.expiry > 0,
        "expiry_interval": int(client.expiry),
        "created_at": _time(session.created_at),
        "connected_at": _time(client.connected_at),
        "client_attrs": {},
        "subscriptions_cnt": len(session.subscriptions),
        "inflight_cnt": len(session.inflight),
        "inflight_max": session.window,
        "mqueue_len": len(session.queue),
        "mqueue_max": session.max_queue or "infinity",
        "mqueue_dropped": session.dropped,
        "awaiting_rel_cnt": len(session.awaiting_rel),
        **_traffic(client),
    }
    if not connected and client.disconnected_at is not None:
        row["disconnected_at"] = _time(client.disconnected_at)
        row["disconn_props"] = {}
    return row


def _traffic(client: Client) -> dict[str, int]:
    session, counters = client.session, client.counters
    row = {
        "recv_oct": counters.recv_oct,
        "recv_cnt": counters.recv_pkt,
        "recv_pkt": counters.recv_pkt,
        "recv_msg": sum(counters.recv_msg),
        "recv_msg.dropped": counters.recv_dropped,
        "send_oct": counters.send_oct,
        "send_cnt": counters.send_pkt,
        "send_pkt": counters.send_pkt,
        "send_msg": sum(counters.send_msg),
        "send_msg.dropped": session.dropped + session.expired + counters.send_too_large,
        "send_msg.dropped.expired": session.expired,
        "send_msg.dropped.queue_full": session.dropped,
        "send_msg.dropped.too_large": counters.send_too_large,
    }
    for qos in range(3):
        row[f"recv_msg.qos{qos}"] = counters.recv_msg[qos]
        row[f"send_msg.qos{qos}"] = counters.send_msg[qos]
    return row


def subscription_row(client: Client, parsed: ParsedFilter, options: SubscriptionOptions) -> dict[str, Any]:
    """Returns a subscription in EMQX's format."""
    return {
        "clientid": client.clientid,
        "durable": False,
        "nl": int(options.no_local),
        "node": client.endpoint.node,
        "qos": options.qos,
        "rap": int(options.retain_as_published),
        "rh": options.retain_handling,
        "topic": unparse_filter(parsed),
    }
