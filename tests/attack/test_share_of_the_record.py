"""One device that fills audit, log and disk: a day in simulated time, and what stays in the record all the same."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.sql import codec
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.policy.model import ContainmentLevel
from controller.domain.record_budget import (
    DAY,
    FULL_ROWS,
    MAX_KEYS,
    RecordBudget,
    RecordLimits,
)
from controller.ports.messages import IncomingMessage
from controller.service.audit_log import AuditLogger
from controller.service.identity.enrolment import EnrolmentRefusedError, EnrolmentTokenRequest
from schemas.topics import UpChannel
from tests.support.controller_harness import START, ControllerHarness, LogLines, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.identity import authority_settings, request_for
from tests.support.reports import full, incoming

DEVICE = "edge-1"
BIG = "\U0001f600" * 1000
MIDNIGHT = START - START % DAY + DAY
SMALL = {"limits": {"audit_rows_per_day": 100, "audit_bytes_per_day": 1 << 20}}


def event(kind: str, at: float, *, text: str = "x", severity: str = "critical") -> IncomingMessage:
    body = {
        "v": 1, "device_id": DEVICE, "kind": kind, "severity": severity, "count": 1, "summary": text,
        "detail": {"source": text, "signature": text}, "at": "2026-11-23T10:00:00Z",
    }  # fmt: skip
    return incoming(DEVICE, json.dumps(body, ensure_ascii=False).encode(), UpChannel.EVENT, at=at)


def status(state: str, at: float) -> IncomingMessage:
    body = {"v": 1, "device_id": DEVICE, "state": state, "boot_id": "b1"}
    return incoming(DEVICE, json.dumps(body).encode(), UpChannel.STATUS, at=at)


def answering(nonce: str, seq: int, *ports: int) -> bytes:
    """A report that answers a nonce."""
    return json.dumps({**json.loads(full(DEVICE, seq, *ports)), "answers": nonce}).encode()


async def send(harness: ControllerHarness, *messages: IncomingMessage) -> None:
    await harness.ingest.process_batch(messages)


async def rows_of(harness: ControllerHarness) -> list[Any]:
    return list(await harness.store.audit(device_id=DEVICE, limit=10_000, newest_first=False))


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[ControllerHarness]:
    async with open_harness(tmp_path / "c.db", settings=SMALL) as made:
        made.clock.at = MIDNIGHT
        yield made


async def _hostile_minute(harness: ControllerHarness, number: int) -> None:
    at = harness.clock.monotonic()
    messages = [event(f"intrusion.x{number}-{index}", at, text=BIG) for index in range(4)]
    messages += [status(state, at) for state in ("offline", "online")]
    messages += [incoming(DEVICE, full(DEVICE, 2 * number + 1 + index, *ports), at=at)
                 for index, ports in enumerate(((24,), (22,)))]  # fmt: skip
    await send(harness, *messages)


@pytest.mark.slow
async def test_a_day_of_a_hostile_device(tmp_path: Path) -> None:
    lines = LogLines()
    async with open_harness(tmp_path / "c.db", listeners=(AuditLogger(lines),)) as made:
        made.clock.at = MIDNIGHT
        limits, before = made.fleet.budget.limits, (tmp_path / "c.db").stat().st_size
        for number in range(1440):
            await _hostile_minute(made, number)
            made.clock.at += 60.0
        (counted,) = await made.store.record_use(MIDNIGHT)
        most = limits.rows + MAX_KEYS + 10
        assert counted.rows <= most
        assert counted.size <= limits.size + 64 * 1024
        assert counted.rows <= len(lines) + len(made.logged) <= most
        assert sum(len(str(fields).encode()) for _, fields in lines) <= limits.size
        assert (tmp_path / "c.db").stat().st_size - before < 3 * limits.size
        assert made.fleet.budget.folded > 5_000
        kinds = [one.entry.kind for one in await rows_of(made)]
        assert kinds.count(AuditKind.AUDIT_BUDGET_USED_UP) <= 1
        await _hostile_minute(made, 1440)
        (first,) = [one.entry for one in await rows_of(made) if one.entry.kind is AuditKind.AUDIT_REPEATS_FOLDED]
        assert first.detail["folded"]["device.event_reported"] > 1_000


async def test_repeats_fold_into_counts(harness: ControllerHarness) -> None:
    for _ in range(100):
        await send(harness, event("intrusion.brute_force", harness.clock.monotonic()))
        harness.clock.at += 1.0
    found = [one.entry for one in await rows_of(harness) if one.entry.kind is AuditKind.DEVICE_EVENT_REPORTED]
    assert len(found) == FULL_ROWS + 1
    assert found[-1].detail["repeats"] == 64 - FULL_ROWS - 1
    assert harness.fleet.budget.folded == 100 - FULL_ROWS - 1


async def _use_up(harness: ControllerHarness) -> None:
    for number in range(150):
        await send(harness, event(f"noise.n{number}", harness.clock.monotonic(), severity="low"))
        harness.clock.at += 1.0
    assert harness.fleet.budget.is_used_up(DEVICE, harness.clock.at)


async def test_first_findings_and_decisions_are_recorded_beyond_the_share(harness: ControllerHarness) -> None:
    await send(harness, incoming(DEVICE, full(DEVICE, 1, 22), at=harness.clock.monotonic()))
    await _use_up(harness)
    seen = len(await rows_of(harness))
    at = harness.clock.monotonic()
    await send(harness, event("intrusion.integrity", at), incoming(DEVICE, full(DEVICE, 2, 2375), at=at))
    await harness.drain()
    kinds = [one.entry.kind for one in (await rows_of(harness))[seen:]]
    assert {
        AuditKind.DEVICE_EVENT_REPORTED, AuditKind.REPORT_POSTURE_CHANGED, AuditKind.CONTAINMENT_DECIDED,
        AuditKind.CONTAINMENT_PROVEN,
    } <= set(kinds)  # fmt: skip
    alerts = [one.entry for one in await rows_of(harness) if one.entry.kind is AuditKind.AUDIT_BUDGET_USED_UP]
    assert [one.alert for one in alerts] == [True], "said once"


async def test_flapping_is_held_once_the_share_is_used_up(harness: ControllerHarness) -> None:
    await _use_up(harness)
    for number in range(1, 40):
        at = harness.clock.monotonic()
        ports = (23,) if number % 2 else (22,)
        known = await harness.fleet.find(DEVICE)
        answers = "" if known is None or known.case is None else known.case.nonce
        await send(harness, incoming(DEVICE, answering(answers, number, *ports), at=at))
        harness.clock.at += 10.0
    assert harness.level(DEVICE) is ContainmentLevel.RESTRICTED
    kinds = [one.entry.kind for one in await rows_of(harness)]
    assert kinds.count(AuditKind.CONTAINMENT_DECIDED) == 1
    assert AuditKind.CONTAINMENT_RELEASE_DECIDED not in kinds
    harness.clock.at += DAY
    case = devices_of(harness.fleet)[DEVICE].case
    assert case is not None
    at = harness.clock.monotonic()
    await send(harness, incoming(DEVICE, answering(case.nonce, 100, 22), at=at))
    assert harness.level(DEVICE) is ContainmentLevel.NONE, "the next day it is released as usual"


async def test_the_share_survives_a_restart(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SMALL) as made:
        made.clock.at = MIDNIGHT
        await _use_up(made)
        used, clock = len(await rows_of(made)), made.clock
    async with open_harness(tmp_path / "c.db", settings=SMALL, clock=clock) as made:
        assert made.fleet.budget.is_used_up(DEVICE, clock.at)
        for number in range(50):
            await send(made, status("online" if number % 2 else "offline", made.clock.monotonic()))
            made.clock.at += 1.0
        assert len(await rows_of(made)) == used, "and it is not said again"


async def test_others_have_their_own_share(harness: ControllerHarness) -> None:
    await _use_up(harness)
    await send(harness, incoming("edge-2", full("edge-2", 1, 23), at=harness.clock.monotonic()))
    assert not harness.fleet.budget.is_used_up("edge-2", harness.clock.at)
    assert harness.level("edge-2") is ContainmentLevel.RESTRICTED


@pytest.mark.parametrize("text", ["\U0001f600" * 4000, "\u00e9" * 8000, "ascii" * 3000])
def test_text_is_stored_as_it_came_in(text: str) -> None:
    stored = codec.dump_detail({"text": text})
    assert stored is not None
    assert len(stored.encode()) <= len(text.encode()) + 16
    assert codec.load_detail(stored) == {"text": text}


@given(text=st.text(alphabet=st.characters(categories=None), max_size=20))
def test_any_text_is_stored_and_read_back(text: str) -> None:
    stored = codec.dump_detail({"text": text})
    assert stored is not None
    stored.encode()
    assert codec.load_detail(stored) == {"text": text}


_OWN = (AuditKind.AUDIT_BUDGET_USED_UP, AuditKind.AUDIT_REPEATS_FOLDED)
_KINDS = st.sampled_from([kind for kind in AuditKind if kind not in _OWN])


@given(sent=st.lists(st.tuples(_KINDS, st.integers(0, 5)), max_size=300))
def test_no_mixture_of_entries_is_beyond_the_bound(sent: list[tuple[AuditKind, int]]) -> None:
    budget = RecordBudget(RecordLimits(rows=20, size=1 << 20))
    recorded = [
        one
        for kind, number in sent
        for one in budget.admit([AuditEntry(kind, DEVICE, DEVICE, "", {"event_kind": f"k{number}"})], MIDNIGHT)
    ]
    decisions = (AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_PROVEN, AuditKind.CONTAINMENT_RELEASE_DECIDED)
    wanted = [kind for kind, _ in sent if kind in decisions]
    assert [one.kind for one in recorded if one.kind in decisions] == wanted, "decisions are never left out"
    own = [one for one in recorded if one.kind in _OWN]
    assert len(own) <= 1
    assert len(sent) == len(recorded) - len(own) + budget.folded, "each is recorded or counted"


async def _refusals(harness: ControllerHarness, secret: str, count: int) -> None:
    for _ in range(count):
        harness.clock.at += 1.0
        with pytest.raises(EnrolmentRefusedError):
            await harness.identity.enrolment.enrol(secret, DEVICE, request_for(DEVICE), "192.0.2.1")


async def test_what_others_say_of_a_device_uses_up_nothing_of_its_share(tmp_path: Path) -> None:
    """Finding: the holder of a used token named another device until that one's reports released it no more."""
    path, settings = tmp_path / "c.db", {**authority_settings(tmp_path), **SMALL}
    async with open_harness(path, settings=settings) as made:
        made.clock.at = MIDNIGHT
        enrolment = made.identity.enrolment
        secret, used = await enrolment.make_token(EnrolmentTokenRequest(1, 30 * DAY, "operator:a"))
        await enrolment.enrol(secret, "mallory", request_for("mallory"), "192.0.2.1")
        await send(made, incoming(DEVICE, full(DEVICE, 1, 23), at=made.clock.monotonic()))
        before = len(await rows_of(made))
        await _refusals(made, secret, 150)
        assert not made.fleet.budget.is_used_up(DEVICE, made.clock.at)
        other, _ = await enrolment.make_token(EnrolmentTokenRequest(1, DAY, "operator:a", device_id="somebody"))
        await _refusals(made, other, 1)
        found = (await rows_of(made))[before:]
        assert [row.entry.kind for row in found] == [AuditKind.ENROLMENT_TOKEN_REUSED] * (FULL_ROWS + 2) + [
            AuditKind.ENROLMENT_REFUSED
        ], "the 64th and the 128th, and another token's for itself"
        assert found[0].entry.detail["token_id"] == used.token_id
        assert found[-2].entry.detail["repeats"] == 63
        (counted,) = [one for one in await made.store.record_use(MIDNIGHT) if one.device_id == DEVICE]
        assert counted.rows == before


