"""Failed logins as events: password guessing is reported once, typing errors are not; from the log or from btmp."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.host.login_records import RECORD, WIDE_MACHINES, WIDE_RECORD
from device_agent.host.system import System
from device_agent.intrusion.failed_logins import (
    MAX_SOURCES,
    BtmpReader,
    FailedLoginCounter,
    auth_log_source,
    parse_failed_logins,
)
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
    """A prepared root whose logs the test writes, and a watch that follows them."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.log, self.btmp = folder / "root/var/log/auth.log", folder / "root/var/log/btmp"
        self.log.parent.mkdir(parents=True)
        (folder / "state").mkdir()
        self.folder = folder
        self.settings = IntrusionSettings.model_validate(options)
        self.clock = ManualAgentClock()
        self.sent: list[DeviceEvent] = []
        self.watch = self.new_watch()

    def new_watch(self) -> IntrusionWatch:
        return IntrusionWatch(self.settings, self.folder / "state", System(self.folder / "root"), "edge-1", self.clock)

    def fail_logins(self, *sources: str) -> None:
        with self.log.open("a") as file:
            file.writelines(FAILED.format(source) for source in sources)

    def fail_logins_in_btmp(self, *sources: str) -> None:
        with self.btmp.open("ab") as file:
            file.writelines(btmp_record(source) for source in sources)

    def step(self, *, later: float = 5.0) -> list[tuple[str, int, str]]:
        """Returns kind, count and source of each published event."""
        self.sent.clear()
        self.clock.at += later
        self.watch.step(self._publish, is_online=True)
        return [(event.kind, event.count, event.detail.get("source", "")) for event in self.sent]

    def _publish(self, channel: UpChannel, payload: bytes, confirmed: Any = None) -> bool:
        assert channel is UpChannel.EVENT
        self.sent.append(DeviceEvent.model_validate_json(payload))
        if confirmed is not None:
            confirmed(True)
        return True


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    device.log.write_text("")
    device.step()
    yield device
    device.watch.close()


def test_failures_are_reported_with_their_count_once_they_reach_the_limit(device: Device) -> None:
    device.fail_logins(*["192.0.2.7"] * 4, "198.51.100.1")
    assert device.step() == []
    device.fail_logins("192.0.2.7")
    assert device.step() == [("login_failed", 5, "192.0.2.7")]
    assert (device.sent[0].severity, device.sent[0].detail["signature"]) == ("medium", "192.0.2.7")
    device.fail_logins(*["192.0.2.7"] * 30)
    assert device.step() == []
    assert device.step(later=300) == [("login_failed", 30, "192.0.2.7")]


def test_failures_far_apart_are_not_reported(device: Device) -> None:
    for _ in range(12):
        device.fail_logins("192.0.2.7")
        assert device.step(later=300) == []


def test_failures_from_many_sources_share_one_event_above_the_rate_limit(device: Device) -> None:
    device.fail_logins(*(f"192.0.2.{number}" for number in range(20) for _ in range(5)))
    events = device.step()
    assert len(events) == device.settings.events_per_minute
    assert {kind for kind, _, _ in events} == {"login_failed"}
    assert (events[-1][1], events[-1][2]) == (75, "many")


def test_many_alerts_do_not_hide_failed_logins(device: Device) -> None:
    eve = device.log.parent / "suricata/eve.json"
    eve.parent.mkdir()
    eve.write_text("")
    device.step(later=60)
    alert = '"alert":{{"gid":1,"signature_id":{},"signature":"x","severity":2}}'
    line = '{{"event_type":"alert","src_ip":"1.2.3.4",' + alert + "}}\n"
    eve.write_text("".join(line.format(number) for number in range(50)))
    device.fail_logins(*(f"192.0.2.{number}" for number in range(20) for _ in range(5)))
    events = device.step()
    assert [count for kind, count, _ in events if kind == "intrusion.flood"] == [50]
    assert sum(count for kind, count, _ in events if kind == "login_failed") == 100


def test_btmp_is_read_where_there_is_no_log(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.fail_logins_in_btmp(*["203.0.113.5"] * 9)  # from before
    assert device.step() == []
    device.fail_logins_in_btmp(*["192.0.2.7"] * 6)
    assert device.step() == [("login_failed", 6, "192.0.2.7")]
    # Reading continues at its position after a restart and after a rotation.
    device.watch.close()
    device.fail_logins_in_btmp(*["192.0.2.8"] * 5)
    device.watch = device.new_watch()
    assert device.step(later=600) == [("login_failed", 5, "192.0.2.8")]
    device.btmp.unlink()
    device.fail_logins_in_btmp(*["192.0.2.9"] * 5)
    assert device.step(later=600) == [("login_failed", 5, "192.0.2.9")]
    device.btmp.write_bytes(b"half a record")
    assert device.step() == []
    device.btmp.unlink()
    assert device.step() == []
    device.watch.close()


def test_a_log_created_later_replaces_btmp(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.log.write_text("")
    device.step(later=60)
    device.fail_logins(*["192.0.2.7"] * 5)
    device.fail_logins_in_btmp(*["192.0.2.7"] * 5)
    assert device.step() == [("login_failed", 5, "192.0.2.7")]
    device.watch.close()


@pytest.mark.parametrize("options", [{"failed_logins": 0}, {"min_severity": "high"}])
def test_settings_turn_events_about_failed_logins_off(tmp_path: Path, options: dict[str, Any]) -> None:
    device = Device(tmp_path, **options)
    device.log.write_text("")
    device.step()
    device.fail_logins(*["192.0.2.7"] * 50)
    assert device.step() == []
    device.watch.close()


def test_sources_are_parsed_from_lines_of_sshd_and_dropbear() -> None:
    assert parse_failed_logins(FAILED.format("2001:db8::1").encode()) == ["2001:db8::1"]
    assert parse_failed_logins(b"dropbear[1]: Bad password attempt for 'root' from 192.0.2.9:4711") == ["192.0.2.9"]
    assert parse_failed_logins(OPENED.encode()) == []
    folded = b"Nov 30 02:08:52 h sshd[1]: message repeated 3 times: [ Failed password for a from ::1 port 4 ssh2]"
    assert parse_failed_logins(folded) == ["::1"] * 3


def test_the_first_existing_log_is_followed(tmp_path: Path) -> None:
    assert auth_log_source(System(tmp_path)) is None
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/messages").write_text("")
    (tmp_path / "var/log/secure").write_text("")
    source = auth_log_source(System(tmp_path))
    assert source is not None
    assert source.path == "/var/log/secure"


def test_the_number_of_counted_sources_is_bounded() -> None:
    counter = FailedLoginCounter(2, 60.0)
    for number in range(MAX_SOURCES):
        assert counter.add_failure(f"s{number}", 0.0)[1] == 0
    assert counter.add_failure("one more", 1.0) == ("others", 0)
    assert counter.add_failure("another", 1.0) == ("others", 2)
    # Expired counts make room.
    assert counter.add_failure("later", 100.0) == ("later", 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_read_without_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    parse_failed_logins(content)
    root = tmp_path_factory.mktemp("btmp", numbered=True)
    (root / "var/log").mkdir(parents=True)
    btmp = BtmpReader(System(root), None)
    btmp.read()
    (root / "var/log/btmp").write_bytes(content)
    assert all(len(source) <= 128 for source in btmp.read())
