"""Who is contained on whose word, at a broker that lets clients in without proof: a claim never reaches a victim."""

from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.broker_results import LATER_PAUSE
from controller.domain.events import ContainmentOrdered, ReleaseOrdered
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import AuthStrength
from controller.ports.broker_tables import AccessRule, restriction
from controller.ports.errors import BrokerUnreachableError
from controller.service.containment.identity_check import BACKLOG_SECONDS
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.reports import full, heartbeat, incoming

OWN = (AccessRule("fleet/#", "allow", "all"),)


async def hear(harness: ControllerHarness, payload: bytes) -> None:
    """A message of the device arrives now."""
    await harness.ingest.process_batch([incoming("edge-1", payload, at=harness.clock.monotonic())])


@pytest.mark.parametrize("port", [23, 2375])
async def test_a_claim_followed_by_the_victims_session_contains_nobody(tmp_path: Path, port: int) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.is_open = True
        await hear(harness, full("edge-1", 1, port))
        harness.broker.connected["edge-1"] = START + 1  # the impostor is gone, the victim is back
        await harness.drain()
        assert (harness.broker.rules_held, harness.broker.bans_held) == ({}, {})
        assert devices_of(harness.fleet)["edge-1"].case is None
        assert harness.outbox.queue.pending == 0
        (line,) = await harness.store.audit(kind=AuditKind.CONTAINMENT_REFUSED)
        assert line.entry.alert

        # Nor does time, or the victim's word that something else is so.
        harness.clock.at += LATER_PAUSE
        await harness.timers.tick()
        await hear(harness, heartbeat("edge-1", 2, "sha256:" + "0" * 64))
        await harness.drain()
        assert devices_of(harness.fleet)["edge-1"].case is None


async def test_the_device_that_came_back_is_judged_by_its_next_word(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.is_open = True
        await hear(harness, full("edge-1", 1, 23))
        harness.broker.connected["edge-1"] = START + 1
        await harness.drain()
        harness.clock.at += LATER_PAUSE
        await hear(harness, heartbeat("edge-1", 2, devices_of(harness.fleet)["edge-1"].digest))
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == restriction("edge-1")
        case = devices_of(harness.fleet)["edge-1"].case
        assert case is not None
        assert case.evidence is Evidence.MUTUAL_TLS


async def test_whose_session_is_gone_and_another_comes_is_not_contained_for_the_first(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.is_open = True
        harness.broker.grades["edge-1"] = AuthStrength.UNSEEN
        await hear(harness, full("edge-1", 1, 2375))
        await harness.drain()
        assert harness.outbox.queue.troubled == 1
        harness.broker.grades["edge-1"] = AuthStrength.PROVEN
        harness.broker.connected["edge-1"] = START + 60
        harness.outbox.queue.retry_now("edge-1")
        await harness.drain()
        assert harness.broker.bans_held == {}
        assert devices_of(harness.fleet)["edge-1"].case is None


async def test_flapping_is_no_way_out_where_everybody_proves_who_they_are(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await hear(harness, full("edge-1", 1, 2375))
        harness.broker.connected["edge-1"] = START + 1
        await harness.drain()
        assert "edge-1" in harness.broker.bans_held


@pytest.mark.parametrize("is_open", [False, True])
async def test_what_may_have_waited_at_the_broker_is_nobodys_word_where_it_matters(
    tmp_path: Path, is_open: bool
) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.is_open = is_open
        harness.clock.at += 600
        harness.broker.connected["edge-1"] = START + 300  # while the controller was away
        harness.link.resumed_at = harness.clock.monotonic()
        await hear(harness, full("edge-1", 1, 23))
        await harness.drain()
        assert (devices_of(harness.fleet)["edge-1"].case is None) is is_open
        harness.clock.at += BACKLOG_SECONDS
        await hear(harness, full("edge-1", 2, 23, 24))
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == restriction("edge-1")


@pytest.mark.parametrize("killed", [False, True])
async def test_who_was_vouched_for_does_not_escape_by_coming_back_during_the_cut(tmp_path: Path, killed: bool) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.is_open = True
        harness.broker.misses = 1  # the first attempt is not seen to hold
        await hear(harness, full("edge-1", 1, 2375))
        await harness.drain()
        harness.broker.connected["edge-1"] = START + 1
        broker, clock = harness.broker, harness.clock
        if not killed:
            harness.outbox.queue.retry_now("edge-1")
            await harness.drain()
    if killed:
        async with open_harness(tmp_path / "c.db", broker=broker, clock=clock) as harness:
            await harness.drain()
    assert broker.bans_held["edge-1"].is_ours
    async with open_harness(tmp_path / "c.db", broker=broker, clock=clock) as harness:
        case = devices_of(harness.fleet)["edge-1"].case
        assert case is not None
        assert case.proven_level is ContainmentLevel.ISOLATED


@pytest.mark.parametrize("by_hand", [True, False])
async def test_an_isolation_that_never_was_gives_the_clients_own_rules_back(tmp_path: Path, by_hand: bool) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.rules_held["edge-1"] = OWN
        new = harness.fleet.new_id
        harness.broker.fails = [BrokerUnreachableError("no node answered")]
        if by_hand:
            await harness.fleet.apply_and_commit(
                "edge-1", ContainmentOrdered(new(), ContainmentLevel.ISOLATED, "op", "why", None)
            )
        else:
            await hear(harness, full("edge-1", 1, 2375))
        await harness.drain()
        assert harness.broker.bans_held == {}
        await harness.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", "never mind"))
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == restriction("edge-1")
        await harness.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", ""))
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == OWN
