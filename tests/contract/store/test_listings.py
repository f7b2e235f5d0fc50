import pytest

from controller.adapters.sql.queries import MAX_ROWS
from controller.adapters.sql.store import SqlStore
from controller.domain.audit_id import AuditCursor, AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, CommandRecord
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import StoreError, UnknownRowError
from controller.ports.store import ApiToken, DeadLetter, StoredAuditEntry, StoredReport, StoreWrites, TokenChange
from tests.contract.store.conftest import StorePlace
from tests.support.fleet_devices import stored_devices
from tests.support.store import NOW, line

DAY = 86_400.0


def _entry(number: int) -> AuditEntry:
    odd = number % 2 == 1
    return AuditEntry(
        AuditKind.CONTAINMENT_DECIDED if odd else AuditKind.CONTAINMENT_RELEASE_DECIDED,
        f"device-{number % 3}",
        "cordon",
        f"case-{number % 4}" if odd else "",
        {"number": number, "steps": [{"what": "ban", "seconds": 0.25}], "until": None},
        alert=number == 5,
    )


def _seqs(found: object) -> list[int]:
    assert isinstance(found, list)
    return [one.id.seq for one in found]


async def test_the_record_is_listed_by_what_is_asked_for(store: SqlStore) -> None:
    await store.commit(StoreWrites(audit=tuple((float(number), _entry(number)) for number in range(1, 13))))
    newest = await store.audit(limit=3)
    writer = newest[0].id.writer
    assert _seqs(newest) == [12, 11, 10]
    assert _seqs(await store.audit(limit=3, after=newest[2].cursor)) == [9, 8, 7]
    assert _seqs(await store.audit(limit=3, after=AuditCursor(newest[2].id))) == [9, 8, 7]
    assert _seqs(await store.audit(limit=3, newest_first=False)) == [1, 2, 3]
    assert _seqs(await store.audit(limit=3, after=AuditCursor(AuditId(writer, 3)), newest_first=False)) == [4, 5, 6]
    assert _seqs(await store.audit(device_id="device-0")) == [12, 9, 6, 3]
    assert _seqs(await store.audit(case_id="case-1")) == [9, 5, 1]
    assert _seqs(await store.audit(case_id="case-1", device_id="device-0")) == [9]
    assert _seqs(await store.audit(kind=AuditKind.CONTAINMENT_DECIDED, after=AuditCursor(AuditId(writer, 6), 6.0))) == [
        5,
        3,
        1,
    ]
    assert await store.audit(alerts_only=True) == [StoredAuditEntry(AuditId(writer, 5), 5.0, _entry(5))]
    assert await store.audit(device_id="nobody") == []
    with pytest.raises(UnknownRowError):
        await store.audit(after=AuditCursor(AuditId(writer, 13)))


@pytest.mark.parametrize("limit", [0, -1, MAX_ROWS + 1])
async def test_a_listing_without_an_end_is_refused(store: SqlStore, limit: int) -> None:
    for listing in (store.audit, store.commands, store.dead_letters):
        with pytest.raises(StoreError, match="between 1 and"):
            await listing(limit=limit)


async def test_the_first_rules_kept_for_a_case_stay_until_they_are_forgotten(store: SqlStore) -> None:
    first = (AccessRule("a/#", "allow", "all"), AccessRule("b", "deny", "publish", (1,), "true"))
    assert await store.kept_rules("d", "c1") is None
    await store.keep_rules("d", "c1", first, 1.0)
    await store.keep_rules("d", "c1", (), 2.0)
    await store.keep_rules("d", "c2", (), 2.0)
    assert await store.kept_rules("d", "c1") == first
    assert await store.kept_rules("d", "c2") == ()
    await store.forget_rules("d", "c1")
    assert await store.kept_rules("d", "c1") is None
    assert await store.kept_rules("d", "c2") == ()


async def test_tokens_are_replaced_by_name_and_withdrawn(store: SqlStore) -> None:
    await store.put_token(ApiToken("ops", "a" * 64, 1.0))
    await store.put_token(ApiToken("ops", "b" * 64, 2.0))
    await store.put_token(ApiToken("api", "c" * 64, 3.0))
    assert await store.tokens() == [ApiToken("api", "c" * 64, 3.0), ApiToken("ops", "b" * 64, 2.0)]
    ops = ApiToken("ops", "b" * 64, 2.0)
    assert await store.revoke_token(ops, StoreWrites()) is TokenChange.DONE
    assert await store.revoke_token(ops, StoreWrites()) is TokenChange.UNKNOWN
    assert await store.tokens() == [ApiToken("api", "c" * 64, 3.0)]


