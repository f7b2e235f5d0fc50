"""The life of clients in the cluster: arrival, take-over, leaving, kick, expiry, and what each publishes."""

import json
from dataclasses import dataclass, replace

from controller.standin.access import authorize
from controller.standin.authz import ActionType, AuthzAction, Verdict
from controller.standin.client import Client
from controller.standin.messages import Message
from controller.standin.router import Router
from controller.standin.session import Session
from controller.standin.state import ClusterState

TAKEN_OVER, ADMINISTRATIVE_ACTION = 142, 152


@dataclass(slots=True)
class ClientRegistry:
    """Which client is where; every change of it goes through here."""

    state: ClusterState
    router: Router

    def open(self, client: Client) -> bool:
        """Make the client the owner of its id; whether it resumed a session.

        An earlier connection of the same id is ended first: its session goes over, or is discarded on a clean start.
        """
        old = self.state.clients.get(client.clientid)
        present = False
        if old is not None and client.clean_start:
            self._end(old, "discarded", TAKEN_OVER)
        elif old is not None:
            self._take_over(old)
            window = client.session.window
            client.session = old.session
            client.session.window = window
            present = True
        self.state.clients[client.clientid] = client
        self._presence(client, "connected", None)
        return present

    def _take_over(self, old: Client) -> None:
        if old.will is not None and (old.proto_ver == 3 or old.will.delay == 0):
            self._publish_will(old)
        old.will = None
        old.stop_timers()
        self._leave(old, "takenover", TAKEN_OVER)

    def closed(self, client: Client, reason: str) -> None:
        """The connection is gone: keep the session for as long as it was asked for, or end it."""
        if self.state.clients.get(client.clientid) is not client or client.link is None:
            return
        if client.will is not None and (client.proto_ver == 3 or client.will.delay == 0):
            self._publish_will(client)
        self._leave(client, reason, None)
        if client.expiry <= 0:
            self._finish(client, hand_over=True)
            return
        if client.will is not None:
            client.will_timer = self.state.call_later(client.will.delay, lambda: self._publish_will(client))
        if not client.never_expires:
            client.expiry_timer = self.state.call_later(client.expiry, lambda: self._finish(client, hand_over=True))

    def kick(self, clientid: str) -> bool:
        """End the connection and the session; False when there is neither."""
        client = self.state.clients.get(clientid)
        if client is None:
            return False
        self._end(client, "kicked", ADMINISTRATIVE_ACTION)
        return True

    def _end(self, client: Client, reason: str, code: int) -> None:
        self._publish_will(client)
        self._leave(client, reason, code)
        self._finish(client, hand_over=reason != "kicked")

    def _leave(self, client: Client, reason: str, code: int | None) -> None:
        """Close the connection if there is one and say so on the presence topic."""
        link, client.link = client.link, None
        if link is None:
            return
        client.disconnected_at = self.state.now()
        self._presence(client, "disconnected", reason)
        link.finish(code)

    def _finish(self, client: Client, *, hand_over: bool) -> None:
        client.stop_timers()
        self._publish_will(client)
        if self.state.clients.get(client.clientid) is client:
            del self.state.clients[client.clientid]
        self.router.forget_client(client)
        if hand_over:
            self.router.hand_over(client)

    def lose_node(self, name: str) -> None:
        """A node died: its sockets and sessions go without a word, as its memory does."""
        for client in [c for c in self.state.clients.values() if c.endpoint.node == name]:
            link, client.link = client.link, None
            client.stop_timers()
            client.will = None
            del self.state.clients[client.clientid]
            self.router.forget_client(client)
            if link is not None:
                link.abort()

    def _publish_will(self, client: Client) -> None:
        """Publish the last will once, unless rules or a ban forbid it now."""
        will, client.will = client.will, None
        if will is None:
            return
        now = self.state.now()
        message = replace(will.message, at=now, id=self.state.message_id())
        action = AuthzAction(ActionType.PUBLISH, message.qos, message.retain)
        who = client.identity
        if authorize(self.state, client, action, message.topic) is Verdict.DENY:
            return
        if not self.state.bans.refuses(who.clientid, who.username, who.peerhost, now):
            self.router.publish(message, client)

    def _presence(self, client: Client, event: str, reason: str | None) -> None:
        if not self.state.settings.sys_topics["sys_event_messages"][f"client_{event}"]:
            return
        now = self.state.now()
        payload: dict[str, object] = {
            # EMQX writes an absent user name as this word
            "username": "undefined" if client.identity.username is None else client.identity.username,
            "ts": _milliseconds(now),
            "sockport": client.endpoint.sockport,
            "protocol": "mqtt",
            "proto_ver": client.proto_ver,
            "proto_name": client.proto_name,
            "ipaddress": client.endpoint.peerhost,
            "connected_at": _milliseconds(client.connected_at),
            "clientid": client.clientid,
        }
        if reason is None:
            payload["keepalive"] = client.keepalive
            # EMQX has seconds in the API and milliseconds here
            payload["expiry_interval"] = int(client.expiry * 1000)
            payload["clean_start"] = client.clean_start
        else:
            payload["reason"] = reason
            payload["disconnected_at"] = _milliseconds(client.disconnected_at or now)
        node = client.endpoint.node
        topic = f"$SYS/brokers/{node}/clients/{client.clientid}/{event}"
        text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
        self.router.publish(Message(self.state.message_id(), topic, text, 0, False, node, None, now))


def _milliseconds(at: float) -> int:
    return int(at * 1000)


def new_session(state: ClusterState, receive_maximum: int) -> Session:
    """A session with the limits that hold at this moment; the client's own receive maximum only narrows them."""
    limits = state.settings.limits()
    return Session(
        created_at=state.now(),
        max_queue=limits.max_queue,
        store_qos0=limits.store_qos0,
        window=min(receive_maximum, limits.max_inflight),
    )
