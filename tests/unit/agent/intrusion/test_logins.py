"""Failed logins as events: typing is none, guessing is, from whatever log there is; bounded and told once."""

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.host.login_records import RECORD, WIDE_MACHINES, WIDE_RECORD
from device_agent.host.system import System
from device_agent.intrusion.logins import MAX_SOURCES, BtmpReader, FailedLoginCounter, failed_in, logs
from device_agent.intrusion.watch import IntrusionWatch
from device_agent.settings import IntrusionSettings
from schemas.events import DeviceEvent
from schemas.topics import UpChannel
from tests.support.clocks import ManualAgentClock

FAILED = "2026-11-26T01:00:00.1+00:00 host sshd[7]: Failed password for invalid user a from {} port 4711 ssh2\n"
OPENED = "2026-11-26T01:00:00.1+00:00 host sshd[7]: Accepted publickey for root from 10.0.0.1 port 4711 ssh2\n"


def btmp_record(source: str) -> bytes:
    record = WIDE_RECORD if platform.machine() in WIDE_MACHINES else RECORD
    return record.pack(6, 1, b"ssh", b"", b"root", source.encode(), 0, 0, 0, 1, 2, b"")


class Device:
    """A prepared root whose logs a test writes."""

    def __init__(self, folder: Path, **chosen: Any) -> None:
        self.log, self.btmp = folder / "root/var/log/auth.log", folder / "root/var/log/btmp"
        self.log.parent.mkdir(parents=True)
        (folder / "state").mkdir()
        self.folder = folder
        self.settings = IntrusionSettings.model_validate(chosen)
        self.clock = ManualAgentClock(datetime(2026, 11, 26, 1, tzinfo=UTC).timestamp())
        self.sent: list[DeviceEvent] = []
        self.watch = self.started()

    def started(self) -> IntrusionWatch:
        return IntrusionWatch(self.settings, self.folder / "state", System(self.folder / "root"), "edge-1", self.clock)

    def guess(self, *sources: str) -> None:
        with self.log.open("a") as file:
            file.writelines(FAILED.format(source) for source in sources)

    def guess_in_btmp(self, *sources: str) -> None:
        with self.btmp.open("ab") as file:
            file.writelines(btmp_record(source) for source in sources)

    def step(self, *, later: float = 5.0) -> list[tuple[str, int, str]]:
        """Kind, count and source of each event that went out."""
        self.sent.clear()
        self.clock.at += later
        self.watch.step(self._publish, is_online=True)
        return [(one.kind, one.count, one.detail.get("source", "")) for one in self.sent]

    def _publish(self, channel: UpChannel, payload: bytes, confirmed: Any = None) -> bool:
        assert channel is UpChannel.EVENT
        self.sent.append(DeviceEvent.model_validate_json(payload))
        if confirmed is not None:
            confirmed(True)
        return True


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    made.log.write_text("")
    made.step()
    yield made
    made.watch.close()


def test_typing_is_no_event_and_guessing_is_one_with_its_count(device: Device) -> None:
    device.guess(*["192.0.2.7"] * 4, "198.51.100.1")
    assert device.step() == []
    device.guess("192.0.2.7")
    assert device.step() == [("login_failed", 5, "192.0.2.7")]
    assert (device.sent[0].severity, device.sent[0].detail["signature"]) == ("medium", "192.0.2.7")
    device.guess(*["192.0.2.7"] * 30)
    assert device.step() == []
    assert device.step(later=300) == [("login_failed", 30, "192.0.2.7")]


def test_failures_that_lie_far_apart_are_no_guessing(device: Device) -> None:
    for _ in range(12):
        device.guess("192.0.2.7")
        assert device.step(later=300) == []


def test_guesses_from_many_places_are_one_event_beside_the_single_ones(device: Device) -> None:
    device.guess(*(f"192.0.2.{number}" for number in range(20) for _ in range(5)))
    told = device.step()
    assert len(told) == device.settings.events_per_minute
    assert {kind for kind, _, _ in told} == {"login_failed"}
    assert (told[-1][1], told[-1][2]) == (75, "many")