def _command(command_id: str, state: str, updated_at: float) -> CommandRecord:
    return CommandRecord(
        command_id, "d", "rescan", (("deep", True),), state, "", (), "op", "", False, 1.0, 2.0, updated_at
    )


async def test_what_is_older_than_its_time_is_pruned_and_what_is_open_stays(store: SqlStore) -> None:
    old, new = NOW - 401 * DAY, NOW - 399 * DAY
    entry = AuditEntry(AuditKind.DEVICE_ONLINE, "d", "actor")
    commands = (
        _command("old-open", "executing", old),
        _command("old-ended", "failed", old),
        _command("new-ended", "succeeded", new),
    )
    await store.commit(StoreWrites(audit=((old, entry),) * 2500 + ((new, entry),) * 3, commands=commands))
    assert await store.prune() == 2501
    # Each round of taking away says so in a row of its own.
    assert _seqs(await store.audit()) == [2506, 2505, 2504, 2503, 2502, 2501]
    assert [one.entry.kind for one in await store.audit(limit=3)] == [AuditKind.AUDIT_PRUNED] * 3
    assert (await store.check_audit()).flaws == ()
    assert [one.command_id for one in await store.commands()] == ["new-ended", "old-open"]
    assert await store.command("old-open") == commands[0]
    assert await store.command("old-ended") is None
    assert await store.prune() == 0
    await store.commit(line("a"))
    assert _seqs(await store.audit(limit=1, newest_first=False)) == [2507]  # numbers are never given twice


async def test_counts_are_the_rows_of_each_table_and_the_bytes_on_disk(place: StorePlace) -> None:
    async with place.opened() as store:
        letter = DeadLetter(1.0, "", "t", "r", "", 1, b"x")
        await store.commit(StoreWrites(reports=(StoredReport(Device("a", 1.0, 1.0), b"{}"),), dead=(letter,)))
        await store.commit(line("a"))
        counts = await store.counts()
        size = counts.pop("bytes")
        if place.server is None:
            log = place.path.with_name("store.db-wal")
            assert size == place.path.stat().st_size + log.stat().st_size
    assert counts == {
        "devices": 1,
        "reports": 1,
        "audit": 1,
        "outbox": 1,
        "commands": 0,
        "dead_letters": 1,
        "kept_rules": 0,
        "kept_subscriptions": 0,
        "identity_cases": 0,
        "tokens": 0,
    }
    assert size > 8192


async def test_dead_letters_are_bounded_also_across_a_restart(place: StorePlace) -> None:
    letters = tuple(DeadLetter(float(number), "d", "t", "r", "", 5000, b"x" * 5000) for number in range(30))
    async with place.opened() as store:
        await store.commit(StoreWrites(dead=letters[:25]))
    async with place.opened() as store:
        await store.commit(StoreWrites(dead=letters[25:]))
        found = await store.dead_letters(device_id="d")
        assert [one.at for one in found] == [float(number) for number in range(29, 9, -1)]
        assert {len(one.payload) for one in found} == {2048}
        assert await store.dead_letters(device_id="other") == []


async def test_a_closed_store_says_so(place: StorePlace) -> None:
    async with place.opened() as store:
        await store.commit(line("a"))
    with pytest.raises(StoreError, match="closed"):
        await store.commit(line("b"))
    with pytest.raises(StoreError, match="closed"):
        await stored_devices(store)
    await store.close()  # a second time is nothing


async def test_an_audit_line_of_a_newer_version_is_read_with_its_stored_kind(place: StorePlace) -> None:
    async with place.opened() as store:
        await store.commit(StoreWrites(audit=((1.0, _entry(1)),)))
    place.change("UPDATE audit SET kind = 'device.teleported'")
    async with place.opened() as store:
        (line,) = await store.audit()
    assert line.entry.kind is AuditKind.AUDIT_UNKNOWN_KIND
    assert line.entry.detail == {**(_entry(1).detail or {}), "stored_kind": "device.teleported"}
