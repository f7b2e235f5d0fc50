"""The file of revocations beside the store stays small, and forgets nothing that it is there for."""

import threading
from pathlib import Path
from typing import Final

import pytest

from controller.adapters import revocation_marks
from controller.adapters.revocation_marks import KEEP, SLACK, RevocationMarkFile
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.ports.errors import StoreError

START: Final = 1_800_000_000.0
YEAR: Final = 365 * 86_400.0


def certificate(number: int, end: float = START + YEAR) -> Certificate:
    """A revoked one."""
    return Certificate(
        f"{number:x}", "b2", CertificateKind.CLIENT, f"d{number}", START - YEAR, end, START, "token:t1", f"k{number}",
        "pem", START, "unspecified",
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cordon.db.revocations"


def _fill(marks: RevocationMarkFile, first: int, count: int, end: float = START + YEAR) -> None:
    marks.add([certificate(n, end) for n in range(first, first + count)], {})


def test_numbers_that_rise_for_ever_leave_a_small_file(path: Path) -> None:
    """Finding: another line for each list that was published or read, until the next start, which then failed."""
    marks = RevocationMarkFile(path, START)
    for number in range(3000):
        marks.add([], {"seen http://ca.example/list.crl ab": number, "own": 2 * number})
    assert path.stat().st_size < 2 * SLACK
    assert dict(RevocationMarkFile(path, START).numbers) == {
        "seen http://ca.example/list.crl ab": 2999, "own": 5998,
    }  # fmt: skip


def test_no_number_is_lowered_and_nothing_revoked_is_lost_by_writing_anew(path: Path) -> None:
    marks = RevocationMarkFile(path, START)
    for number in range(300):
        _fill(marks, number, 1)
        marks.add([], {"own": 1000 + number})
        marks.add([], {"own": 500})
    for found in (marks, RevocationMarkFile(path, START)):
        assert set(found.revoked) == {f"{n:x}" for n in range(300)}
        assert found.numbers == {"own": 1299}


def test_what_ended_long_ago_goes_while_the_controller_runs(path: Path) -> None:
    now = [START]
    marks = RevocationMarkFile(path, START, lambda: now[0])
    _fill(marks, 0, 500, START + 1)
    now[0] += KEEP + 2
    marks.add([certificate(n, START + 1) for n in range(500, 1500)], {})
    _fill(marks, 2000, 2000, now[0] + YEAR)
    assert set(marks.revoked) == {f"{n:x}" for n in range(2000, 4000)}
    assert set(RevocationMarkFile(path, now[0]).revoked) == set(marks.revoked)


def test_where_room_is_needed_ended_certificates_go_and_valid_ones_never(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_marks, "MAX_FILE", 2 * SLACK)
    marks = RevocationMarkFile(path, START)
    _fill(marks, 0, 100)
    for n in range(50):
        _fill(marks, 1000 + 20 * n, 20, START - 1)
    _fill(marks, 100, 100)
    assert {f"{n:x}" for n in range(200)} <= set(marks.revoked)
    with pytest.raises(StoreError, match="revoked certificates that are valid"):
        _fill(marks, 5000, 5000)
    assert path.stat().st_size <= 2 * SLACK
    assert {f"{n:x}" for n in range(200)} <= set(RevocationMarkFile(path, START).revoked), "it can still be opened"


def test_a_failure_while_writing_anew_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = RevocationMarkFile(path, START)
    _fill(marks, 0, 100)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(revocation_marks, "write_file", full)
        with pytest.raises(StoreError, match="No space"):
            _fill(marks, 100, 2000)
    for found in (marks, RevocationMarkFile(path, START)):
        assert set(found.revoked) == {f"{n:x}" for n in range(100)}
    _fill(marks, 100, 2000)
    assert len(RevocationMarkFile(path, START).revoked) == 2100


def test_threads_that_mark_at_once_lose_nothing(path: Path) -> None:
    marks = RevocationMarkFile(path, START)

    def mark(first: int) -> None:
        for number in range(first, first + 100):
            _fill(marks, number, 1)

    threads = [threading.Thread(target=mark, args=(first,)) for first in range(0, 800, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(RevocationMarkFile(path, START).revoked) == {f"{n:x}" for n in range(800)}
