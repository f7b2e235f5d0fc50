"""What containing, and letting out, asks of the broker, as data: the order is decided here and carried out elsewhere.

A plan names acts and looks, no calls: how one broker is asked for them is its adapter's. The same value is printed for
an operator and carried out, so that what is shown cannot be something else than what is done. Why the order is what it
is: docs/adr/0005 and 0015.
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
    """By what somebody is named at the broker."""

    CLIENT = "clientid"
    USER = "username"
    CERTIFICATE = "certificate"


class ContainmentAction(StrEnum):
    """Something the broker is asked to change."""

    BAN = "ban"
    RENEW_BAN = "replace an earlier decision's ban"
    LIFT_BAN = "lift Cordon's own ban"
    WRITE_RESTRICTION = "keep the rules it has, write the restriction's"
    RESTORE_RESTRICTION = "write the restriction's rules again if they are gone"
    RESTORE_RULES = "give back the rules that were kept"
    CLEAR_CACHE = "forget what it was allowed"
    CUT_SUBSCRIPTIONS = "end its subscriptions outside its branch"
    RESTORE_SUBSCRIPTIONS = "give back the subscriptions that were cut"
    KICK = "disconnect it and destroy its session"
    CLEAR_RETAINED = "delete the retained messages it published"


class ContainmentCheck(StrEnum):
    """Something that is read, and must be as wanted."""

    SOURCE = "the broker asks its rule database before all others"
    SUPERUSER = "its user is none that passes every rule"
    RESTRICTED = "its rules are the restriction's"
    RESTORED = "its rules are those it had before"
    QUIET = "no subscription and no remembered permission outside its branch"
    OUT = "a ban is in force, nobody is connected, no session waits with old subscriptions"
    UNBANNED = "no ban of Cordon's is in force"
    NO_RETAINED = "no retained message is from it"

    @property
    def is_setting(self) -> bool:
        """Whether it is of the broker itself: read once, because no waiting and no act of a plan mends it."""
        return self in (ContainmentCheck.SOURCE, ContainmentCheck.SUPERUSER)

    @property
    def is_everywhere(self) -> bool:
        """Whether every node is asked, because each answers by its own copy of a table."""
        return not self.is_setting and self is not ContainmentCheck.NO_RETAINED


@dataclass(frozen=True, slots=True)
class PlanStage:
    """Acts in their order, then looks; while a look shows something else, `again` is done and it is looked again.

    `gated`: nothing of it is done while something before it is missing. `urgent`: it goes before what is read back for
    others: of a fleet that fails together all are cut before the first one is proven so.
    """

    do: tuple[ContainmentAction, ...] = ()
    see: tuple[ContainmentCheck, ...] = ()
    again: tuple[ContainmentAction, ...] = ()
    gated: bool = False
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class ContainmentPlan:
    """The stages of one goal, in their order."""

    goal: ContainmentGoal
    stages: tuple[PlanStage, ...]


_CUT = (ContainmentAction.CLEAR_CACHE, ContainmentAction.CUT_SUBSCRIPTIONS)


def restriction_plan(*, kick: bool = False) -> ContainmentPlan:
    """Rules first, then what they no longer allow; queued commands survive unless a kick is asked for.

    Only with the rules on every node can a cache or a new subscription no longer come from the old ones.
    """
    stages = [
        PlanStage(do=(ContainmentAction.WRITE_RESTRICTION,), urgent=True),
        PlanStage(do=_CUT, urgent=True),
        PlanStage(see=(ContainmentCheck.SOURCE, ContainmentCheck.SUPERUSER, ContainmentCheck.RESTRICTED)),
    ]
    if kick:
        stages.append(PlanStage(do=(ContainmentAction.KICK,), gated=True))
    stages.append(PlanStage(see=(ContainmentCheck.QUIET,), again=_CUT))
    return ContainmentPlan(ContainmentGoal.RESTRICT, tuple(stages))


def isolation_plan(*, clear_retained: bool = False, of: SubjectKind = SubjectKind.CLIENT) -> ContainmentPlan:
    """The ban first, because it alone cuts the socket at once; the restriction below it holds when the ban ends.

    A ban of a user cuts nobody who is connected: its sessions are ended at once, and again as long as one is found.
    An older ban of Cordon's is replaced only with the rules on every node: whoever slips in between is restricted.
    """
    stages = [
        PlanStage(
            do=(ContainmentAction.BAN,)
            if of is SubjectKind.CLIENT
            else (ContainmentAction.BAN, ContainmentAction.KICK),
            urgent=True,
        ),
        PlanStage(
            do=(ContainmentAction.WRITE_RESTRICTION,), see=(ContainmentCheck.SOURCE, ContainmentCheck.RESTRICTED)
        ),
        PlanStage(do=(ContainmentAction.RENEW_BAN,), gated=True),
        PlanStage(see=(ContainmentCheck.OUT,), again=(ContainmentAction.KICK,)),
    ]
    if clear_retained:
        # Last: somebody who is still connected would only publish them anew.
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
    """The ban is lifted only once the restriction below it is known to hold everywhere."""
    stages = (
        PlanStage(do=(ContainmentAction.RESTORE_RESTRICTION,)),
        PlanStage(see=(ContainmentCheck.RESTRICTED,)),
        PlanStage(do=(ContainmentAction.LIFT_BAN,), see=(ContainmentCheck.UNBANNED,), gated=True),
    )
    return ContainmentPlan(ContainmentGoal.END_ISOLATION, stages)


def release_plan() -> ContainmentPlan:
    """Rules, then the ban, then the connection's memory: who reconnects at once is not refused its own topics."""
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
    goal: ContainmentGoal, *, kick: bool = False, clear_retained: bool = False, of: SubjectKind = SubjectKind.CLIENT
) -> ContainmentPlan:
    """The plan of a goal; options that the goal does not know have no effect."""
    match goal:
        case ContainmentGoal.RESTRICT:
            return restriction_plan(kick=kick)
        case ContainmentGoal.ISOLATE:
            return isolation_plan(clear_retained=clear_retained, of=of)
        case ContainmentGoal.END_ISOLATION:
            return end_of_isolation_plan()
        case ContainmentGoal.RELEASE:
            return release_plan()
