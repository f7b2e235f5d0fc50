"""Reports at a broker that takes only small packets, and with a full state folder."""

import base64
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.domain.report import ReportSender
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from device_agent.errors import JournalError
from device_agent.host import files
from device_agent.reporting.report_store import ReportStore
from device_agent.reporting.reporter import Reporter
from device_agent.settings import ReportSettings
from schemas.events import ReceiptVerdict, ReportReceipt
from schemas.posture import REPORT, FullReport
from schemas.topics import UpChannel
from tests.support.clocks import ManualAgentClock


class Broker:
    """Takes payloads of at most `most` bytes."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.sent: list[tuple[UpChannel, bytes]] = []

    def publish(self, channel: UpChannel, payload: bytes, confirmed: Any = None) -> bool:
        assert not self.most or len(payload) <= self.most
        self.sent.append((channel, payload))
        return True

    def reports(self) -> list[bytes]:
        return [payload for channel, payload in self.sent if channel is UpChannel.POSTURE]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for channel, payload in self.sent if channel is UpChannel.EVENT]


class Signer:
    """Signs as large as the real one."""

    public_key_base64 = "k"

    def sign(self, report: bytes) -> bytes:
        return json.dumps({"payload": base64.b64encode(report).decode(), "sig": "s" * 200}).encode()


def reporter(folder: Path, broker: Broker, signer: Any = None) -> Reporter:
    store, clock = ReportStore(folder, first_seq=1), ManualAgentClock()
    made = Reporter(
        ReportSender("edge-1", "boot", "1.0"), ReportSettings(), store, broker.publish, clock, lambda: None, signer,
        lambda: broker.most,
    )  # fmt: skip
    made.on_connected()
    return made


def scan(count: int) -> Any:
    lines = [f"package-{number} 1.0-{number} source-of-package-{number}" for number in range(count)]
    section = {"state": "ok", "manager": "apt", "pending": count, "installed": lines}
    return truncate_to_size(normalise_findings({"updates": section}))


def parsed(payload: bytes) -> FullReport:
    found = REPORT.validate_json(payload)
    assert isinstance(found, FullReport)
    return found


@pytest.mark.parametrize("signer", [None, Signer()], ids=["plain", "signed"])
def test_a_report_is_shortened_to_what_the_broker_takes(tmp_path: Path, signer: Any) -> None:
    broker = Broker(6000)
    one = reporter(tmp_path, broker, signer)
    content = scan(150)
    one.on_scan(content, force=False)
    one.send_due()
    (payload,) = broker.reports()
    report = parsed(payload if signer is None else base64.b64decode(json.loads(payload)["payload"]))
    assert report.digest == content.digest
    section = json.loads(report.model_dump_json())["sections"]["updates"]
    assert 0 < len(section["installed"]) < 150
    assert section["truncated"] == 150 - len(section["installed"])


def test_a_report_that_was_enqueued_before_is_replaced_and_told(tmp_path: Path) -> None:
    broker = Broker()
    one = reporter(tmp_path, broker)
    one.on_disconnected()
    one.on_scan(scan(150), force=False)
    broker.most = 6000  # the broker after the reconnect takes less
    one.on_connected()
    for _ in range(5):
        one.send_due()
    assert len(broker.reports()) == 1
    (event,) = broker.events()
    assert event["kind"] == "report_too_large"
    assert "mqtt.max_packet_size" in event["summary"]
    last = parsed(broker.reports()[0])
    one.on_receipt(ReportReceipt(seq=last.seq, verdict=ReceiptVerdict.ACCEPTED, digest=last.digest).to_json())
    assert ReportStore(tmp_path, first_seq=1).outbox().reports == ()


def test_where_no_report_fits_the_rest_goes_on(tmp_path: Path) -> None:
    broker = Broker(900)
    one = reporter(tmp_path, broker)
    for count in (150, 151):
        one.on_scan(scan(count), force=False)
        assert one.send_due() > 0
    assert broker.reports() == []
    (event,) = broker.events()
    assert event["kind"] == "report_too_large"


def full_disk(number: int) -> Callable[..., None]:
    def refuse(path: Path, *_more: Any, **_options: Any) -> None:
        raise OSError(number, "No space left on device", str(path))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_reports_go_on_while_the_state_folder_is_full(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker()
    one = reporter(tmp_path, broker)
    with monkeypatch.context() as full:
        full.setattr(files, "write_whole", full_disk(number))
        for count in range(70):  # more numbers than one block
            one.on_scan(scan(count), force=False)
            one.send_due()
    sequence = [parsed(payload).seq for payload in broker.reports()]
    assert len(sequence) == 70
    assert sequence == sorted(set(sequence))
    assert caplog.text.count("would not survive a restart") == 1
    one.on_scan(scan(71), force=False)  # there is room again
    assert ReportStore(tmp_path, first_seq=1).outbox().reports[-1].digest == scan(71).digest


def test_another_fault_of_the_state_folder_ends_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = reporter(tmp_path, Broker())
    monkeypatch.setattr(files, "write_whole", full_disk(errno.EIO))
    with pytest.raises(JournalError):
        one.on_scan(scan(1), force=False)
