"""The life cycle of clients: connect, take-over, disconnect, kick, expiry; publishes wills and presence messages."""

import json
from dataclasses import dataclass, replace

from controller.standin.access import authorize
from controller.standin.authz import ActionType, AuthzAction, Verdict
from controller.standin.client import Client
from controller.standin.messages import Message
from controller.standin.router import Router
from controller.standin.state import ClusterState

TAKEN_OVER, ADMINISTRATIVE_ACTION = 142, 152


@dataclass(slots=True)
class ClientRegistry:
    """Changes the table of clients; no other code does."""

    state: ClusterState
    router: Router

    def open(self, client: Client) -> bool:
        """Registers a connected client; returns whether it resumed a session.

        An existing connection with the same id is closed first; its session is taken over, or discarded on clean start.
        """
        old = self.state.clients.get(client.clientid)
        present = False
        if old is not None and client.clean_start:
            self._terminate_session(old, "discarded", TAKEN_OVER)
        elif old is not None:
            self._take_over(old)
            window = client.session.window
            client.session = old.session
            client.session.window = window
            present = True
        self.state.clients[client.clientid] = client
        if present:
            self.router.rejoin(client)
        self._presence(client, "connected", None)
        return present

    def _take_over(self, old: Client) -> None:
        if old.will is not None and (old.proto_ver == 3 or old.will.delay == 0):
            self._publish_will(old)
        old.will = None
        old.stop_timers()
        self._disconnect(old, "takenover", TAKEN_OVER)

    def on_connection_closed(self, client: Client, reason: str) -> None:
        """Keeps the session until it expires, or ends it; the connection was closed."""
        if self.state.clients.get(client.clientid) is not client or client.connection is None:
            return
        if client.will is not None and (client.proto_ver == 3 or client.will.delay == 0):
            self._publish_will(client)
        self._disconnect(client, reason, None)
        if client.expiry <= 0:
            self._release(client, redispatch=True)
            return
        if client.will is not None:
            client.will_timer = self.state.call_later(client.will.delay, lambda: self._publish_will(client))
        if not client.never_expires:
            # What an expired session of a share group kept is dropped (emqx/emqx#12257, open since 5.4).
            client.expiry_timer = self.state.call_later(client.expiry, lambda: self._release(client, redispatch=False))

    def kick(self, clientid: str) -> bool:
        """Ends connection and session; returns False when there is neither. A hung node does so when it resumes."""
        client = self.state.clients.get(clientid)
        if client is None:
            return False
        if self.state.is_hung(client.endpoint.node):
            self.state.waiting.append(lambda: self._kick_later(client))
            return True
        self._terminate_session(client, "kicked", ADMINISTRATIVE_ACTION)
        return True

    def _kick_later(self, client: Client) -> None:
        if self.state.clients.get(client.clientid) is client:
            self.kick(client.clientid)

    def _terminate_session(self, client: Client, reason: str, code: int) -> None:
        self._publish_will(client)
        self._disconnect(client, reason, code)
        self._release(client, redispatch=reason != "kicked")

    def _disconnect(self, client: Client, reason: str, code: int | None) -> None:
        """Closes the connection, if any, and publishes the presence message."""
        connection, client.connection = client.connection, None
        if connection is None:
            return
        client.disconnected_at = self.state.now()
        self._presence(client, "disconnected", reason)
        connection.finish(code)

    def _release(self, client: Client, *, redispatch: bool) -> None:
        client.stop_timers()
        self._publish_will(client)
        if self.state.clients.get(client.clientid) is client:
            del self.state.clients[client.clientid]
        self.router.forget_client(client)
        if redispatch:
            self.router.redispatch_shared(client)

    def drop_node(self, name: str, *, closes: bool = True) -> None:
        """Removes the clients of a lost node, without wills and presence messages; `closes`: their sockets too."""
        for client in [c for c in self.state.clients.values() if c.endpoint.node == name]:
            self.router.drop(client, closes=closes)

    def _publish_will(self, client: Client) -> None:
        """Publishes the will once, unless rules or a ban forbid it."""
        will, client.will = client.will, None
        if will is None:
            return
        now = self.state.now()
        message = replace(will.message, at=now, id=self.state.message_id())
        action = AuthzAction(ActionType.PUBLISH, message.qos, message.retain)
        identity = client.identity
        if authorize(self.state, client, action, message.topic) is Verdict.DENY:
            return
        if not self.state.bans.is_banned(identity.clientid, identity.username, identity.peerhost, now):
            self.router.publish(message, client)

    def _presence(self, client: Client, event: str, reason: str | None) -> None:
        if not self.state.settings.sys_topics["sys_event_messages"][f"client_{event}"]:
            return
        now = self.state.now()
        properties = self.state.release.presence_has_properties
        payload: dict[str, object] = {
            # EMQX's value for a missing user name
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
            # milliseconds, unlike in the API
            payload["expiry_interval"] = int(client.expiry * 1000)
            payload["clean_start"] = client.clean_start
            if properties:
                payload |= {"client_attrs": {}, "conn_props": {}, "receive_maximum": client.session.window}
        else:
            payload["reason"] = reason
            payload["disconnected_at"] = _milliseconds(client.disconnected_at or now)
            if properties:
                payload |= {"client_attrs": {}, "disconn_props": {}}
        node = client.endpoint.node
        topic = f"$SYS/brokers/{node}/clients/{client.clientid}/{event}"
        text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
        self.router.publish(Message(self.state.message_id(), topic, text, 0, False, node, None, now))


def _milliseconds(at: float) -> int:
    return int(at * 1000)
