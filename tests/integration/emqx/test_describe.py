"""A plan shows what is done: every call that is made is in the plan for the same parameters."""

import time
from dataclasses import replace

import pytest

from controller.adapters.emqx.containment.actions import ACTIONS
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.emqx.containment.checks import CHECKS
from controller.domain.containment.plan import (
    ContainmentAction,
    ContainmentCheck,
    ContainmentGoal,
    Subject,
    SubjectKind,
    plan_for,
)
from controller.ports.broker import PlanParameters, SavedSubscription
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import BrokerRefusedError
from tests.integration.emqx.conftest import USER, SavedRules
from tests.integration.emqx.plans import calls_not_in_plan
from tests.support.emqx_calls import ban_of, delete_rules, write_rules
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess

DEVICE = Subject.client("p-dev")


@pytest.mark.parametrize("goal", ContainmentGoal)
@pytest.mark.parametrize("kind", SubjectKind)
def test_every_step_of_every_plan_exists_for_each_kind_of_subject(goal: ContainmentGoal, kind: SubjectKind) -> None:
    for stage in plan_for(goal, kind, kick=True, clear_retained=True).stages:
        assert {*stage.do, *stage.again} <= ACTIONS[kind].keys()
        assert set(stage.see) <= CHECKS[kind].keys()


def test_a_client_has_every_action_and_check() -> None:
    assert set(ACTIONS[SubjectKind.CLIENT]) == set(ContainmentAction)
    assert set(CHECKS[SubjectKind.CLIENT]) == set(ContainmentCheck)


async def test_only_planned_calls_are_made(emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules) -> None:
    had = (AccessRule("fleet/#", "allow", "all"),)
    intent = PlanParameters(ContainmentGoal.RESTRICT, case="c1", reason="r", until=time.time() + 60, kept=had)
    await write_rules(broker.api, DEVICE.name, had)
    with Device(DEVICE.name, [emqx.mqtt[1]], user=USER) as device:
        device.subscribe("fleet/news")
        cut: list[SavedSubscription] = []

        async def keep(subscriptions: tuple[SavedSubscription, ...]) -> None:
            cut.extend(subscriptions)

        restricted = await broker.restrict(DEVICE, saved, save_subscriptions=keep)
        assert restricted.holds, restricted.missing
        assert calls_not_in_plan(restricted, broker.planned(DEVICE, intent)) == set()
        assert [(one.topic, one.qos) for one in cut] == [("fleet/news", 1)]

        freed = await broker.release(DEVICE, had, tuple(cut))
        assert freed.holds, freed.missing
        out = replace(intent, goal=ContainmentGoal.RELEASE, subscriptions=tuple(cut))
        assert calls_not_in_plan(freed, broker.planned(DEVICE, out)) == set()

        isolated = await broker.isolate(DEVICE, saved, case="c1", reason="r", until=intent.until)
        assert isolated.holds, isolated.missing
        assert (
            calls_not_in_plan(isolated, broker.planned(DEVICE, replace(intent, goal=ContainmentGoal.ISOLATE))) == set()
        )
    down = await broker.end_isolation(DEVICE, saved)
    assert calls_not_in_plan(down, broker.planned(DEVICE, replace(intent, goal=ContainmentGoal.END_ISOLATION))) == set()
    await broker.release(DEVICE, had)
    await delete_rules(broker.api, DEVICE.name)


async def test_the_body_of_a_planned_ban_is_the_row_at_the_broker(broker: EmqxBroker, saved: SavedRules) -> None:
    intent = PlanParameters(ContainmentGoal.ISOLATE, case="c9", reason="telnet\nis open", until=2_000_000_000.5)
    (act,) = broker.planned(Subject.client("p-ban"), intent)[0].acts
    (call,) = act[1]
    assert call.body == {
        "as": "clientid",
        "who": "p-ban",
        "by": "cordon/c9",
        "reason": "telnet is open",
        "until": "2033-05-18T03:33:21Z",
    }
    proof = await broker.isolate(
        Subject.client("p-ban"), saved, case="c9", reason="telnet\nis open", until=2_000_000_000.5
    )
    assert proof.holds
    ban = await ban_of(broker.api, "p-ban")
    assert ban is not None
    assert (ban.by, ban.reason, ban.until) == ("cordon/c9", "telnet is open", 2_000_000_001)
    await broker.release(Subject.client("p-ban"), ())


def test_an_invalid_client_id_has_no_plan(broker: EmqxBroker) -> None:
    for name in ("..", "a/b", "#", ""):
        with pytest.raises(BrokerRefusedError):
            broker.planned(Subject.client(name), PlanParameters(ContainmentGoal.RELEASE))
