"""Two processes write to one store: what was decided on something that is not stored any more is refused, alone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from controller.adapters.sql.store import SqlStore
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, EndIsolation
from controller.domain.guards.approvals import ApprovalKind, ApprovalRequest
from controller.domain.guards.waivers import Waiver
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.ports.errors import ConflictError, StoreError
from controller.ports.store import StoredReport, StoreWrites
from tests.contract.store.conftest import StorePlace
from tests.support.fleet_devices import stored_devices

pytestmark = pytest.mark.postgres
Pair = tuple[SqlStore, SqlStore]


@pytest.fixture
async def pair(shared_place: StorePlace) -> AsyncIterator[Pair]:
    async with shared_place.opened() as one, shared_place.opened_beside() as other:
        yield one, other


def _device(device_id: str, at: float = 1.0, accepted: int = 0, *, online: bool | None = None) -> Device:
    return Device(device_id, 1.0, at, accepted=accepted, online=online)


def _decided(device_id: str, before: int, after: int, at: float = 1.0) -> StoreWrites:
    """A decision with a line of the record and an effect, by which a test sees whether it is there."""
    return StoreWrites(
        devices=(_device(device_id, at),),
        audit=((float(after), AuditEntry(AuditKind.DEVICE_ONLINE, f"{device_id}-{after}", "t")),),
        effects=(EndIsolation(f"{device_id}-{after}", device_id, "c"),),
        versions={device_id: (before, after)},
    )


async def _outcomes(store: SqlStore, *writes: StoreWrites) -> list[str]:
    """Of commits that are queued at once: empty, or the devices that conflict."""
    found = await asyncio.gather(*(store.commit(one) for one in writes), return_exceptions=True)
    assert all(one is None or isinstance(one, ConflictError) for one in found), found
    return [",".join(sorted(one.devices)) if isinstance(one, ConflictError) else "" for one in found]


async def _written(store: SqlStore) -> list[str]:
    """What is in the record, in order, and has its effect; the record is intact."""
    names = [one.entry.device_id for one in await store.audit(newest_first=False)]
    assert [effect.effect_id for effect in await store.effects()] == names
    assert (await store.check_audit()).is_intact
    return names


async def test_a_decision_on_another_version_is_refused_and_changes_nothing(pair: Pair) -> None:
    one, other = pair
    assert await _outcomes(one, _decided("a", 0, 1)) == [""]
    assert await _outcomes(other, _decided("a", 1, 2, at=2.0)) == [""]
    assert await _outcomes(one, _decided("a", 1, 3, at=3.0)) == ["a"]
    assert await one.load(["a"]) == [(_device("a", 2.0), 2)]
    assert await _outcomes(one, _decided("a", 2, 4, at=4.0)) == [""]
    assert await _written(one) == ["a-1", "a-2", "a-4"]


async def test_a_device_is_new_to_one_of_two_only(pair: Pair) -> None:
    one, other = pair
    found = await asyncio.gather(_outcomes(one, _decided("a", 0, 1)), _outcomes(other, _decided("a", 0, 2)))
    assert sorted(found) == [[""], ["a"]]
    assert await _outcomes(one, _decided("a", 0, 3)) == ["a"]
    assert await _outcomes(one, _decided("b", 9, 10)) == ["b"]  # there is none
    assert len(await _written(one)) == 1


async def test_a_contact_leaves_the_version_and_is_refused_once_another_decided(pair: Pair) -> None:
    one, other = pair
    await one.commit(_decided("a", 0, 1))
    seen = StoreWrites(seen=(_device("a", 5.0),), versions={"a": (1, 1)})
    assert await _outcomes(one, seen, seen) == ["", ""]
    assert await _outcomes(other, seen) == [""]
    assert await one.versions(["a"]) == {"a": 1}
    await other.commit(_decided("a", 1, 2, at=6.0))
    assert await _outcomes(one, seen) == ["a"]
    report = StoredReport(_device("a", 7.0, accepted=1), b"{}")
    assert await _outcomes(one, StoreWrites(reports=(report,), versions={"a": (1, 3)})) == ["a"]
    assert await one.report("a") is None
    assert await one.load(["a"]) == [(_device("a", 6.0), 2)]


async def test_who_has_not_seen_the_last_report_is_refused(pair: Pair) -> None:
    """Also where the other counted an unchanged report, which leaves the version."""
    one, other = pair
    await one.commit(_decided("a", 0, 1))
    await other.commit(StoreWrites(seen=(_device("a", 5.0, accepted=1),), versions={"a": (1, 1)}))
    assert await _outcomes(one, StoreWrites(seen=(_device("a", 6.0),), versions={"a": (1, 1)})) == ["a"]
    assert await one.load(["a"]) == [(_device("a", 5.0, accepted=1), 1)]


async def test_of_commits_that_are_written_together_only_those_concerned_are_refused(pair: Pair) -> None:
    one, other = pair
    await one.commit(StoreWrites(devices=tuple(map(_device, "abc")), versions=dict.fromkeys("abc", (0, 1))))
    await other.commit(_decided("a", 1, 2))
    both = StoreWrites(devices=(_device("a"), _device("b")), versions={"a": (1, 10), "b": (1, 11)})
    found = await _outcomes(
        one,
        both,
        _decided("b", 11, 12),  # rests on what was refused
        _decided("c", 1, 13),
        _decided("c", 13, 14),  # rests on what was written
        _decided("c", 1, 15),
        StoreWrites(seen=(_device("b", 8.0),), versions={"b": (1, 1)}),
    )
    assert found == ["a", "b", "", "", "c", ""]
    assert await one.versions("abc") == {"a": 2, "b": 1, "c": 14}
    assert await _written(one) == ["a-2", "c-13", "c-14"]


async def test_a_small_change_is_not_made_with_writes_that_are_refused(pair: Pair) -> None:
    one, other = pair
    await one.commit(_decided("a", 0, 1))
    await other.commit(_decided("a", 1, 2))
    put = "INSERT INTO meta (key, value) VALUES ('k', 'v')"
    with pytest.raises(ConflictError):
        await one.commit_with(_decided("a", 1, 3), lambda connection: connection.execute(put), 1)
    await one.commit_with(_decided("a", 2, 4), lambda connection: connection.execute(put), 1)
    assert await _written(one) == ["a-1", "a-2", "a-4"]


async def test_the_limits_of_the_fleet_are_charged_on_what_is_stored(pair: Pair) -> None:
    one, other = pair

    def charge(device_id: str, before: int, after: int) -> StoreWrites:
        return StoreWrites(charges=(("", device_id, 1.0),), guards_version=(before, after))

    assert await _outcomes(one, charge("a", 0, 1), charge("b", 1, 2), StoreWrites()) == ["", "", ""]
    await other.commit(charge("c", 2, 3))
    found = await asyncio.gather(one.commit(charge("d", 2, 4)), one.commit(charge("e", 4, 5)), return_exceptions=True)
    assert [isinstance(error, ConflictError) and error.guards for error in found] == [True, True]
    books = await one.guard_books()
    assert ([device for _, device, _ in books.charges], books.version) == (["a", "b", "c"], 3)
    assert (await other.fleet_versions()).guards == 3


async def test_policies_of_an_earlier_epoch_decide_nothing_more(shared_place: StorePlace, pair: Pair) -> None:
    one, _ = pair
    await one.commit(StoreWrites(policy_epoch=0))
    shared_place.change("UPDATE fleet SET policy_epoch = 2")
    devices = [
        StoreWrites(devices=(_device(name),), policy_epoch=epoch) for name, epoch in zip("abc", (1, 2, 3), strict=True)
    ]
    found = await asyncio.gather(*map(one.commit, devices), return_exceptions=True)
    assert [isinstance(error, ConflictError) and error.policies for error in found] == [True, False, False]
    assert {device.device_id for device in await stored_devices(one)} == {"b", "c"}
    assert (await one.fleet_versions()).policy_epoch == 2


async def test_a_conflict_says_what_is_another(pair: Pair) -> None:
    one, other = pair
    await other.commit(_decided("a", 0, 1))
    await other.commit(StoreWrites(guards_version=(0, 5)))
    both = StoreWrites(devices=(_device("a"),), versions={"a": (0, 2)}, guards_version=(0, 6))
    with pytest.raises(StoreError, match=r"devices \(1\), guards") as caught:
        await one.commit(both)
    assert isinstance(caught.value, ConflictError)
    assert (caught.value.devices, caught.value.guards, caught.value.policies) == (frozenset("a"), True, False)


async def test_others_see_that_waivers_changed(pair: Pair) -> None:
    one, other = pair
    before = (await other.fleet_versions()).books
    await one.commit(_decided("a", 0, 1))
    assert (await other.fleet_versions()).books == before
    waiver = Waiver("w", "p/r", "op", "why", "op", 1.0, 2.0, device="d")
    await one.commit(StoreWrites(waivers=(("w", waiver),)))
    assert (await other.fleet_versions()).books == before + 1


async def test_others_see_that_a_request_and_thus_perhaps_a_grant_changed(pair: Pair) -> None:
    one, other = pair
    before = (await other.fleet_versions()).books
    request = ApprovalRequest(
        "1", ApprovalKind.SCOPES, Principal("account:x", "ada"), "r", ContainmentLevel.NONE, 9.0, (), 1.0, 2.0
    )
    await one.commit(StoreWrites(requests=(request,)))
    await one.commit(StoreWrites(requests=(replace(request, ended_at=2.0),)))
    assert (await other.fleet_versions()).books == before + 2
