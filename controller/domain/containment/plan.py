"""The order of what containment and release do at the broker, as data; adapters carry it out and describe it.

A plan names actions and checks, no calls: how a broker is asked for them is its adapter's. The same plan is shown to an
operator and carried out. Why the order is what it is: docs/adr/0005 and 0015.
"""

from dataclasses import dataclass
from enum import StrEnum


class ContainmentGoal(StrEnum):
    """What a plan is for."""

    RESTRICT = "restrict"
    ISOLATE = "isolate"
    END_ISOLATION = "end isolation"
    RELEASE = "release"


class SubjectKind(StrEnum):
    """What a subject's name is at the broker."""

    CLIENT = "clientid"
    USER = "username"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is contained at the broker: a client, or a user with every session it has."""

    kind: SubjectKind
    name: str

    @classmethod
    def client(cls, client_id: str) -> "Subject":
        return cls(SubjectKind.CLIENT, client_id)

    @classmethod
    def user(cls, username: str) -> "Subject":
        return cls(SubjectKind.USER, username)

    def __str__(self) -> str:
        """A client's id, or `username:NAME`, which is no client id."""
        return self.name if self.kind is SubjectKind.CLIENT else f"{self.kind}:{self.name}"


class ContainmentAction(StrEnum):
    """A change at the broker."""

    BAN = "ban"
    RENEW_BAN = "replace an earlier decision's ban"
    LIFT_BAN = "lift Cordon's own ban"
    WRITE_RESTRICTION = "keep the rules it has, write the restriction's"
    RESTORE_RESTRICTION = "write the restriction's rules again if they are gone"
    RESTORE_RULES = "restore the rules that were kept"
    CLEAR_CACHE = "clear its cache of access decisions"
    CUT_SUBSCRIPTIONS = "end its subscriptions outside its branch"
    RESTORE_SUBSCRIPTIONS = "restore the subscriptions that were cut"
    KICK = "disconnect it and destroy its session"
    CLEAR_RETAINED = "delete the retained messages it published"


class ContainmentCheck(StrEnum):
    """What is read at the broker, and has to be true."""

    SOURCE = "the broker consults its rule database before all other sources"
    SUPERUSER = "its user is no superuser, which passes every rule"
    RESTRICTED = "its rules are the restriction's"
    RESTORED = "its rules are those it had before"
    QUIET = "no subscription and no cached permission outside its branch"
    OUT = "a ban is in force, no session is connected, none waits with old subscriptions"
    UNBANNED = "no ban of Cordon's is in force"
    LEFT_OPEN = (
        "what stays open is said: topics with `$` where `no_match` is allow, queued messages, delayed messages,"
        " subscriptions of auto_subscribe"
    )
    NO_RETAINED = "no retained message is from it"

    @property
    def is_setting(self) -> bool:
        """Whether it is about the broker's settings: read once, because neither waiting nor a plan changes them."""
        return self in (ContainmentCheck.SOURCE, ContainmentCheck.SUPERUSER, ContainmentCheck.LEFT_OPEN)


@dataclass(frozen=True, slots=True)
class PlanStage:
    """Actions in their order, then checks; while a check fails, the actions `again` are repeated before the next try.

    `gated`: skipped while something before it is missing, or, unless it `protects`, a running node could not be read.
    `urgent`: goes before the read-back of other subjects, so
    that of a fleet that fails together every device is cut before the first one is proven so.
    """

    do: tuple[ContainmentAction, ...] = ()
    see: tuple[ContainmentCheck, ...] = ()
    again: tuple[ContainmentAction, ...] = ()
    gated: bool = False
    urgent: bool = False

    @property
    def protects(self) -> bool:
        """Whether it only cuts: what takes a protection away waits for every node."""
        return set(self.do) <= {ContainmentAction.KICK, ContainmentAction.CLEAR_RETAINED}


@dataclass(frozen=True, slots=True)
class ContainmentPlan:
    """The stages of one goal, in their order."""

    goal: ContainmentGoal
    stages: tuple[PlanStage, ...]


_CUT = (ContainmentAction.CLEAR_CACHE, ContainmentAction.CUT_SUBSCRIPTIONS)


