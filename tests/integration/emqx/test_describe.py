"""What a plan shows is what is done: every call that was made stands in the plan of the same intent."""

import time
from dataclasses import replace

import pytest

from controller.adapters.emqx.containment.actions import ACTS
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.emqx.containment.checks import LABELS, LOOKS
from controller.adapters.emqx.containment.describe import ACT_CALLS, LOOK_CALLS
from controller.domain.containment.plan import ContainmentAction, ContainmentCheck, ContainmentGoal
from controller.ports.broker import PlanParameters, SavedSubscription
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import BrokerRefusedError
from tests.integration.emqx.conftest import USER, Kept
from tests.integration.emqx.plans import calls_not_in_plan
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess


def test_every_act_and_look_can_be_carried_out_and_shown() -> None:
    assert set(ACTS) == set(ACT_CALLS) == set(ContainmentAction)
    assert set(LOOKS) == set(LOOK_CALLS) == set(LABELS) == set(ContainmentCheck)


async def test_the_calls_made_are_those_of_the_plan(emqx: StandInProcess, broker: EmqxBroker, kept: Kept) -> None:
    had = (AccessRule("fleet/#", "allow", "all"),)
    intent = PlanParameters(ContainmentGoal.RESTRICT, case="c1", reason="r", until=time.time() + 60, kept=had)
    await broker.api.write_rules("p-dev", had)
    with Device("p-dev", [emqx.mqtt[1]], user=USER) as device:
        device.subscribe("fleet/news")
        cut: list[SavedSubscription] = []

        async def keep(subscriptions: tuple[SavedSubscription, ...]) -> None:
            cut.extend(subscriptions)

        restricted = await broker.restrict("p-dev", kept, keep_subscriptions=keep)
        assert restricted.holds, restricted.missing
        assert calls_not_in_plan(restricted, broker.planned("p-dev", intent)) == set()
        assert [(one.topic, one.qos) for one in cut] == [("fleet/news", 1)]

        freed = await broker.release("p-dev", had, tuple(cut))
        assert freed.holds, freed.missing
        out = replace(intent, goal=ContainmentGoal.RELEASE, subscriptions=tuple(cut))
        assert calls_not_in_plan(freed, broker.planned("p-dev", out)) == set()

        isolated = await broker.isolate("p-dev", kept, case="c1", reason="r", until=intent.until)
        assert isolated.holds, isolated.missing
        assert (
            calls_not_in_plan(isolated, broker.planned("p-dev", replace(intent, goal=ContainmentGoal.ISOLATE))) == set()
        )
    down = await broker.end_isolation("p-dev", kept)
    assert (
        calls_not_in_plan(down, broker.planned("p-dev", replace(intent, goal=ContainmentGoal.END_ISOLATION))) == set()
    )
    await broker.release("p-dev", had)
    await broker.api.delete_rules("p-dev")


async def test_the_body_of_a_planned_ban_is_the_row_that_is_made(broker: EmqxBroker, kept: Kept) -> None:
    intent = PlanParameters(ContainmentGoal.ISOLATE, case="c9", reason="telnet\nis open", until=2_000_000_000.5)
    (act,) = broker.planned("p-ban", intent)[0].acts
    (call,) = act[1]
    assert call.body == {
        "as": "clientid",
        "who": "p-ban",
        "by": "cordon/c9",
        "reason": "telnet is open",
        "until": "2033-05-18T03:33:21Z",
    }
    proof = await broker.isolate("p-ban", kept, case="c9", reason="telnet\nis open", until=2_000_000_000.5)
    assert proof.holds
    ban = await broker.api.ban_of("p-ban")
    assert ban is not None
    assert (ban.by, ban.reason, ban.until) == ("cordon/c9", "telnet is open", 2_000_000_001)
    await broker.release("p-ban", ())


def test_no_plan_for_what_is_no_client_id(broker: EmqxBroker) -> None:
    for name in ("..", "a/b", "#", ""):
        with pytest.raises(BrokerRefusedError):
            broker.planned(name, PlanParameters(ContainmentGoal.RELEASE))
