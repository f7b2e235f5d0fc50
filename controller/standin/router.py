"""Routes published messages to subscribers; stores retained and delayed messages."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from controller.standin.client import Client
from controller.standin.messages import Delivery, Message
from controller.standin.options import MAX_DELAY_SECONDS, MAX_DELAYED, MAX_RETAINED
from controller.standin.session import SubscriptionOptions
from controller.standin.state import ClusterState
from controller.standin.topics import DELAYED_PREFIX, ParsedFilter, TopicIndex, matches

_RETAIN_ALWAYS, _RETAIN_IF_NEW = 0, 1
_Key = tuple[str, ParsedFilter]
_SHARED = ""  # in place of a client id: any member of the share group
REPLICATION_SECONDS: Final = 0.05  # after which a node lists a member that joined on another one


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a share group; `joined_at`: Unix seconds."""

    clientid: str
    node: str
    joined_at: float

    def listed_at(self, node: str | None) -> float:
        """When the list of a node got it: a list has its members in this order, and no two nodes need agree."""
        return self.joined_at + (REPLICATION_SECONDS if node not in (None, self.node) else 0.0)


@dataclass(slots=True)
class Router:
    """The routing tables of the cluster."""

    state: ClusterState
    first_member: Callable[[int], int]  # index of the first of n members in a publisher's round robin
    _index: TopicIndex[_Key] = field(default_factory=TopicIndex)
    _members: dict[ParsedFilter, list[_Member]] = field(default_factory=dict)
    retained: dict[str, Message] = field(default_factory=dict)
    _delayed: dict[str, tuple[Message, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state.publish = self.publish

    @property
    def delayed(self) -> int:
        """The number of `$delayed` messages that are not due."""
        return len(self._delayed)

    @property
    def delayed_messages(self) -> list[tuple[Message, float]]:
        """The `$delayed` messages that are not due, with their own topic and the Unix seconds at which they are."""
        return list(self._delayed.values())

    def subscribe(self, client: Client, parsed: ParsedFilter, options: SubscriptionOptions) -> list[Delivery]:
        """Adds or replaces a subscription; returns the retained messages to send for it."""
        new = parsed not in client.session.subscriptions
        client.session.subscriptions[parsed] = options
        if parsed.group is None:
            self._index.add(parsed.filter, (client.clientid, parsed))
            wanted = options.retain_handling == _RETAIN_ALWAYS or (options.retain_handling == _RETAIN_IF_NEW and new)
            return self._retained_for(parsed.filter, options) if wanted else []
        members = self._members.setdefault(parsed, [])
        if client.clientid not in [member.clientid for member in members]:
            members.append(_Member(client.clientid, client.endpoint.node, self.state.now()))
        self._index.add(parsed.filter, (_SHARED, parsed))
        return []

    def unsubscribe(self, client: Client, parsed: ParsedFilter) -> bool:
        """Removes a subscription; returns False when there is none."""
        if client.session.subscriptions.pop(parsed, None) is None:
            return False
        self._forget(client.clientid, parsed)
        return True

    def forget_client(self, client: Client) -> None:
        """Removes all routes of a session."""
        for parsed in client.session.subscriptions:
            self._forget(client.clientid, parsed)

    def _forget(self, clientid: str, parsed: ParsedFilter) -> None:
        if parsed.group is None:
            self._index.remove(parsed.filter, (clientid, parsed))
            return
        members = [member for member in self._members.get(parsed, []) if member.clientid != clientid]
        if members:
            self._members[parsed] = members
        else:
            self._members.pop(parsed, None)
            self._index.remove(parsed.filter, (_SHARED, parsed))

    def rejoin(self, client: Client) -> None:
        """Puts a session that another connection resumes at the end of the lists of its share groups."""
        for parsed in client.session.subscriptions:
            if parsed.group is not None:
                others = [member for member in self._members.get(parsed, []) if member.clientid != client.clientid]
                self._members[parsed] = [*others, _Member(client.clientid, client.endpoint.node, self.state.now())]

    def publish(self, message: Message, publisher: Client | None = None) -> bool:
        """Routes a message; returns whether there is a subscriber, connected or not."""
        if message.topic.startswith(DELAYED_PREFIX):
            self._delay(message)
            return False
        if message.retain:
            self._retain(message)
        keys = self._index.find(message.topic)
        for clientid, parsed in keys:
            if clientid == _SHARED:
                self._dispatch_shared(message, parsed, publisher)
            else:
                client = self.state.clients.get(clientid)
                if client is not None:
                    self._deliver(client, parsed, message)
        return bool(keys)

    def _deliver(self, client: Client, parsed: ParsedFilter, message: Message) -> None:
        options = client.session.subscriptions[parsed]
        if options.no_local and message.sender == client.clientid:
            return
        share = None if parsed.group is None else (parsed.group, parsed.filter)
        client.deliver(
            Delivery(
                message,
                min(options.qos, message.qos),
                message.retain and options.retain_as_published,
                options.subscription_id,
                share,
            )
        )
        if client.session.is_too_large:
            self.drop(client)

    def drop(self, client: Client, *, closes: bool = True) -> None:
        """Removes a client as when its process or node dies: no will, no presence, nothing for its share groups.

        `closes`: its socket too.
        """
        connection, client.connection = client.connection, None
        client.stop_timers()
        client.will = None
        del self.state.clients[client.clientid]
        self.forget_client(client)
        if connection is not None and closes:
            connection.abort()

    def _dispatch_shared(
        self, message: Message, parsed: ParsedFilter, publisher: Client | None, leaving: str | None = None
    ) -> bool:
        node = None if publisher is None else publisher.endpoint.node
        listed = sorted(self._members.get(parsed, ()), key=lambda member: member.listed_at(node))
        members = [member.clientid for member in listed if member.clientid != leaving]
        if not members:
            return False
        if self.state.settings.share_strategy(parsed.group or "") == "hash_clientid":
            return self._deliver_to(members[crc32(message.sender.encode()) % len(members)], parsed, message)
        rounds = {} if publisher is None else publisher.round_robin
        key = (parsed.group or "", parsed.filter)
        turn = rounds.get(key)
        turn = self.first_member(len(members)) if turn is None else (turn + 1) % len(members)
        rounds[key] = turn
        return self._deliver_to(members[turn], parsed, message)

    def _deliver_to(self, clientid: str, parsed: ParsedFilter, message: Message) -> bool:
        client = self.state.clients.get(clientid)
        if client is not None:
            self._deliver(client, parsed, message)
        return True

    def redispatch_shared(self, client: Client) -> None:
        """Routes undelivered messages of a share group's member to the other members; call after `forget_client`."""
        for delivery in client.session.undelivered_shared():
            if delivery.share is not None:
                group, pattern = delivery.share
                self._dispatch_shared(delivery.message, ParsedFilter(group, pattern), client, client.clientid)

    def _retain(self, message: Message) -> None:
        if not message.payload:
            self.retained.pop(message.topic, None)
        elif message.topic in self.retained or len(self.retained) < MAX_RETAINED:
            self.retained[message.topic] = message

    def _retained_for(self, pattern: str, options: SubscriptionOptions) -> list[Delivery]:
        now = self.state.now()
        if "+" in pattern or "#" in pattern:
            matching = [m for t, m in self.retained.items() if matches(t, pattern)]
        else:
            matching = [self.retained[pattern]] if pattern in self.retained else []
        out: list[Delivery] = []
        for message in matching:
            if message.expired(now):
                self.retained.pop(message.topic, None)
            elif not self.state.bans.sender_banned(message.sender):
                out.append(Delivery(message, min(options.qos, message.qos), True, options.subscription_id))
        return out

    def _delay(self, message: Message) -> None:
        """Schedules a `$delayed/{seconds}/{topic}` message; drops a malformed one."""
        interval, _, topic = message.topic[len(DELAYED_PREFIX) :].partition("/")
        if not interval.isdecimal() or not topic or int(interval) > MAX_DELAY_SECONDS:
            return
        if self.delayed >= MAX_DELAYED:
            return
        self._delayed[message.id] = replace(message, topic=topic), self.state.now() + float(interval)

        def due() -> None:
            self._delayed.pop(message.id, None)
            if not self.state.bans.sender_banned(message.sender):
                self.publish(replace(message, topic=topic, at=self.state.now()))

        self.state.call_later(float(interval), due)
