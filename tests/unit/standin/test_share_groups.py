"""Share groups of the stand-in: lists of members that nodes order differently, and sessions that expire.

Both are read in EMQX's source and issues, not recorded: a race between nodes, and a loss that may be mended one day.
"""

from collections.abc import Callable
from typing import Any

from controller.standin.authz import ClientIdentity
from controller.standin.client import Client, ClientEndpoint
from controller.standin.messages import Message
from controller.standin.registry import ClientRegistry
from controller.standin.router import REPLICATION_SECONDS, Router
from controller.standin.session import Session, SubscriptionOptions
from controller.standin.state import ClusterState
from controller.standin.topics import ParsedFilter

GROUP = ParsedFilter("g", "up")
DEVICES = tuple(f"dev{number}" for number in range(16))


class Cluster:
    """A router without sockets: what a member gets is in its queue; time passes when told."""

    def __init__(self, strategy: str = "hash_clientid") -> None:
        self.now = 0.0
        self.due: list[Callable[[], Any]] = []
        self.state = ClusterState(now=lambda: self.now, call_later=self._later, randbytes=bytes)
        self.state.settings.zone["mqtt"]["shared_subscription_strategy"] = strategy
        self.router = Router(self.state, lambda _members: 0)
        self.registry = ClientRegistry(self.state, self.router)

    def _later(self, _seconds: float, call: Callable[[], Any]) -> Any:
        self.due.append(call)

    def client(self, name: str, node: str, expiry: float = 0.0) -> Client:
        endpoint = ClientEndpoint(node, "tcp:default", "127.0.0.1", 1883, "127.0.0.1", 50_000)
        made = Client(ClientIdentity(name, None), endpoint, "MQTT", 5, 60, False, expiry, Session(self.now), self.now)
        self.registry.open(made)
        return made

    def join(self, name: str, node: str, expiry: float = 0.0) -> Client:
        member = self.client(name, node, expiry)
        self.router.subscribe(member, GROUP, SubscriptionOptions(1))
        return member

    def publish(self, node: str) -> None:
        """Every device publishes once through a node."""
        for name in DEVICES:
            publisher = self.client(name, node)
            self.router.publish(Message(name, "up", b"", 1, False, name, None, self.now), publisher)


def _taken(member: Client) -> set[str]:
    found = {delivery.message.sender for delivery in member.session.queue}
    member.session.queue.clear()
    return found


def test_two_nodes_order_members_that_joined_at_once_differently() -> None:
    cluster = Cluster()
    members = [cluster.join("m1", "n1"), cluster.join("m2", "n2")]
    cluster.publish("n1")
    by_one = [_taken(member) for member in members]
    cluster.publish("n2")
    assert [_taken(member) for member in members] == by_one[::-1]
    assert all(by_one)


def test_nodes_agree_on_members_that_joined_one_after_another() -> None:
    cluster = Cluster()
    first = cluster.join("m1", "n1")
    cluster.now += 2 * REPLICATION_SECONDS
    second = cluster.join("m2", "n2")
    found = []
    for node in ("n1", "n2", "n3"):
        cluster.publish(node)
        found.append((_taken(first), _taken(second)))
    assert found == [found[0]] * 3


def test_what_an_expired_session_kept_is_gone() -> None:
    cluster = Cluster("round_robin")
    away = cluster.join("m1", "n1", expiry=10.0)
    cluster.publish("n1")
    staying = cluster.join("m2", "n2")
    away.connection = _Closed()
    cluster.registry.on_connection_closed(away, "closed")
    (expire,) = cluster.due
    expire()
    assert "m1" not in cluster.state.clients
    assert _taken(staying) == set()
    cluster.publish("n1")
    assert _taken(staying) == set(DEVICES)


class _Closed:
    """A connection that is over."""

    def send_messages(self, out: Any) -> None:
        raise AssertionError(out)

    def finish(self, reason_code: int | None) -> None:
        assert reason_code is None

    def abort(self) -> None:
        raise AssertionError
