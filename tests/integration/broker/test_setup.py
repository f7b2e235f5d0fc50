"""Setup at a stand-in: shown, made once, kept through a restart of the controller, taken back; others' work stays."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.setup.baseline import read_all_rules, rules_for_all
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.sqlite.broker_setup import SqliteSetupStore
from controller.adapters.system import SystemClock
from controller.domain.audit_kinds import AuditKind
from controller.ports.broker_setup import DesiredSetup
from controller.ports.broker_tables import AccessRule
from controller.service.broker.setup import NothingToUndoError, SetupOperations
from controller.service.containment.drift import DriftState
from controller.service.containment.reconciler import Reconciler
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.emqx_calls import rules_of
from tests.support.standin import StandInProcess

CONTROLLER = "cordon-controller"
WANTED = DesiredSetup(CONTROLLER, 1000, "cordon", "the-password")
FILE = {"type": "file", "rules": "{allow, all}.\n"}
USERS = "/authentication/password_based%3Abuilt_in_database/users"


@dataclass
class Harness:
    emqx: StandInProcess
    broker: EmqxBroker
    harness: ControllerHarness
    desk: SetupOperations

    async def zone(self) -> dict[str, Any]:
        data: dict[str, Any] = await self.broker.api.send(requests.json_request("GET", "/configs/global_zone", "read"))
        return data["mqtt"]  # type: ignore[no-any-return]

    async def order(self) -> list[str]:
        return [row.type for row in await self.broker.api.send(requests.read_sources())]

    def reconciler(self) -> Reconciler:
        """One of a controller that has just started."""
        one = self.harness
        managed = one.services.broker.access.access
        return Reconciler(one.fleet, one.tables, one.outbox.queue, 5.0, lambda _text, _more: None, managed, self.desk)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with AsyncExitStack() as stack:
        emqx = stack.enter_context(StandInProcess(users=[("lab", "lab-password")]))
        emqx.configure({"sources": [FILE, {"type": "built_in_database"}]})
        broker = await stack.enter_async_context(open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock()))
        one = await stack.enter_async_context(open_harness(tmp_path / "c.db"))
        desk = SetupOperations(EmqxSetup(broker.api), SqliteSetupStore(one.store), one.fleet.record, one.clock, WANTED)
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
        "limits of the controller's session",
    ]
    assert plan.changes[-1].after == "mqtt.max_inflight = 1000\nmqtt.max_mqueue_len = 100000"
    assert "the-password" not in repr(plan) + repr(WANTED)
    assert await harness.order() == ["file", "built_in_database"], "a plan writes nothing"

    made = await harness.desk.apply("operator:tests")
    assert tuple(made) == plan.changes
    assert await harness.order() == ["built_in_database", "file"]
    assert (await harness.zone())["max_inflight"] == 1000
    assert (await harness.zone())["max_packet_size"] == "1MB", "what is not Cordon's stays"
    assert await harness.desk.apply("operator:tests") == ()
    assert (await harness.desk.plan()).changes == ()

    added = AccessRule("later/#", "allow", "publish")
    await harness.broker.api.send(requests.write_all_rules((*rules_for_all(), theirs, added)))
    assert {one.what for one in await harness.desk.plan_undo()} == {one.what for one in plan.changes} - {
        "limits of the controller's session"
    } | {"settings of the zone"}
    assert await harness.desk.undo("operator:tests") == []
    assert await harness.order() == ["file", "built_in_database"]
    assert (await harness.zone())["max_inflight"] == 32
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


async def test_settings_that_the_key_may_not_read_are_left_to_people(harness: Harness) -> None:
    wanted = DesiredSetup(CONTROLLER, 1000)
    setup = EmqxSetup(harness.broker.api)

    async def forbidden(path: str) -> None:
        assert path.startswith("/")

    setup._read_optional = forbidden  # type: ignore[method-assign]  # as a key without the scope `system`
    plan = await setup.plan(wanted)
    assert "limits of the controller's session" not in {one.what for one in plan.changes}
    (limits,) = [one for one in plan.by_hand if one.what == "limits of sessions"]
    assert "mqtt.max_inflight = 1000" in limits.configuration
