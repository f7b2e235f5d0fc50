"""Setup at a stand-in: shown, made once, kept through a restart of the controller, taken back; others' work stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.setup.baseline import read_all_rules, rules_for_all, rules_for_controller
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.sql.broker_setup import SqlSetupStore
from controller.adapters.system import SystemClock
from controller.domain.audit_kinds import AuditKind
from controller.domain.broker.session_limits import controller_zone
from controller.ports.broker_setup import DesiredSetup, ManualStep
from controller.ports.broker_tables import AccessRule
from controller.ports.controllers import ControllerRecord
from controller.ports.errors import BrokerError
from controller.service.broker.setup import NothingToUndoError, SetupOperations
from controller.service.containment.drift import DriftState
from controller.service.containment.nodes import NodeWatch
from controller.service.containment.reconciler import Reconciler
from controller.service.own_clients import OwnClients
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.emqx_calls import PATIENT, rules_of
from tests.support.standin import StandInProcess

CONTROLLER = "cordon-controller"
WANTED = DesiredSetup(CONTROLLER, 1000, frozenset({1883}), "cordon", "the-password")
FILE = {"type": "file", "rules": "{allow, all}.\n"}
USERS = "/authentication/password_based%3Abuilt_in_database/users"


@dataclass
class Harness:
    emqx: StandInProcess
    broker: EmqxBroker
    harness: ControllerHarness
    desk: SetupOperations

    async def zone(self) -> dict[str, Any]:
        mqtt: dict[str, Any] = (await self.whole_zone())["mqtt"]
        return mqtt

    async def whole_zone(self) -> dict[str, Any]:
        data: dict[str, Any] = await self.broker.api.send(requests.json_request("GET", "/configs/global_zone", "read"))
        return data

    async def order(self) -> list[str]:
        return [row.type for row in await self.broker.api.send(requests.read_sources())]

    def reconciler(self) -> Reconciler:
        """One of a controller that has just started."""
        one = self.harness
        managed = one.services.broker.access.access
        nodes = NodeWatch(one.tables)
        return Reconciler(
            one.fleet, one.tables, one.outbox.queue, 5.0, lambda _text, _more: None, managed, self.desk, nodes
        )


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with AsyncExitStack() as stack:
        emqx = stack.enter_context(StandInProcess(users=[("lab", "lab-password")]))
        emqx.configure({"sources": [FILE, {"type": "built_in_database"}]})
        broker = await stack.enter_async_context(
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT)
        )
        one = await stack.enter_async_context(open_harness(tmp_path / "c.db"))
        desk = SetupOperations(EmqxSetup(broker.api), SqlSetupStore(one.store), one.fleet.record, one.clock, WANTED)
        yield Harness(emqx, broker, one, desk)


async def test_everything_is_shown_made_once_and_taken_back(harness: Harness) -> None:
    theirs = AccessRule("fleet/#", "allow", "all")
    await harness.broker.api.send(requests.write_all_rules((theirs,)))
    plan = await harness.desk.plan()
    assert [one.what for one in plan.changes] == [
        "user cordon of password_based:built_in_database",
        "order of authorization sources",
        "rules for all clients",
        f"rules of the client {CONTROLLER}",
        "ban of the client id +",
    ]
    assert "the-password" not in repr(plan) + repr(WANTED)
    assert await harness.order() == ["file", "built_in_database"], "a plan writes nothing"

    made = await harness.desk.apply("operator:tests")
    assert tuple(made) == plan.changes
    assert await harness.order() == ["built_in_database", "file"]
    assert await harness.desk.apply("operator:tests") == ()
    assert (await harness.desk.plan()).changes == ()

    added = AccessRule("later/#", "allow", "publish")
    await harness.broker.api.send(requests.write_all_rules((*rules_for_all(), theirs, added)))
    undone = await harness.desk.plan_undo()
    assert {one.what for one in undone} == {one.what for one in plan.changes}
    assert not any(one.danger for one in undone), "no client id changes"
    assert await harness.desk.undo("operator:tests") == []
    assert await harness.order() == ["file", "built_in_database"]
    assert await read_all_rules(harness.broker.api) == (theirs, added), "what others added since stays"
    assert await rules_of(harness.broker.api, CONTROLLER) == ()
    users = await harness.broker.api.send(requests.json_request("GET", USERS, "list"))
    assert [row["user_id"] for row in users["data"]] == ["lab"]
    with pytest.raises(NothingToUndoError):
        await harness.desk.undo("operator:tests")
    kinds = [one.entry.kind for one in await harness.harness.store.audit(newest_first=False)]
    assert kinds == [AuditKind.BROKER_SETUP_APPLIED, AuditKind.BROKER_SETUP_UNDONE]


async def test_what_changes_devices_is_asked_for_by_name_and_only_then_undone(harness: Harness) -> None:
    await harness.desk.apply("operator:tests")
    assert {one.what for one in (await harness.desk.plan()).by_hand} >= {
        "client ids from certificates", "default when no rule matches",
    }  # fmt: skip
    plan = await harness.desk.plan(client_id=True, deny_unmatched=True)
    assert [(one.what, bool(one.danger)) for one in plan.changes] == [
        ("client ids from certificates", True),
        ("default when no rule matches", True),
    ]
    await harness.desk.apply("operator:tests", client_id=True, deny_unmatched=True)
    assert (await harness.zone())["peer_cert_as_clientid"] == "cn"
    settings: Any = await harness.broker.api.send(requests.json_request("GET", "/authorization/settings", "read"))
    assert (settings["no_match"], settings["cache"]["enable"]) == ("deny", True)
    await harness.desk.undo("operator:tests")
    assert (await harness.zone())["peer_cert_as_clientid"] == "disabled"
    settings = await harness.broker.api.send(requests.json_request("GET", "/authorization/settings", "read"))
    assert settings["no_match"] == "allow"


async def test_what_was_set_up_is_watched_also_after_a_restart(harness: Harness) -> None:
    await harness.desk.apply("operator:tests", deny_unmatched=True)
    reconciler = harness.reconciler()  # of a process that never saw the broker whole
    harness.emqx.configure({"sources": [FILE, {"type": "built_in_database"}], "authorization": {"no_match": "allow"}})
    await harness.broker.api.send(requests.json_request("DELETE", f"{USERS}/cordon", "delete"))
    found = {one.what: one.state for one in await reconciler.reconcile()}
    assert found == {
        "user cordon of password_based:built_in_database: altered": DriftState.REPAIRING,
        "order of authorization sources: altered": DriftState.REPAIRING,
        "default when no rule matches: altered": DriftState.ALERTED,
    }
    assert await harness.order() == ["built_in_database", "file"]
    assert [one.what for one in await reconciler.reconcile()] == ["default when no rule matches: altered"]


async def test_an_undone_setup_stays_undone(harness: Harness) -> None:
    """For the reconciler that saw it complete, for one of a restarted controller, and when the undo was cut short."""
    await harness.desk.apply("operator:tests")
    seen = harness.reconciler()
    assert await seen.reconcile() == []
    await harness.desk.undo("operator:tests")
    for reconciler in (seen, harness.reconciler()):
        assert {one.state for one in await reconciler.reconcile()} == {DriftState.ALERTED}
        assert await harness.order() == ["file", "built_in_database"]
    assert await harness.desk.apply("operator:tests"), "an operator may set it up again"
    assert await seen.reconcile() == []
    await harness.broker.api.send(requests.delete_all_rules())
    assert {one.state for one in await seen.reconcile()} == {DriftState.REPAIRING}


async def test_an_undo_that_is_cut_short_is_not_repaired_and_can_be_repeated(harness: Harness) -> None:
    await harness.desk.apply("operator:tests")
    assert await harness.reconciler().reconcile() == []
    broken = EmqxSetup(harness.broker.api)

    async def killed(_before: str, _others: Any = ()) -> list[str]:
        await harness.broker.api.send(requests.delete_all_rules())
        raise BrokerError("the controller was killed here")

    broken.undo = killed  # type: ignore[assignment,method-assign]
    one = harness.harness
    store = SqlSetupStore(one.store)
    with pytest.raises(BrokerError):
        await SetupOperations(broken, store, one.fleet.record, one.clock, WANTED).undo("operator:tests")
    restarted = SetupOperations(EmqxSetup(harness.broker.api), store, one.fleet.record, one.clock, WANTED)
    harness.desk = restarted
    assert {found.state for found in await harness.reconciler().reconcile()} == {DriftState.ALERTED}
    assert await read_all_rules(harness.broker.api) == ()
    await restarted.undo("operator:tests")
    assert await harness.order() == ["file", "built_in_database"]


async def test_a_comparison_during_an_undo_repairs_nothing(harness: Harness) -> None:
    await harness.desk.apply("operator:tests")
    reconciler = harness.reconciler()
    assert await reconciler.reconcile() == []
    async with asyncio.TaskGroup() as group:
        group.create_task(harness.desk.undo("operator:tests"))
        for _ in range(5):
            group.create_task(reconciler.reconcile())
    assert await harness.order() == ["file", "built_in_database"]
    assert await read_all_rules(harness.broker.api) == ()


async def test_settings_that_the_key_may_not_read_are_left_to_people(harness: Harness) -> None:
    wanted = DesiredSetup(CONTROLLER, 1000)
    setup = EmqxSetup(harness.broker.api)

    async def forbidden(path: str) -> None:
        assert path.startswith("/")

    setup._read_optional = forbidden  # type: ignore[method-assign]  # as a key without the scope `system`
    assert [one.what for one in (await setup.plan(wanted)).by_hand][:2] == [
        "limits of the controller's session",
        "client ids from certificates",
    ]


async def test_no_limit_of_all_clients_is_changed_for_the_controller(harness: Harness) -> None:
    before = await harness.whole_zone()
    await harness.desk.apply("operator:tests", client_id=True, deny_unmatched=True)
    after = await harness.whole_zone()
    assert after == {**before, "mqtt": {**before["mqtt"], "peer_cert_as_clientid": "cn"}}
    await harness.desk.undo("operator:tests")
    assert await harness.whole_zone() == before


async def test_what_the_controllers_zone_lacks_is_said(harness: Harness) -> None:
    port = harness.emqx.mqtt[0][1]
    wanted, setup = DesiredSetup(CONTROLLER, 1000, frozenset({port})), EmqxSetup(harness.broker.api)

    async def lacking() -> ManualStep | None:
        steps = (await setup.plan(wanted)).by_hand
        return next((step for step in steps if step.what == "limits of the controller's session"), None)

    def configure(**own: Any) -> None:
        harness.emqx.configure({"listeners": {"tcp:default": {"zone": "own"}}, "zones": {"own": own}})

    step = await lacking()
    assert step is not None
    assert "tcp:default has no zone of its own" in step.why
    assert "32 in flight, 1000 messages queued" in step.why
    for key, value in controller_zone(1000).items():
        assert f"zones.cordon.{key} = {value}" in step.configuration
    mqtt = {"max_inflight": 1000, "max_mqueue_len": 100_000}
    configure(mqtt=mqtt)
    step = await lacking()
    assert step is not None
    assert "outgrows 33554432 bytes" in step.why
    assert "zones.own.force_shutdown.max_heap_size = 512MB" in step.configuration
    configure(mqtt=mqtt, force_shutdown={"max_heap_size": "512MB", "max_mailbox_size": 100_000})
    assert await lacking() is None
    wanted = DesiredSetup(CONTROLLER, 1000, frozenset({1}))
    step = await lacking()
    assert step is not None
    assert "cannot be told" in step.why


async def test_every_controller_gets_its_rules_and_they_go_with_an_undo(harness: Harness) -> None:
    own = OwnClients.of(CONTROLLER, "cordon")
    one, setup = harness.harness, EmqxSetup(harness.broker.api)
    desk = SetupOperations(setup, SqlSetupStore(one.store), one.fleet.record, one.clock, WANTED, own)
    await desk.apply("operator:tests")
    own.add([ControllerRecord("b", "cordon-b", 0.0, "another")])
    assert [change.what for change in await desk.repair()] == ["rules of the client cordon-b"], "it started later"
    assert await rules_of(harness.broker.api, "cordon-b") == rules_for_controller()
    assert [step.what for step in (await desk.plan()).by_hand][:1] == ["user another of another controller"]
    assert await desk.undo("operator:tests") == []
    for client_id in own.ids:
        assert await rules_of(harness.broker.api, client_id) == ()


async def test_the_strategy_of_the_share_group_is_left_to_the_operator(harness: Harness) -> None:
    setup, name = EmqxSetup(harness.broker.api), "strategy of the share group cordon"

    async def steps(wanted: DesiredSetup) -> list[ManualStep]:
        return [step for step in (await setup.plan(wanted)).by_hand if step.what == name]

    shared = DesiredSetup(CONTROLLER, shares=True)
    assert await steps(DesiredSetup(CONTROLLER)) == []
    text = "broker.shared_subscription_group.cordon.strategy = hash_clientid"
    assert await steps(shared) == [ManualStep(name, "it is round_robin", text)]
    groups = {"shared_subscription_group": {"cordon": {"strategy": "hash_clientid"}}}
    await harness.broker.api.send(requests.json_request("PUT", "/configs/broker", "set", body=groups))
    assert await steps(shared) == []
