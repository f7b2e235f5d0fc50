"""Decisions about contained users: never weaker by containing again, never free by time alone."""

from controller.domain.containment.users import (
    UserCase,
    contain_user,
    end_user_isolation,
    is_isolation_over,
    release_user,
)
from controller.domain.policy.model import ContainmentLevel


def isolated(hold: float | None = 60.0) -> UserCase:
    return contain_user(None, "lab", "c1", ContainmentLevel.ISOLATED, by="a", reason="r", now=10.0, hold=hold)


def test_an_isolation_ends_in_a_restriction_which_only_an_operator_ends() -> None:
    case = isolated()
    assert (case.level, case.until, is_isolation_over(case, 69.9), is_isolation_over(case, 70.0)) == (
        ContainmentLevel.ISOLATED,
        70.0,
        False,
        True,
    )
    down = end_user_isolation(case, "its time is over", 70.0)
    assert (down.level, down.until, is_isolation_over(down, 1e12)) == (ContainmentLevel.RESTRICTED, None, False)
    assert release_user(case, by="b", reason="x", now=11.0).level is ContainmentLevel.RESTRICTED
    free = release_user(down, by="b", reason="fine", now=80.0)
    assert (free.level, free.by, free.is_proven, free.is_over) == (ContainmentLevel.NONE, "b", False, False)
    assert not is_isolation_over(isolated(None), 1e12)


def test_containing_again_never_weakens_the_case() -> None:
    case = isolated()
    assert contain_user(case, "lab", "c2", ContainmentLevel.RESTRICTED, by="b", reason="x", now=20.0, hold=None) is case
    longer = contain_user(case, "lab", "c2", ContainmentLevel.ISOLATED, by="b", reason="x", now=20.0, hold=600.0)
    assert (longer.case_id, longer.until, longer.by, longer.proven_level) == ("c1", 620.0, "b", None)


def test_a_restriction_has_no_end_and_a_release_can_be_reversed() -> None:
    case = contain_user(None, "lab", "c1", ContainmentLevel.RESTRICTED, by="a", reason="r", now=1.0, hold=60.0)
    assert case.until is None
    back = contain_user(
        release_user(case, by="a", reason="", now=2.0),
        "lab",
        "c2",
        ContainmentLevel.RESTRICTED,
        by="a",
        reason="r",
        now=3.0,
        hold=None,
    )
    assert (back.level, back.case_id, back.is_proven) == (ContainmentLevel.RESTRICTED, "c1", False)
