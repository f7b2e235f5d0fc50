"""The order of acts and looks is the point of a plan: what each order guards against is asserted here."""

import pytest

from controller.domain.containment.plan import (
    ContainmentAction,
    ContainmentCheck,
    ContainmentGoal,
    ContainmentPlan,
    end_of_isolation_plan,
    isolation_plan,
    plan_for,
    release_plan,
    restriction_plan,
)


def acts(plan: ContainmentPlan) -> list[ContainmentAction]:
    return [act for stage in plan.stages for act in stage.do]


def position(plan: ContainmentPlan, thing: ContainmentAction | ContainmentCheck) -> int:
    return next(i for i, stage in enumerate(plan.stages) if thing in stage.do or thing in stage.see)


@pytest.mark.parametrize("goal", ContainmentGoal)
def test_every_goal_has_a_plan_with_a_check(goal: ContainmentGoal) -> None:
    plan = plan_for(goal, kick=True, clear_retained=True)
    assert plan.goal is goal
    assert any(not look.is_setting for stage in plan.stages for look in stage.see)


@pytest.mark.parametrize("goal", ContainmentGoal)
def test_repeated_actions_are_actions_of_the_plan_or_a_kick(goal: ContainmentGoal) -> None:
    plan = plan_for(goal, clear_retained=True)
    for stage in plan.stages:
        assert not stage.again or stage.see
        assert set(stage.again) <= {*acts(plan), ContainmentAction.KICK}


def test_a_restriction_keeps_the_session_unless_a_kick_is_requested() -> None:
    assert ContainmentAction.KICK not in acts(restriction_plan())
    kicking = restriction_plan(kick=True)
    assert position(kicking, ContainmentAction.KICK) > position(kicking, ContainmentCheck.RESTRICTED)
    assert kicking.stages[position(kicking, ContainmentAction.KICK)].gated


def test_subscriptions_and_caches_are_checked_after_the_rules() -> None:
    plan = restriction_plan()
    assert position(plan, ContainmentCheck.RESTRICTED) < position(plan, ContainmentCheck.QUIET)
    assert plan.stages[position(plan, ContainmentCheck.QUIET)].again == (
        ContainmentAction.CLEAR_CACHE,
        ContainmentAction.CUT_SUBSCRIPTIONS,
    )


def test_an_isolation_bans_first_and_replaces_an_older_ban_after_the_rules() -> None:
    plan = isolation_plan()
    assert acts(plan)[:2] == [ContainmentAction.BAN, ContainmentAction.WRITE_RESTRICTION]
    renewal = plan.stages[position(plan, ContainmentAction.RENEW_BAN)]
    assert renewal.gated
    assert (
        position(plan, ContainmentCheck.RESTRICTED)
        < position(plan, ContainmentAction.RENEW_BAN)
        < position(plan, ContainmentCheck.OUT)
    )


def test_retained_messages_are_deleted_after_the_disconnect() -> None:
    plan = isolation_plan(clear_retained=True)
    assert position(plan, ContainmentCheck.OUT) < position(plan, ContainmentAction.CLEAR_RETAINED)
    assert ContainmentAction.CLEAR_RETAINED not in acts(isolation_plan())


@pytest.mark.parametrize(
    ("plan", "rules"),
    [(end_of_isolation_plan(), ContainmentCheck.RESTRICTED), (release_plan(), ContainmentCheck.RESTORED)],
)
def test_a_ban_is_lifted_only_after_the_rules_are_checked(plan: ContainmentPlan, rules: ContainmentCheck) -> None:
    lifting = plan.stages[position(plan, ContainmentAction.LIFT_BAN)]
    assert lifting.gated
    assert position(plan, rules) < position(plan, ContainmentAction.LIFT_BAN)


def test_cuts_are_urgent_and_checks_are_not() -> None:
    for plan, first in (
        (restriction_plan(), ContainmentAction.WRITE_RESTRICTION),
        (isolation_plan(), ContainmentAction.BAN),
    ):
        assert plan.stages[position(plan, first)].urgent
        assert not any(stage.urgent for stage in plan.stages if stage.see)
