"""What Cordon asks of the broker's management side: contain, read back, release; how clients are authenticated."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from controller.domain.containment.plan import ContainmentGoal, Subject, SubjectKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRules, Ban, UnreadNode

# Seconds by which the clocks of broker and controller may differ: a session that is not older than this when a message
# is heard may be a later one than the session that sent it.
CLOCK_SLACK: Final = 1.0


# Identities and sessions


class AuthStrength(StrEnum):
    """How a client proved its identity to the broker."""

    PROVEN = "proven"  # TLS with a verified client certificate
    KNOWN = "known"  # a password or another authenticator, and the client id belongs to it
    ADMITTED = "admitted"  # an authenticator, but not the client id: the client chose that itself
    CLAIMED = "claimed"  # nothing
    UNSEEN = "unseen"  # no session, and the broker admits unauthenticated clients
    LATER = "later"  # proved, but perhaps connected after the message, and the broker admits unauthenticated clients


def was_connected(connected_at: float | None, heard_at: float) -> bool:
    """Whether a session certainly existed when a message arrived; not if its start is unknown."""
    return connected_at is not None and connected_at <= heard_at - CLOCK_SLACK


@dataclass(frozen=True, slots=True)
class MqttSession:
    """A session, with or without a connection, and the node that holds it."""

    client_id: str
    username: str
    is_connected: bool
    node: str


# Proofs


@dataclass(frozen=True, slots=True)
class ProofStep:
    """One call to the broker and its answer, or, without a call, what was observed: a line of a receipt."""

    what: str  # "ban", "write rules", "read back rules", ...
    call: str  # "POST /banned"
    node: str  # base URL that answered; empty if none did
    answer: str  # "200", "204", or the error's text
    seconds: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What was done, and what the broker answered when it was read back.

    `holds` is true only if every running node was read and showed what was wanted; `missing` says what did not, else it
    is empty; `unread` are the running nodes that could not be read; `left_open`: what the containment does not stop.
    `cut_at` is the wall-clock second of the call after which the subject's traffic was cut (0.0 where nothing was).
    """

    holds: bool
    missing: str
    steps: tuple[ProofStep, ...]
    cut_at: float = 0.0
    ban_until: float | None = None
    unread: tuple[UnreadNode, ...] = ()
    left_open: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether every node that could be read showed what was wanted, but not every running node could be."""
        return not self.missing and bool(self.unread)

    @property
    def trouble(self) -> str:
        """What keeps it from holding, as text."""
        unread = [f"not read back from a running node: {one}" for one in self.unread]
        return "; ".join([*([self.missing] if self.missing else []), *unread])


@dataclass(frozen=True, slots=True)
class SavedSubscription:
    """A subscription that a restriction cut, as the broker listed it.

    `session`: when the session began that it belonged to, as the broker says it. `client`: the client id of that
    session, empty for the subject's own.
    """

    topic: str
    qos: int = 0
    nl: int = 0
    rap: int = 0
    rh: int = 0
    session: str = ""
    client: str = ""


# Called with the rules that a subject had, before Cordon's replace them; the store has them once it returns.
SaveRules = Callable[[AccessRules], Awaitable[None]]
# The same for subscriptions that are about to be cut.
SaveSubscriptions = Callable[[tuple[SavedSubscription, ...]], Awaitable[None]]


async def save_no_subscriptions(_subscriptions: tuple[SavedSubscription, ...]) -> None:
    """For containments whose subscriptions are not restored."""


# Plans as operators see them


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call as it will be made; values that are not known in advance are in `<angle brackets>`."""

    method: str
    path: str
    body: object = None
    where: str = ""  # "one node", "each node"
    only: str = ""  # the case in which it is made, empty: always


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage of a plan: actions, then the checks that prove them, then what is repeated until they do.

    `gated`: skipped while something before it is missing.
    """

    acts: tuple[tuple[str, tuple[PlannedCall, ...]], ...]
    looks: tuple[tuple[str, tuple[PlannedCall, ...]], ...]
    repeated: tuple[str, ...]
    gated: bool


@dataclass(frozen=True, slots=True)
class PlanParameters:
    """The goal of a plan and everything else that shapes its calls; `kept` and `subscriptions` are restored."""

    goal: ContainmentGoal
    case: str = "<case>"
    reason: str = ""
    until: float | None = None
    kick: bool = False
    clear_retained: bool = False
    kept: AccessRules = ()
    subscriptions: tuple[SavedSubscription, ...] = ()


class ContainmentBroker(Protocol):
    """Contains and releases subjects at the broker.

    Every method is safe to repeat. Errors are `BrokerError` and its kinds from `controller.ports.errors`.
    """

    def check(self, subject: Subject) -> None:
        """Refuses a name that Cordon does not act on.

        Raises:
            BrokerRefusedError: no client id; or a user name that is empty, too long, or has control characters.
        """
        ...

    def planned(self, subject: Subject, parameters: PlanParameters) -> tuple[PlannedStage, ...]:
        """The plan that the methods below carry out for these parameters, as calls; asks the broker nothing.

        Raises:
            BrokerRefusedError: see `check`.
        """
        ...

    async def restrict(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        save_subscriptions: SaveSubscriptions = save_no_subscriptions,
        kick: bool = False,
        violates: bool = False,
    ) -> Proof:
        """Leaves the subject its own Cordon branch and nothing else, and reads that back on every node.

        `save_rules` is called with the present rules, unless they are a restriction's already, `save_subscriptions`
        with a client's subscriptions that are about to be cut, also of a session without a connection. Sessions
        survive (queued commands stay) unless `kick` destroys them. `violates`: it violates a policy, and goes before
        what operators ordered for many.
        """
        ...

    async def isolate(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        case: str,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
        violates: bool = False,
    ) -> Proof:
        """Bans and disconnects the subject, with the restriction below the ban, and reads that back on every node.

        Ends a user's sessions as long as new ones appear. `clear_retained` also deletes the retained messages that a
        client published, where the broker can list them.
        """
        ...

    async def end_isolation(self, subject: Subject, save_rules: SaveRules) -> Proof:
        """Lifts Cordon's ban (never a foreign one); the restriction below it stays and is read back.

        `save_rules` is called with the present rules where they are not the restriction's: the isolation may never
        have been carried out.
        """
        ...

    async def release(
        self, subject: Subject, rules: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        """Lifts Cordon's ban and restores `rules` (none: deletes the subject's rules), and reads that back.

        Rules that are not the restriction's any more were changed by others and are left as they are.
        `subscriptions` go back to the client's session that they were cut from, if it still exists.
        """
        ...

    async def missing(self, subject: Subject, level: ContainmentLevel) -> Sequence[str]:
        """What is not as a containment of this level leaves it; reads once and changes nothing."""
        ...

    async def sessions(self, username: str) -> Sequence[MqttSession]:
        """Every session of the user, on all nodes."""
        ...

    async def named_by_certificate(self) -> frozenset[SubjectKind]:
        """What the broker takes a certificate's common name for: client id, user name, both, or nothing."""
        ...


class BrokerControl(ContainmentBroker, Protocol):
    """The whole management API of the broker, as `ContainmentBroker`."""

    async def auth_strength(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        """How the client is authenticated now; with `heard_at` (Unix seconds), how the sender of then was.

        Where the broker admits no unauthenticated client, any session proves the sender; elsewhere only a session that
        existed already.
        """
        ...

    async def is_connected(self, client_id: str) -> bool:
        """Whether the client is connected now; calls at the same moment share their requests."""
        ...

    async def has_session(self, client_id: str) -> bool:
        """Whether the client is connected, or the broker keeps a session for it."""
        ...

    async def proves_username(self, client_id: str) -> bool:
        """Whether the client is connected and proved its user name: by that name's password or by a certificate."""
        ...

    async def allows_unauthenticated(self) -> bool:
        """Whether an unauthenticated client can connect: only then does it matter which session sent a message."""
        ...

    async def lists_retained(self) -> bool:
        """Whether this broker can list retained messages, so that those of one client can be deleted."""
        ...

    def bans(self) -> AsyncIterator[Ban]:
        """Every ban, page by page."""
        ...

    async def ping(self) -> Sequence[tuple[str, bool, str]]:
        """For each configured address: base URL, whether it answers, version or error."""
        ...
