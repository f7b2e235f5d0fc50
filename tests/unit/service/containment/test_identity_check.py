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
from tests.support.controller_harness import START, World, world
from tests.support.reports import full, heartbeat, incoming

OWN = (AccessRule("fleet/#", "allow", "all"),)


async def hear(place: World, payload: bytes) -> None:
    """A message of the device arrives now."""
    await place.ingest.process_batch([incoming("edge-1", payload, at=place.clock.monotonic())])


@pytest.mark.parametrize("port", [23, 2375])
async def test_a_claim_followed_by_the_victims_session_contains_nobody(tmp_path: Path, port: int) -> None:
    async with world(tmp_path / "c.db") as place:
        place.broker.is_open = True
        await hear(place, full("edge-1", 1, port))
        place.broker.connected["edge-1"] = START + 1  # the impostor is gone, the victim is back
        await place.drain()
        assert (place.broker.rules_held, place.broker.bans_held) == ({}, {})
        assert place.fleet.devices["edge-1"].case is None
        assert place.outbox.queue.pending == 0
        (line,) = await place.store.audit(kind=AuditKind.CONTAINMENT_REFUSED)
        assert line.entry.alert

        # Nor does time, or the victim's word that something else is so.
        place.clock.at += LATER_PAUSE
        await place.timers.tick()
        await hear(place, heartbeat("edge-1", 2, "sha256:" + "0" * 64))
        await place.drain()
        assert place.fleet.devices["edge-1"].case is None


async def test_the_device_that_came_back_is_judged_by_its_next_word(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        place.broker.is_open = True
        await hear(place, full("edge-1", 1, 23))
        place.broker.connected["edge-1"] = START + 1
        await place.drain()
        place.clock.at += LATER_PAUSE
        await hear(place, heartbeat("edge-1", 2, place.fleet.devices["edge-1"].digest))
        await place.drain()
        assert place.broker.rules_held["edge-1"] == restriction("edge-1")
        case = place.fleet.devices["edge-1"].case
        assert case is not None
        assert case.evidence is Evidence.MUTUAL_TLS


async def test_whose_session_is_gone_and_another_comes_is_not_contained_for_the_first(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        place.broker.is_open = True
        place.broker.grades["edge-1"] = AuthStrength.UNSEEN
        await hear(place, full("edge-1", 1, 2375))
        await place.drain()
        assert place.outbox.queue.troubled == 1
        place.broker.grades["edge-1"] = AuthStrength.PROVEN
        place.broker.connected["edge-1"] = START + 60
        place.outbox.queue.retry_now("edge-1")
        await place.drain()
        assert place.broker.bans_held == {}
        assert place.fleet.devices["edge-1"].case is None


async def test_flapping_is_no_way_out_where_everybody_proves_who_they_are(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await hear(place, full("edge-1", 1, 2375))
        place.broker.connected["edge-1"] = START + 1
        await place.drain()
        assert "edge-1" in place.broker.bans_held


@pytest.mark.parametrize("is_open", [False, True])
async def test_what_may_have_waited_at_the_broker_is_nobodys_word_where_it_matters(
    tmp_path: Path, is_open: bool
) -> None:
    async with world(tmp_path / "c.db") as place:
        place.broker.is_open = is_open
        place.clock.at += 600
        place.broker.connected["edge-1"] = START + 300  # while the controller was away
        place.link.resumed_at = place.clock.monotonic()
        await hear(place, full("edge-1", 1, 23))
        await place.drain()
        assert (place.fleet.devices["edge-1"].case is None) is is_open
        place.clock.at += BACKLOG_SECONDS
        await hear(place, full("edge-1", 2, 23, 24))
        await place.drain()
        assert place.broker.rules_held["edge-1"] == restriction("edge-1")


@pytest.mark.parametrize("killed", [False, True])
async def test_who_was_vouched_for_does_not_escape_by_coming_back_during_the_cut(tmp_path: Path, killed: bool) -> None:
    async with world(tmp_path / "c.db") as place:
        place.broker.is_open = True
        place.broker.misses = 1  # the first attempt is not seen to hold
        await hear(place, full("edge-1", 1, 2375))
        await place.drain()
        place.broker.connected["edge-1"] = START + 1
        broker, clock = place.broker, place.clock
        if not killed:
            place.outbox.queue.retry_now("edge-1")
            await place.drain()
    if killed:
        async with world(tmp_path / "c.db", broker=broker, clock=clock) as place:
            await place.drain()
    assert broker.bans_held["edge-1"].is_ours
    async with world(tmp_path / "c.db", broker=broker, clock=clock) as place:
        case = place.fleet.devices["edge-1"].case
        assert case is not None
        assert case.proven_level is ContainmentLevel.ISOLATED


@pytest.mark.parametrize("by_hand", [True, False])
async def test_an_isolation_that_never_was_gives_the_clients_own_rules_back(tmp_path: Path, by_hand: bool) -> None:
    async with world(tmp_path / "c.db") as place:
        place.broker.rules_held["edge-1"] = OWN
        new = place.fleet.new_id
        place.broker.fails = [BrokerUnreachableError("no node answered")]
        if by_hand:
            await place.fleet.apply_and_commit(
                "edge-1", ContainmentOrdered(new(), ContainmentLevel.ISOLATED, "op", "why", None)
            )
        else:
            await hear(place, full("edge-1", 1, 2375))
        await place.drain()
        assert place.broker.bans_held == {}
        await place.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", "never mind"))
        await place.drain()
        assert place.broker.rules_held["edge-1"] == restriction("edge-1")
        await place.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", ""))
        await place.drain()
        assert place.broker.rules_held["edge-1"] == OWN