def test_a_flood_of_alerts_does_not_hide_them(device: Device) -> None:
    eve = device.log.parent / "suricata/eve.json"
    eve.parent.mkdir()
    eve.write_text("")
    device.step(later=60)
    alert = '"alert":{{"gid":1,"signature_id":{},"signature":"x","severity":2}}'
    line = '{{"event_type":"alert","src_ip":"1.2.3.4",' + alert + "}}\n"
    eve.write_text("".join(line.format(number) for number in range(50)))
    device.guess(*(f"192.0.2.{number}" for number in range(20) for _ in range(5)))
    told = device.step()
    assert [count for kind, count, _ in told if kind == "intrusion.flood"] == [50]
    assert sum(count for kind, count, _ in told if kind == "login_failed") == 100


def test_without_a_log_btmp_tells(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.guess_in_btmp(*["203.0.113.5"] * 9)  # from before
    assert device.step() == []
    device.guess_in_btmp(*["192.0.2.7"] * 6)
    assert device.step() == [("login_failed", 6, "192.0.2.7")]
    # It goes on where it was, over a restart and over a rotation.
    device.watch.close()
    device.guess_in_btmp(*["192.0.2.8"] * 5)
    device.watch = device.started()
    assert device.step(later=600) == [("login_failed", 5, "192.0.2.8")]
    device.btmp.unlink()
    device.guess_in_btmp(*["192.0.2.9"] * 5)
    assert device.step(later=600) == [("login_failed", 5, "192.0.2.9")]
    device.btmp.write_bytes(b"half a record")
    assert device.step() == []
    device.btmp.unlink()
    assert device.step() == []
    device.watch.close()


def test_a_log_that_appears_later_is_followed_in_place_of_btmp(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.log.write_text("")
    device.step(later=60)
    device.guess(*["192.0.2.7"] * 5)
    device.guess_in_btmp(*["192.0.2.7"] * 5)
    assert device.step() == [("login_failed", 5, "192.0.2.7")]
    device.watch.close()


@pytest.mark.parametrize("chosen", [{"failed_logins": 0}, {"min_severity": "high"}])
def test_who_wants_none_gets_none(tmp_path: Path, chosen: dict[str, Any]) -> None:
    device = Device(tmp_path, **chosen)
    device.log.write_text("")
    device.step()
    device.guess(*["192.0.2.7"] * 50)
    assert device.step() == []
    device.watch.close()


def test_lines_of_sshd_and_dropbear() -> None:
    assert failed_in(FAILED.format("2001:db8::1").encode()) == "2001:db8::1"
    assert failed_in(b"dropbear[1]: Bad password attempt for 'root' from 192.0.2.9:4711") == "192.0.2.9"
    assert failed_in(OPENED.encode()) == ""


def test_which_log_is_followed(tmp_path: Path) -> None:
    assert logs(System(tmp_path)) == ()
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/messages").write_text("")
    (tmp_path / "var/log/secure").write_text("")
    assert [source.path for source in logs(System(tmp_path))] == ["/var/log/secure"]


def test_sources_are_bounded() -> None:
    guesses = FailedLoginCounter(2, 60.0)
    for number in range(MAX_SOURCES):
        assert guesses.failed(f"s{number}", 0.0)[1] == 0
    assert guesses.failed("one more", 1.0) == ("others", 0)
    assert guesses.failed("another", 1.0) == ("others", 2)
    # Those whose time is over make room again.
    assert guesses.failed("later", 100.0) == ("later", 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_no_bytes_break_it(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    failed_in(content)
    root = tmp_path_factory.mktemp("btmp", numbered=True)
    (root / "var/log").mkdir(parents=True)
    btmp = BtmpReader(System(root), None)
    btmp.read()
    (root / "var/log/btmp").write_bytes(content)
    assert all(len(source) <= 128 for source in btmp.read())
