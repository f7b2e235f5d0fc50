"""What Cordon asks of the broker's management side: contain, read back, release; bans and rules as data."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from controller.domain.containment.plan import ContainmentGoal
from controller.ports.broker_tables import AccessRules, Ban

# Seconds by which the clocks of broker and controller may differ: a session that is not older than this when something
# is heard may be a later one than that which said it.
CLOCK_SLACK: Final = 1.0


class AuthStrength(StrEnum):
    """How the identity of a live session was proved to the broker."""

    PROVEN = "proven"  # TLS with a verified client certificate
    KNOWN = "known"  # a password or another authenticator
    CLAIMED = "claimed"  # nothing
    UNSEEN = "unseen"  # no session, and the broker lets in clients without proof
    LATER = "later"  # proved, but perhaps not there yet when it was heard, and the broker lets in clients without proof


def was_there(connected_at: float | None, heard_at: float) -> bool:
    """Whether a session was surely connected when something was heard; one that does not say since when was not."""
    return connected_at is not None and connected_at <= heard_at - CLOCK_SLACK


@dataclass(frozen=True, slots=True)
class ProofStep:
    """One call to the broker and what was seen: the line of a receipt."""

    what: str  # "ban", "write rules", "read back rules", ...
    call: str  # "POST /banned"
    node: str  # base URL that answered; empty if none did
    answer: str  # "200", "204", or the error's text
    seconds: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What was done and what the broker said when it was read back.

    `holds` is true only if every read-back showed what was wanted; `missing` says what did not, else it is empty.
    `cut_at` is the wall-clock second of the call after which the device's traffic was cut (0.0 where nothing was).
    """

    holds: bool
    missing: str
    steps: tuple[ProofStep, ...]
    cut_at: float = 0.0
    ban_until: float | None = None


@dataclass(frozen=True, slots=True)
class SavedSubscription:
    """A subscription that a restriction cut, as the broker listed it; `session` names the session it belonged to."""

    topic: str
    qos: int = 0
    nl: int = 0
    rap: int = 0
    rh: int = 0
    session: str = ""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call as it will be made; what is not known beforehand stands in `<angle brackets>`."""

    method: str
    path: str
    body: object = None
    where: str = ""  # "one node", "each node"
    only: str = ""  # in which case it is made, empty: always


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage of a plan for an operator's eyes: acts, then reads that prove them, then what is repeated until they do.

    `gated`: nothing of it is done while something before it is missing.
    """

    acts: tuple[tuple[str, tuple[PlannedCall, ...]], ...]
    looks: tuple[tuple[str, tuple[PlannedCall, ...]], ...]
    repeated: tuple[str, ...]
    gated: bool


@dataclass(frozen=True, slots=True)
class PlanParameters:
    """What a plan is asked for: the goal and all that shapes its calls."""

    goal: ContainmentGoal
    case: str = "<case>"
    reason: str = ""
    until: float | None = None
    kick: bool = False
    clear_retained: bool = False
    kept: AccessRules = ()
    subscriptions: tuple[SavedSubscription, ...] = ()


# Called with the rules a client had, before Cordon's are written over them; the store has them once it returns.
SaveRules = Callable[[AccessRules], Awaitable[None]]
# The same for the subscriptions that are about to be cut.
SaveSubscriptions = Callable[[tuple[SavedSubscription, ...]], Awaitable[None]]


async def keep_no_subscriptions(_subscriptions: tuple[SavedSubscription, ...]) -> None:
    """For who does not give subscriptions back."""


class BrokerControl(Protocol):
    """The broker's management API.

    Every method is safe to repeat. Errors are `BrokerError` and its kinds from `controller.ports.errors`.
    """

    def planned(self, client_id: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
        """The plan that the methods below carry out for this intent, as calls; nothing is asked of the broker.

        Raises:
            BrokerRefusedError: not a client id that Cordon acts on.
        """
        ...

    async def restrict(
        self,
        client_id: str,
        keep: SaveRules,
        *,
        keep_subscriptions: SaveSubscriptions = keep_no_subscriptions,
        kick: bool = False,
    ) -> Proof:
        """Leave the client its own Cordon branch and nothing else, and read that back on every node.

        `keep` is called with the rules the client has, unless those already are the ones of a restriction,
        `keep_subscriptions` with those that are about to be cut, also of an absent session. The session survives
        (queued commands stay) unless `kick` destroys it.
        """
        ...

    async def isolate(
        self,
        client_id: str,
        keep: SaveRules,
        *,
        case: str,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
    ) -> Proof:
        """Ban and disconnect the client, with the restriction below it, and read that back on every node.

        `clear_retained` also deletes the retained messages it published, where the broker can list them.
        """
        ...

    async def end_isolation(self, client_id: str, keep: SaveRules) -> Proof:
        """Lift Cordon's ban (never another's); the restriction below it stays and is read back.

        `keep` is called with the rules the client has where the restriction's are not there: the isolation may never
        have been carried out.
        """
        ...

    async def release(
        self, client_id: str, kept: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        """Lift Cordon's ban and restore `kept` (none: delete the client's rules), and read that back.

        Rules that are not the restriction's any more were changed by someone else, and are left as they are.
        `subscriptions` go back to the session they were cut from, if it still is there.
        """
        ...

    async def grade(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        """How the client's identity is proved at the broker now; with `heard_at` (Unix seconds) that of who spoke then.

        Where the broker lets nobody in without proof, any session is proof enough of who spoke; elsewhere only one that
        was there already.
        """
        ...

    async def admits_unproven(self) -> bool:
        """Whether somebody can be connected who proved nothing: only then does it matter which session spoke."""
        ...

    async def lists_retained(self) -> bool:
        """Whether this broker can list retained messages, and so have those of one client deleted."""
        ...

    def bans(self) -> AsyncIterator[Ban]:
        """Every ban, page by page."""
        ...

    async def ping(self) -> Sequence[tuple[str, bool, str]]:
        """For each configured address: base URL, whether it answers, version or error."""
        ...
