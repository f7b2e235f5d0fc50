"""The case of a user that is contained by name, with every session it has. Pure.

A user's case is simpler than a device's: no report speaks for a user, so there is no evidence, no probation and no
automatic release, and only operators decide.
"""

from dataclasses import dataclass, replace

from controller.domain.containment.plan import Subject
from controller.domain.policy.model import ContainmentLevel


@dataclass(frozen=True, slots=True)
class UserCase:
    """A user that is contained, or is being released (`level` none, until that is proven). Times in Unix seconds.

    `until`: when an isolation becomes a restriction; a restriction has no end.
    """

    name: str
    case_id: str
    level: ContainmentLevel
    by: str
    reason: str
    opened_at: float
    decided_at: float  # of the decision in force
    until: float | None = None
    proven_level: ContainmentLevel | None = None
    proven_at: float | None = None
    trouble: str = ""
    unread: tuple[tuple[str, str], ...] = ()  # running nodes that could not be read, if that alone is lacking
    left_open: tuple[str, ...] = ()  # what the proven level does not stop

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


def contain_user(
    before: UserCase | None,
    name: str,
    case_id: str,
    level: ContainmentLevel,
    *,
    by: str,
    reason: str,
    now: float,
    hold: float | None,
) -> UserCase:
    """Opens a case, or takes over the one in force, which never becomes weaker; `hold` seconds bound an isolation."""
    until = None if hold is None or level is not ContainmentLevel.ISOLATED else now + hold
    if before is None:
        return UserCase(name, case_id, level, by, reason, now, now, until)
    if before.level.rank > level.rank:
        return before
    is_unchanged = before.level is level and before.until == until
    return replace(
        before,
        level=level,
        by=by,
        reason=reason,
        until=until,
        decided_at=now,
        proven_level=before.proven_level if is_unchanged else None,
        trouble="",
        unread=(),
        left_open=before.left_open if is_unchanged else (),
    )


def release_user(before: UserCase, *, by: str, reason: str, now: float) -> UserCase:
    """An isolation becomes a restriction, a restriction ends."""
    if before.level is ContainmentLevel.ISOLATED:
        return end_user_isolation(replace(before, by=by), reason, now)
    return _changed(before, ContainmentLevel.NONE, reason, now, by=by)


def end_user_isolation(before: UserCase, reason: str, now: float) -> UserCase:
    """The ban ends, the restriction below it holds."""
    text = f"{before.reason}; isolation ended: {reason}"
    return _changed(before, ContainmentLevel.RESTRICTED, text, now, by=before.by)


def _changed(before: UserCase, level: ContainmentLevel, reason: str, now: float, *, by: str) -> UserCase:
    """A new decision without an end, about which nothing is known from the broker yet."""
    decided = replace(before, level=level, reason=reason, by=by, until=None, decided_at=now)
    return replace(decided, trouble="", unread=(), left_open=())


def is_isolation_over(case: UserCase, now: float) -> bool:
    return case.level is ContainmentLevel.ISOLATED and case.until is not None and now >= case.until