async def test_a_repeated_enrolment_is_recorded_once(tmp_path: Path) -> None:
    """Finding: the same token and key, again and again, wrote a row each time."""
    path, settings = tmp_path / "c.db", authority_settings(tmp_path)
    async with open_harness(path, settings=settings) as made:
        enrolment, csr = made.identity.enrolment, request_for(DEVICE)
        secret, _ = await enrolment.make_token(EnrolmentTokenRequest(1, DAY, "operator:a", device_id=DEVICE))
        given = {(await enrolment.enrol(secret, DEVICE, csr, "192.0.2.1")).certificate.serial for _ in range(5)}
        assert len(given) == 1
        replacing, _ = await enrolment.make_token(
            EnrolmentTokenRequest(1, DAY, "operator:a", device_id=DEVICE, replaces=True)
        )
        later = request_for(DEVICE)
        for _ in range(5):
            made.clock.at += 1.0
            await enrolment.enrol(replacing, DEVICE, later, "192.0.2.1")
            await enrolment.enrol(secret, DEVICE, csr, "192.0.2.1")
        assert len(await made.store.audit(kind=AuditKind.ENROLMENT_COMPLETED)) == 2


async def test_an_enrolment_that_a_crash_interrupted_is_recorded_by_its_repetition(tmp_path: Path) -> None:
    path, settings = tmp_path / "c.db", authority_settings(tmp_path)
    async with open_harness(path, settings=settings) as made:
        enrolment, csr = made.identity.enrolment, request_for(DEVICE)
        secret, token = await enrolment.make_token(EnrolmentTokenRequest(1, DAY, "operator:a", device_id=DEVICE))
        signed = made.identity.certificates.sign_client(
            made.identity.certificates.authority.read(csr), (), f"token:{token.token_id}"
        )
        await made.identity.certificates.registry.admit(token.digest, signed, made.clock.at, is_known=False)
    async with open_harness(path, settings=settings) as made:
        got = await made.identity.enrolment.enrol(secret, DEVICE, csr, "192.0.2.1")
        assert got.certificate.serial == signed.serial
        assert devices_of(made.fleet)[DEVICE].enrolled_with == token.token_id
        assert len(await made.store.audit(kind=AuditKind.ENROLMENT_COMPLETED)) == 1
