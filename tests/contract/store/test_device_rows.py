"""What a controller that does not hold every device asks of the rows."""

from controller.adapters.sql.store import SqlStore
from controller.domain.device import Device
from controller.ports.device_rows import FleetSize
from controller.ports.store import StoredReport, StoreWrites


def _device(device_id: str, at: float = 1.0, *, stale: bool = False, accepted: int = 0) -> Device:
    return Device(device_id, first_seen=at, last_seen=at, stale=stale, accepted=accepted, reported_at=at)


async def test_devices_are_loaded_by_id_with_versions(store: SqlStore) -> None:
    one, other = _device("a"), _device("b")
    await store.commit(StoreWrites(devices=(one, other), versions={"a": (0, 7), "b": (0, 8)}))
    later = _device("a", 5.0, accepted=1)
    await store.commit(StoreWrites(reports=(StoredReport(later, b"{}"),), versions={"a": (7, 9)}))
    found = {device.device_id: (device, version) for device, version in await store.load(["a", "b", "nobody"])}
    assert {device_id: device.last_seen for device_id, (device, _) in found.items()} == {"a": 5.0, "b": 1.0}
    assert await store.versions(["b", "a", "nobody"]) == {
        device_id: version for device_id, (_, version) in found.items()
    }
    assert all(version > 0 for _, version in found.values())
    assert await store.load([]) == []


async def test_deadlines_are_found_in_their_order_until_they_change(store: SqlStore) -> None:
    everyone = tuple(_device(name) for name in "abcd")
    await store.commit(StoreWrites(devices=everyone, deadlines={"a": 30.0, "b": 10, "c": 20.0, "d": None}))
    assert await store.due(9.0, None, 10) == []
    assert await store.due(20.0, None, 10) == ["b", "c"]
    assert await store.due(99.0, None, 2) == ["b", "c"]
    # A contact or a report leaves the deadline; a decision without one ends it.
    await store.commit(StoreWrites(seen=(_device("b", 2.0),), reports=(StoredReport(_device("c", 2.0), b"{}"),)))
    assert await store.due(20.0, None, 10) == ["b", "c"]
    await store.commit(StoreWrites(devices=(_device("b", 3.0), _device("c", 3.0)), deadlines={"c": 40.0}))
    assert await store.due(99.0, None, 10) == ["a", "c"]


async def test_silence_is_found_from_the_last_contact_of_devices_that_are_not_stale(store: SqlStore) -> None:
    everyone = (
        _device("a", 1.0),
        _device("b", 2.0),
        _device("c", 0.5, stale=True),
        _device("d", 3.0),
        _device("e", 1.5),
    )
    await store.commit(StoreWrites(devices=everyone))
    await store.commit(
        StoreWrites(seen=(_device("b", 9.0),), reports=(StoredReport(_device("e", 9.0, accepted=1), b""),))
    )
    assert await store.silent(3.0, None, 10) == ["a"]
    assert await store.silent(3.5, None, 10) == ["a", "d"]
    assert await store.silent(3.5, None, 1) == ["a"]
    assert set(await store.silent(9.5, None, 10)) == set("abde")


async def test_the_size_of_the_fleet_is_known_without_its_devices(store: SqlStore) -> None:
    assert await store.fleet_size() == FleetSize(0, None)
    await store.commit(StoreWrites(devices=(_device("a", 5.0), _device("b", 3.0))))
    assert await store.fleet_size() == FleetSize(2, 3.0)


async def test_what_the_blast_radius_holds_back_is_counted_by_pool(store: SqlStore) -> None:
    await store.commit(StoreWrites(devices=tuple(map(_device, "abcd")), waits_in={"a": "", "b": "new", "c": "new"}))
    assert dict((await store.guard_books()).waiting) == {"": 1, "new": 2}
    await store.commit(StoreWrites(devices=(_device("b"),), seen=(_device("c", 2.0),)))
    assert dict((await store.guard_books()).waiting) == {"": 1, "new": 1}


async def test_devices_are_read_a_page_at_a_time(store: SqlStore) -> None:
    await store.commit(StoreWrites(devices=tuple(map(_device, "bdac"))))
    assert [device.device_id for device in await store.page("", 3)] == ["a", "b", "c"]
    assert [device.device_id for device in await store.page("c", 3)] == ["d"]
    assert await store.page("d", 3) == []


async def test_a_contact_that_lies_ahead_counts_as_silence_once_the_clock_was_set_back(store: SqlStore) -> None:
    await store.commit(StoreWrites(devices=(_device("a", 1.0), _device("b", 5.0), _device("c", 99.0))))
    assert await store.silent(2.0, None, 10, beyond=10.0) == ["a", "c"]
