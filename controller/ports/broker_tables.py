"""The rows of the broker's tables, and what a comparison reads of them, node by node."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from schemas.topics import down_branch, up_branch

# The `by` of a ban that Cordon made starts with this; the case id follows.
BAN_MARK: Final = "cordon/"
# Whether the rows of this client id are parsed; the others cost no more than their JSON.
SubjectFilter = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One access rule; equal rules are the same rule, so defaults are filled in when a rule is read."""

    topic: str
    permission: Literal["allow", "deny"]
    action: Literal["publish", "subscribe", "all"]
    qos: tuple[int, ...] = (0, 1, 2)
    retain: str = "all"  # "all", "true" or "false"
    # Further conditions (EMQX 6: zone, listener, ...) as sorted JSON: without them a restored rule would allow more.
    limits: str = ""


AccessRules = tuple[AccessRule, ...]


# Topics that begin with `$` are not covered by `deny #`: EMQX lets a wildcard match no leading `$`.
KNOWN_PREFIXES: Final = ("$SYS", "$delayed", "$exclusive", "$file", "$queue", "$share")
MAX_PREFIXES: Final = 64  # of the fleet's own; EMQX takes 100 rules for each client


def restriction(client_id: str, prefixes: Iterable[str] = ()) -> AccessRules:
    """The rules of a restricted client, in the order in which the broker consults them.

    `prefixes`: first levels that begin with `$` and are in use, besides the known ones.
    """
    return (
        AccessRule(up_branch(client_id), "allow", "publish"),
        AccessRule(down_branch(client_id), "allow", "subscribe"),
        AccessRule("#", "deny", "all"),
        *(AccessRule(f"{prefix}/#", "deny", "all") for prefix in sorted({*KNOWN_PREFIXES, *prefixes})),
    )


def is_restriction(rules: AccessRules | None, client_id: str, prefixes: Iterable[str] = ()) -> bool:
    """Whether the rules are a restriction's that denies at least these prefixes: those in use change with the fleet."""
    wanted = restriction(client_id, prefixes)
    if rules is None or rules[:3] != wanted[:3]:
        return False
    rest = set(rules[3:])
    return rest >= set(wanted[3:]) and all(_denies_prefix(rule) for rule in rest)


def _denies_prefix(rule: AccessRule) -> bool:
    prefix = rule.topic.removesuffix("/#")
    return rule == AccessRule(f"{prefix}/#", "deny", "all") and prefix.startswith("$") and "/" not in prefix


@dataclass(frozen=True, slots=True)
class Ban:
    """A row of the ban table; `until` in Unix seconds, `None` without end."""

    kind: str  # clientid, username, peerhost, clientid_re, username_re, peerhost_net
    who: str
    by: str
    reason: str
    at: float
    until: float | None

    @property
    def is_ours(self) -> bool:
        """Whether Cordon made it; foreign rows are never touched."""
        return self.by.startswith(BAN_MARK)


@dataclass(frozen=True, slots=True)
class UnreadNode:
    """A running node that cannot be read; `node` is empty where the broker does not say which nodes run."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}" if self.node else self.reason


@dataclass(frozen=True, slots=True)
class ClusterReading:
    """The nodes of the cluster. `answering`: addresses that can be read; `silent`: why the others cannot.

    `running`: names of the nodes that run, as the cluster says; `unread`: those that no answering address speaks for.
    `names`: the last known node of each address; `stopped`: silent addresses whose node does not run, with its name.
    """

    answering: tuple[str, ...]
    names: Mapping[str, str]
    running: tuple[str, ...]
    unread: tuple[UnreadNode, ...]
    stopped: Mapping[str, str]
    silent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TableCounts:
    """Rows of one node's tables; `None` where the node does not say."""

    bans: int | None
    rules: int | None


class BrokerTables(Protocol):
    """The broker's tables as one node has them; `node` is one of `addresses` and is asked once.

    Errors are `BrokerError` and its kinds.
    """

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every configured node."""
        ...

    @property
    def prefixes(self) -> frozenset[str]:
        """First levels that begin with `$` and were seen in rules or subscriptions, besides the known ones."""
        ...

    async def read_prefixes(self) -> str:
        """Adds to `prefixes` what routes and rules for all have now; returns why they could not be read, or nothing."""
        ...

    async def cluster(self) -> ClusterReading:
        """Which nodes run, and which of them cannot be read; at most a second old."""
        ...

    def bans(self, node: str, wanted: SubjectFilter) -> AsyncIterator[Ban]:
        """Bans by client id that Cordon made or whose client id is wanted, page by page."""
        ...

    def rules(self, node: str, wanted: SubjectFilter) -> AsyncIterator[tuple[str, AccessRules]]:
        """The rules of every wanted client that has any of its own, page by page."""
        ...

    async def counts(self, node: str) -> TableCounts:
        """How many rows the node holds, in two small requests."""
        ...

    async def ban_of(self, node: str, client_id: str) -> Ban | None:
        """The ban of this client id."""
        ...

    async def rules_of(self, node: str, client_id: str) -> AccessRules | None:
        """The client's own rules, `None` if it has none."""
        ...

    async def write_rules(self, node: str, client_id: str, rules: AccessRules) -> None:
        """Writes through this node, which holds the rules afterwards whatever it missed before."""
        ...
