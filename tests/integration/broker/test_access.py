"""Access rules at a stand-in with real clients: what a template allows, grants that lapse, containment first."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.system import SystemClock
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device as DeviceState
from controller.domain.events import ContainmentOrdered, ReleaseOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.main import main
from controller.ports.access import as_broker_rules
from controller.ports.broker_tables import AccessRule, AccessRules, restriction
from controller.ports.policies import PolicyError
from controller.service.broker.access import AccessRuleManager
from controller.service.broker.access_operations import AccessOperations, AccessRefusedError
from controller.service.containment.comparison import ACCESS_ALTERED, ACCESS_MISSING
from controller.service.containment.drift import DriftState
from controller.service.containment.outbox import Outbox
from controller.service.containment.reconciler import Reconciler
from schemas.topics import DownChannel, UpChannel, down, up
from tests.support import access_templates
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.emqx_calls import (
    PATIENT,
    clients_with_rules,
    delete_rules,
    lift_ban,
    rules_of,
    subscriptions_of,
    write_rules,
)
from tests.support.fleet_devices import add_devices, devices_of
from tests.support.mqtt_device import Device
from tests.support.project_tree import ROOT
from tests.support.reports import full, incoming
from tests.support.standin import StandInProcess

DENIED = 135
TEMPLATES = access_templates.TEMPLATES + '      - {allow: subscribe, topic: "fleet/broadcast"}\n'
NARROW = access_templates.TEMPLATES.replace("version: 1", "version: 2")
FOREIGN: AccessRules = (AccessRule("theirs/#", "allow", "all"),)
WHO = "operator:tests"


@dataclass
class Harness:
    """One controller over a real stand-in; `restart` is another one over the same store."""

    harness: ControllerHarness
    broker: EmqxBroker
    outbox: Outbox
    access: AccessRuleManager
    desk: AccessOperations
    reconciler: Reconciler

    async def rules(self, device_id: str) -> AccessRules:
        return await rules_of(self.broker.api, device_id)

    def template(self, device_id: str) -> AccessRules:
        wanted = self.access.desired_rules(devices_of(self.harness.fleet)[device_id])
        assert wanted is not None
        return as_broker_rules(wanted)

    async def settled(self) -> None:
        """Effects that are ready are carried out."""
        await self.outbox.drain()

    async def contain(self, device_id: str, level: ContainmentLevel = ContainmentLevel.RESTRICTED) -> None:
        event = ContainmentOrdered(self.harness.fleet.new_id(), level, WHO, "a test", None)
        await self.harness.fleet.apply_and_commit(device_id, event)

    async def release(self, device_id: str) -> None:
        await self.harness.fleet.apply_and_commit(device_id, ReleaseOrdered(self.harness.fleet.new_id(), WHO, "over"))
        await self.settled()


@contextlib.asynccontextmanager
async def open_place(path: Path, broker: EmqxBroker) -> AsyncIterator[Harness]:
    async with open_harness(path, emqx=broker, settings={"identity": {"unsafe_accept_claimed": True}}) as harness:
        desk = harness.services.broker.access
        yield Harness(harness, broker, harness.outbox, desk.access, desk, harness.reconciler)


@pytest.fixture(scope="module")
def emqx() -> Iterator[StandInProcess]:
    with StandInProcess(nodes=2) as process:
        yield process


@pytest.fixture
async def broker(emqx: StandInProcess) -> AsyncIterator[EmqxBroker]:
    async with open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT) as opened:
        yield opened
        for client in await clients_with_rules(opened.api):
            await delete_rules(opened.api, client)
        for ban in [ban async for ban in opened.bans()]:
            await lift_ban(opened.api, ban.who)


@pytest.fixture
async def harness(tmp_path: Path, broker: EmqxBroker) -> AsyncIterator[Harness]:
    async with open_place(tmp_path / "c.db", broker) as opened:
        await opened.harness.ingest.process_batch([incoming(one, full(one, 1, 22)) for one in ("a-1", "a-2", "a-3")])
        yield opened


async def test_a_template_binds_at_once_also_what_was_allowed_and_subscribed_before(
    harness: Harness, emqx: StandInProcess
) -> None:
    with Device("a-1", [emqx.mqtt[1]]) as device:
        assert await asyncio.to_thread(device.publish, "elsewhere/x") != DENIED
        assert await asyncio.to_thread(device.subscribe, "elsewhere/#") < 128
        plan = await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
        assert (plan.counts, plan.errors) == ({"new": 3}, ())
        assert await asyncio.to_thread(device.publish, "elsewhere/x") == DENIED, "the cache was cleared"
        assert await subscriptions_of(harness.broker.api, "a-1") == (), "a subscription that is refused now was ended"
        assert await asyncio.to_thread(device.publish, "fleet/a-1/x") != DENIED
        assert await asyncio.to_thread(device.publish, "fleet/a-2/x") == DENIED
        assert await asyncio.to_thread(device.subscribe, "fleet/broadcast") < 128
        assert await asyncio.to_thread(device.publish, up("a-1", UpChannel.POSTURE)) != DENIED
        assert await asyncio.to_thread(device.subscribe, down("a-1", DownChannel.COMMAND)) < 128
        assert await asyncio.to_thread(device.publish, up("a-2", UpChannel.POSTURE)) == DENIED
    assert await harness.rules("a-1") == harness.template("a-1")
    again = await harness.desk.diff()
    assert again.counts == {"as it should be": 3}


async def test_rules_of_somebody_else_are_left_until_told_otherwise(harness: Harness) -> None:
    await write_rules(harness.broker.api, "a-2", FOREIGN)
    plan = await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    assert plan.counts == {"new": 2, "foreign": 1}
    await harness.access.tick()
    assert await harness.rules("a-2") == FOREIGN
    assert (await harness.desk.diff()).counts == {"as it should be": 2, "foreign": 1}
    await harness.desk.apply(TEMPLATES, WHO, overwrite=True)
    assert await harness.rules("a-2") == harness.template("a-2")


async def test_a_contained_device_keeps_its_restriction_and_is_released_to_the_template_of_then(
    harness: Harness,
) -> None:
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    wide = harness.template("a-1")
    await harness.contain("a-1")
    await harness.settled()
    assert await harness.rules("a-1") == restriction("a-1")
    plan = await harness.desk.apply(NARROW, WHO, overwrite=True)
    assert plan.counts == {"contained": 1, "changed": 2}
    assert await harness.rules("a-1") == restriction("a-1"), "never overwritten by apply"
    await harness.release("a-1")
    assert await harness.rules("a-1") == harness.template("a-1") != wide
    await harness.access.tick()
    assert await harness.reconciler.reconcile() == []


async def test_withdrawn_templates_leave_nothing_of_theirs(
    harness: Harness, broker: EmqxBroker, tmp_path: Path, emqx: StandInProcess
) -> None:
    with pytest.raises(AccessRefusedError, match="no templates are in force"):
        await harness.desk.withdraw(WHO)
    await write_rules(broker.api, "b-9", FOREIGN)
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    await harness.desk.grant("a-3", "publish", "firmware/logs", seconds=600, reason="a look", actor=WHO)
    await harness.access.tick()
    await harness.contain("a-2")
    await harness.settled()
    with Device("a-1", [emqx.mqtt[1]]) as device:
        assert await asyncio.to_thread(device.publish, "elsewhere/x") == DENIED
        planned = await harness.desk.plan_withdrawal()
        assert planned.counts == {"taken away": 1, "changed": 1, "contained": 1}
        assert await harness.rules("a-1") == harness.template("a-1"), "a plan writes nothing"
        assert (await harness.desk.withdraw(WHO)).counts == planned.counts
        assert await asyncio.to_thread(device.publish, "elsewhere/x") != DENIED, "its cache was cleared"
    assert await harness.rules("a-1") == ()
    assert await harness.rules("a-2") == restriction("a-2")
    assert "firmware/logs" in {rule.topic for rule in await harness.rules("a-3")}
    assert await harness.rules("b-9") == FOREIGN
    await harness.release("a-2")
    assert await harness.rules("a-2") == ()
    await harness.access.tick()
    assert (await harness.desk.diff()).counts == {"as it should be": 1}
    assert await harness.reconciler.reconcile() == []
    (line,) = await harness.harness.store.audit(kind=AuditKind.ACCESS_TEMPLATES_WITHDRAWN)
    assert (line.entry.actor, line.entry.detail) == (
        WHO, {"templates": "fleet", "version": 1, "counts": planned.counts}
    )  # fmt: skip


async def test_rules_that_others_changed_stay_after_a_withdrawal(harness: Harness) -> None:
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    await write_rules(harness.broker.api, "a-1", FOREIGN)
    await harness.desk.withdraw(WHO)
    assert await harness.rules("a-1") == FOREIGN
    assert await harness.rules("a-2") == ()
    assert (await harness.desk.diff()).counts == {}
    assert await harness.reconciler.reconcile() == []


async def test_a_grant_lapses_by_itself_also_after_a_restart(
    harness: Harness, broker: EmqxBroker, tmp_path: Path, emqx: StandInProcess
) -> None:
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    with Device("a-1", [emqx.mqtt[0]]) as device:
        assert await asyncio.to_thread(device.publish, "firmware/logs") == DENIED
        await harness.desk.grant("a-1", "publish", "firmware/logs", seconds=60, reason="a look", actor=WHO)
        await harness.access.tick()
        assert await asyncio.to_thread(device.publish, "firmware/logs") != DENIED
        await harness.desk.grant("a-1", "subscribe", "firmware/#", seconds=600, reason="longer", actor=WHO)
        await harness.access.tick()
        assert await asyncio.to_thread(device.subscribe, "firmware/#") < 128
        async with open_place(tmp_path / "c.db", broker) as later:
            later.harness.clock.at += 61
            await later.access.tick()
            assert await asyncio.to_thread(device.publish, "firmware/logs") == DENIED
            assert await subscriptions_of(broker.api, "a-1") == ("firmware/#",)
            later.harness.clock.at += 600
            await later.access.tick()
            assert await subscriptions_of(broker.api, "a-1") == (), "what was listened to by it ended with it"
            assert await later.rules("a-1") == later.template("a-1")
            ended = await later.desk.grants("a-1", 10)
            assert [one.ended_at is not None for one in ended] == [True, True]
            kinds = [one.entry.kind for one in await later.harness.store.audit(device_id="a-1", newest_first=False)]
            assert kinds.count(AuditKind.ACCESS_GRANTED) == kinds.count(AuditKind.ACCESS_GRANT_ENDED) == 2


async def test_a_grant_waits_while_the_device_is_contained_and_is_not_released_to_it_afterwards(
    harness: Harness,
) -> None:
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    await harness.desk.grant("a-1", "publish", "firmware/logs", seconds=60, reason="a look", actor=WHO)
    await harness.access.tick()
    assert AccessRule("firmware/logs", "allow", "publish") in await harness.rules("a-1")
    await harness.contain("a-1")
    await harness.settled()
    await harness.desk.grant("a-1", "publish", "firmware/more", seconds=600, reason="another", actor=WHO)
    await harness.access.tick()
    assert await harness.rules("a-1") == restriction("a-1")
    harness.harness.clock.at += 61
    await harness.access.tick()
    await harness.release("a-1")
    given = await harness.rules("a-1")
    assert AccessRule("firmware/logs", "allow", "publish") not in given, "it lapsed while the device was contained"
    assert AccessRule("firmware/more", "allow", "publish") in given
    ended = await harness.desk.revoke((await harness.desk.grants("a-1", 1))[0].grant.grant_id, WHO)
    await harness.access.tick()
    assert ended.topic == "firmware/more"
    assert await harness.rules("a-1") == harness.template("a-1")


async def test_grants_have_bounds(harness: Harness) -> None:
    for topic, seconds, why in (
        ("cordon/v1/a-2/down/#", 60.0, "topics of Cordon"),
        ("#", 60.0, "allows everything"),
        ("ok", 90 * 86_400.0, "30 days"),
    ):
        with pytest.raises(AccessRefusedError, match=why):
            await harness.desk.grant("a-1", "subscribe", topic, seconds=seconds, reason="x", actor=WHO)
    with pytest.raises(AccessRefusedError, match="no grant"):
        await harness.desk.revoke("nothing", WHO)


async def test_a_containment_decided_while_rules_are_written_wins(harness: Harness) -> None:
    ordinary = harness.access.broker.write

    async def contain_meanwhile(client_id: str, rules: AccessRules | None) -> None:
        harness.access.broker.write = ordinary  # type: ignore[method-assign]  # once
        await harness.contain(client_id)
        await harness.settled()
        await ordinary(client_id, rules)  # and arrives after the restriction

    await write_rules(harness.broker.api, "a-1", as_broker_rules(()))
    await harness.desk.apply(TEMPLATES, WHO, overwrite=True)
    harness.access.broker.write = contain_meanwhile  # type: ignore[method-assign]  # between the look and the write
    await harness.desk.grant("a-1", "publish", "firmware/logs", seconds=60, reason="x", actor=WHO)
    await harness.access.tick()
    assert await harness.rules("a-1") == restriction("a-1")
    await harness.settled()
    case = devices_of(harness.harness.fleet)["a-1"].case
    assert case is not None
    assert case.proven_level is ContainmentLevel.RESTRICTED


async def test_drift_of_template_rules(harness: Harness) -> None:
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    assert await harness.reconciler.reconcile() == []
    await delete_rules(harness.broker.api, "a-1")
    await write_rules(harness.broker.api, "a-2", FOREIGN)
    found = {one.device_id: (one.what, one.state) for one in await harness.reconciler.reconcile()}
    assert found == {
        "a-1": (ACCESS_MISSING, DriftState.REPAIRING),
        "a-2": (ACCESS_ALTERED, DriftState.ALERTED),
    }
    await harness.access.tick()
    assert await harness.rules("a-1") == harness.template("a-1")
    assert await harness.rules("a-2") == FOREIGN
    assert (await harness.desk.diff()).counts == {"as it should be": 2, "altered": 1}
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    assert await harness.rules("a-2") == harness.template("a-2"), "what Cordon wrote is Cordon's"
    assert await harness.reconciler.reconcile() == []


async def test_a_template_that_is_taken_away_takes_its_rules_along(harness: Harness) -> None:
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    other = TEMPLATES.replace('class: "*"', "class: gateway")
    plan = await harness.desk.apply(other, WHO, overwrite=False)
    assert plan.counts == {"taken away": 3}
    assert await clients_with_rules(harness.broker.api) == []
    assert await harness.access.store.written() == {}


async def test_many_devices_in_few_requests(harness: Harness) -> None:
    state = harness.harness.fleet
    many = [DeviceState(f"m-{number}", first_seen=0.0, last_seen=0.0) for number in range(250)]
    await add_devices(state, *many)
    posts: list[int] = []
    ordinary = harness.access.broker.add

    async def counted(client_ids: list[str], rules: AccessRules) -> bool:
        posts.append(len(client_ids))
        return await ordinary(client_ids, rules)

    harness.access.broker.add = counted  # type: ignore[method-assign, assignment]
    await harness.desk.apply(TEMPLATES, WHO, overwrite=False)
    assert posts == [100, 100, 53]
    assert (await harness.desk.diff()).counts == {"as it should be": 253}


async def test_what_lint_refuses_is_not_applied(harness: Harness) -> None:
    with pytest.raises(AccessRefusedError, match="allows everything"):
        await harness.desk.apply(TEMPLATES.replace("fleet/${clientid}/#", "#"), WHO, overwrite=False)
    with pytest.raises(PolicyError, match="one of `allow` and `deny`"):
        await harness.desk.plan(TEMPLATES.replace("allow: publish", "allow: publish, deny: all"))
    with pytest.raises(PolicyError, match="has a template already"):
        await harness.desk.plan(TEMPLATES + '  - {class: "*", title: Again}\n')
    assert await harness.access.store.templates() is None


def test_lint_at_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "access.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "fleet.yaml"
    path.write_text(example)
    assert main(["access", "lint", "--strict", str(path)]) == 0
    assert "no remarks" in capsys.readouterr().err
    path.write_text(example.replace("fleet/broadcast", "+/broadcast"))
    assert main(["access", "lint", str(path)]) == 0
    assert main(["access", "lint", "--strict", str(path), "-o", "json"]) == 1
    path.write_text(example.replace("fleet/broadcast", "cordon/#"))
    assert main(["access", "lint", str(path)]) == 1
    assert "overlaps the topics of Cordon" in capsys.readouterr().out
    path.write_text("access: [")
    assert main(["access", "lint", str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert main(["access", "lint", str(tmp_path / "none.yaml")]) == 2
