"""Users that are contained by a name other than a client id: a user, with every session it has. Pure."""

from dataclasses import dataclass, replace

from controller.domain.containment.plan import Subject
from controller.domain.policy.model import ContainmentLevel


@dataclass(frozen=True, slots=True)
class UserCase:
    """A user that is contained, or is being let out (`level` none, until that is read back). Times in Unix seconds.

    `until`: when an isolation steps down to a restriction; a restriction ends only by an operator, because no report
    speaks for a user.
    """

    name: str
    case_id: str
    level: ContainmentLevel
    by: str
    reason: str
    opened_at: float
    decided_at: float  # of what is to hold now
    until: float | None = None
    proven_level: ContainmentLevel | None = None
    proven_at: float | None = None
    trouble: str = ""

    @property
    def subject(self) -> Subject:
        return Subject.user(self.name)

    @property
    def is_proven(self) -> bool:
        """Whether the broker was read back and holds what was decided."""
        return self.proven_level is self.level

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left at the broker."""
        return self.level is ContainmentLevel.NONE and self.is_proven


def contained(
    was: UserCase | None,
    name: str,
    case_id: str,
    level: ContainmentLevel,
    *,
    by: str,
    reason: str,
    now: float,
    hold: float | None,
) -> UserCase:
    """Contain a user, or take its case over: never made weaker by it, and an isolation keeps the later end."""
    until = None if hold is None or level is not ContainmentLevel.ISOLATED else now + hold
    if was is None:
        return UserCase(name, case_id, level, by, reason, now, now, until)
    if was.level.rank > level.rank:
        return was
    same = was.level is level and was.until == until
    return replace(
        was,
        level=level,
        by=by,
        reason=reason,
        until=until,
        decided_at=now,
        proven_level=was.proven_level if same else None,
        trouble="",
    )


def released(was: UserCase, *, by: str, reason: str, now: float) -> UserCase:
    """An isolation steps down to a restriction, a restriction ends; what is over already stays so."""
    if was.level is ContainmentLevel.ISOLATED:
        return stepped_down(replace(was, by=by), reason, now)
    return replace(was, level=ContainmentLevel.NONE, by=by, reason=reason, until=None, decided_at=now, trouble="")


def stepped_down(was: UserCase, reason: str, now: float) -> UserCase:
    """The ban ends, the restriction below it holds."""
    text = f"{was.reason}; isolation ended: {reason}"
    return replace(was, level=ContainmentLevel.RESTRICTED, until=None, reason=text, decided_at=now, trouble="")


def is_due(case: UserCase, now: float) -> bool:
    """Whether an isolation's time is over."""
    return case.level is ContainmentLevel.ISOLATED and case.until is not None and now >= case.until