def restriction_plan(*, kick: bool = False) -> ContainmentPlan:
    """Writes the rules, then ends what they no longer allow; queued commands survive unless `kick` is given.

    Only with the rules on every node can neither a cache nor a new subscription come from the old rules any more.
    """
    stages = [
        PlanStage(do=(ContainmentAction.WRITE_RESTRICTION,), urgent=True),
        PlanStage(do=_CUT, urgent=True),
        PlanStage(see=(ContainmentCheck.SOURCE, ContainmentCheck.SUPERUSER, ContainmentCheck.RESTRICTED)),
    ]
    if kick:
        stages.append(PlanStage(do=(ContainmentAction.KICK,), gated=True))
    stages.append(PlanStage(see=(ContainmentCheck.QUIET,), again=_CUT))
    stages.append(PlanStage(see=(ContainmentCheck.LEFT_OPEN,)))
    return ContainmentPlan(ContainmentGoal.RESTRICT, tuple(stages))


def isolation_plan(kind: SubjectKind = SubjectKind.CLIENT, *, clear_retained: bool = False) -> ContainmentPlan:
    """Bans first, because only a ban cuts the socket at once; the restriction below it holds when the ban ends.

    The ban of a user cuts no connected session: the kick ends them at once, and again as long as one is found.
    An older ban of Cordon's is replaced only with the rules on every node: a client that slips in is restricted.
    """
    ban = (ContainmentAction.BAN,)
    stages = [
        PlanStage(do=ban if kind is SubjectKind.CLIENT else (*ban, ContainmentAction.KICK), urgent=True),
        PlanStage(
            do=(ContainmentAction.WRITE_RESTRICTION,), see=(ContainmentCheck.SOURCE, ContainmentCheck.RESTRICTED)
        ),
        PlanStage(do=(ContainmentAction.RENEW_BAN,), gated=True),
        PlanStage(see=(ContainmentCheck.OUT,), again=(ContainmentAction.KICK,)),
    ]
    if clear_retained and kind is SubjectKind.CLIENT:
        # Last: a client that is still connected would publish them again.
        stages.append(
            PlanStage(
                do=(ContainmentAction.CLEAR_RETAINED,),
                see=(ContainmentCheck.NO_RETAINED,),
                again=(ContainmentAction.CLEAR_RETAINED,),
                gated=True,
            )
        )
    return ContainmentPlan(ContainmentGoal.ISOLATE, tuple(stages))


def end_of_isolation_plan() -> ContainmentPlan:
    """Lifts the ban only once the restriction below it is known to hold everywhere."""
    stages = (
        PlanStage(do=(ContainmentAction.RESTORE_RESTRICTION,)),
        PlanStage(see=(ContainmentCheck.RESTRICTED,)),
        PlanStage(do=(ContainmentAction.LIFT_BAN,), see=(ContainmentCheck.UNBANNED,), gated=True),
        PlanStage(see=(ContainmentCheck.LEFT_OPEN,)),
    )
    return ContainmentPlan(ContainmentGoal.END_ISOLATION, stages)


def release_plan() -> ContainmentPlan:
    """Restores the rules, then lifts the ban, then clears caches: a client that reconnects at once gets its topics.

    Last, live sessions get the subscriptions back that were cut.
    """
    stages = (
        PlanStage(do=(ContainmentAction.RESTORE_RULES,)),
        PlanStage(see=(ContainmentCheck.RESTORED,)),
        PlanStage(
            do=(ContainmentAction.LIFT_BAN, ContainmentAction.CLEAR_CACHE), see=(ContainmentCheck.UNBANNED,), gated=True
        ),
        PlanStage(do=(ContainmentAction.RESTORE_SUBSCRIPTIONS,), gated=True),
    )
    return ContainmentPlan(ContainmentGoal.RELEASE, stages)


def plan_for(
    goal: ContainmentGoal,
    kind: SubjectKind = SubjectKind.CLIENT,
    *,
    kick: bool = False,
    clear_retained: bool = False,
) -> ContainmentPlan:
    """The plan of a goal; options that the goal does not know have no effect."""
    match goal:
        case ContainmentGoal.RESTRICT:
            return restriction_plan(kick=kick)
        case ContainmentGoal.ISOLATE:
            return isolation_plan(kind, clear_retained=clear_retained)
        case ContainmentGoal.END_ISOLATION:
            return end_of_isolation_plan()
        case ContainmentGoal.RELEASE:
            return release_plan()
