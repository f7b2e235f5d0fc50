from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.adapters.sqlite.statements import work_of
from controller.domain.device import Device
from controller.ports.store import StoredReport, StoreWrites


def _report(device_id: str, body: bytes) -> StoredReport:
    return StoredReport(Device(device_id, 1.0, 1.0), body)


def test_how_much_it_is_grows_with_rows_and_bytes() -> None:
    book = DeadLetterIndex((), 1, most=1, most_per_device=1)
    small = work_of(StoreWrites(seen=(Device("a", 1.0, 1.0),)), book, 0)
    large = work_of(StoreWrites(reports=(_report("a", b"x" * 100_000), _report("b", b""))), book, 0)
    assert (small.rows, large.rows) == (1, 2)
    assert small.size < 200
    assert large.size > 100_000
