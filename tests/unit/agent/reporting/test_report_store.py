"""What reporting keeps across restarts."""

from pathlib import Path

import pytest

from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from device_agent.errors import JournalError
from device_agent.reporting.report_store import ReportStore

FIRST_SEQ = 100


def test_sequence_numbers_are_never_given_twice(tmp_path: Path) -> None:
    taken = []
    for _ in range(4):
        store = ReportStore(tmp_path, first_seq=FIRST_SEQ)
        taken += [store.next_seq() for _ in range(70)]
    assert taken[0] == FIRST_SEQ
    assert taken == sorted(set(taken))


def test_skipping_sequence_numbers_ahead_survives_a_restart(tmp_path: Path) -> None:
    store = ReportStore(tmp_path, first_seq=FIRST_SEQ)
    before = store.next_seq()
    store.skip_seq_ahead()
    after = store.next_seq()
    assert before + 1000 < after < ReportStore(tmp_path, first_seq=FIRST_SEQ).next_seq()


def test_pending_reports_survive_without_their_times(tmp_path: Path) -> None:
    outbox = ReportOutbox(reports=(PendingReport(7, "d", "{}", attempts=2, sent_at=12.5),), dropped=3)
    ReportStore(tmp_path, first_seq=FIRST_SEQ).save_outbox(outbox)
    saved = ReportStore(tmp_path, first_seq=FIRST_SEQ).outbox()
    assert saved == ReportOutbox(reports=(PendingReport(7, "d", "{}", attempts=2, sent_at=None),), dropped=3)


def test_the_file_keeps_its_format(tmp_path: Path) -> None:
    owed = '[{"seq":7,"digest":"d","payload":"{}","attempts":2,"sent_at":null}]'
    text = f'{{"v":1,"seq_ceiling":64,"owed":{owed},"dropped":3}}'
    (tmp_path / "reports.json").write_text(text)
    store = ReportStore(tmp_path, first_seq=FIRST_SEQ)
    store.save_outbox(store.outbox())
    assert (tmp_path / "reports.json").read_text() == text


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "reports.json").write_text("{")
    with pytest.raises(JournalError, match=r"reports\.json is damaged"):
        ReportStore(tmp_path, first_seq=FIRST_SEQ)


def test_the_file_is_private(tmp_path: Path) -> None:
    ReportStore(tmp_path, first_seq=FIRST_SEQ).next_seq()
    assert (tmp_path / "reports.json").stat().st_mode & 0o077 == 0
