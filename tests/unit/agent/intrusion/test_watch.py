"""Intrusion monitors: recorded line formats, rotation, restarts, floods, and the report's section about them."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.collectors.tools.intrusion import IntrusionCollector
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import NotApplicableError
from device_agent.host.system import System
from device_agent.intrusion.alerts import SEVERITIES, IntrusionAlert, MalformedAlertError, NotAnAlertError, parse_line
from device_agent.intrusion.log_follower import MAX_LINE_BYTES
from device_agent.intrusion.watch import IntrusionWatch
from device_agent.settings import IntrusionSettings
from schemas.base import MAX_EVENT_BYTES
from schemas.events import DeviceEvent
from schemas.topics import UpChannel
from tests.support.clocks import ManualAgentClock
from tests.support.root_folder import put
from tests.support.unprivileged import unprivileged_folder

EVE: Final = (
    '{"timestamp":"2026-11-23T10:00:00.123456+0000","flow_id":1,"in_iface":"eth0","event_type":"alert",'
    '"src_ip":"192.0.2.7","src_port":4711,"dest_ip":"198.51.100.1","dest_port":23,"proto":"TCP","alert":{"action":'
    '"allowed","gid":1,"signature_id":2001219,"rev":20,"signature":"ET SCAN Potential SSH Scan","category":'
    '"Attempted Information Leak","severity":2}}'
)
EVE_FLOW: Final = (
    '{"timestamp":"2026-11-23T10:00:00.1+0000","event_type":"flow","src_ip":"192.0.2.7","flow":{"pkts":1}}'
)
FAST: Final = (
    "08/28-12:55:38.765402  [**] [1:1000001:1] ICMP test [**] [Classification: Misc activity] [Priority: 1] "
    "{TCP} 192.0.2.7:4711 -> 198.51.100.1:80"
)
FAST_PLAIN: Final = (
    "08/28-12:55:38.765402  [**] [1:1000001:1] ICMP test [**] [Priority: 0] {ICMP} 192.0.2.7 -> 198.51.100.1"
)
SNORT3: Final = (
    '{"timestamp":"08/28-12:55:38.765402","pkt_num":3,"proto":"TCP","dir":"C2S","src_ap":"192.0.2.7:4711",'
    '"dst_ap":"198.51.100.1:80","rule":"1:1000001:1","action":"allow","msg":"test rule","priority":2}'
)
WAZUH: Final = (
    '{"timestamp":"2026-11-23T10:00:00.000+0000","rule":{"level":10,"description":"sshd: brute force trying to get '
    'access to the system.","id":"5712","groups":["syslog","sshd"]},"agent":{"id":"000","name":"gate"},"full_log":'
    '"Failed password for root from 192.0.2.7 secret-looking-thing","data":{"srcip":"192.0.2.7"},"location":"auth"}'
)
OSSEC: Final = (
    '{"rule":{"level":12,"comment":"Multiple authentication failures.","sidid":40111,"group":"auth_failures"},'
    '"srcip":"192.0.2.7","full_log":"...","location":"gate->/var/log/auth.log","TimeStamp":1763892000000}'
)


@pytest.mark.parametrize(
    ("monitor", "line", "expected"),
    [
        ("suricata", EVE, ("1:2001219", "medium", "ET SCAN Potential SSH Scan", "192.0.2.7", "198.51.100.1:23")),
        ("suricata", FAST, ("1:1000001", "high", "ICMP test", "192.0.2.7", "198.51.100.1:80")),
        ("snort", FAST_PLAIN, ("1:1000001", "low", "ICMP test", "192.0.2.7", "198.51.100.1")),
        ("snort", SNORT3, ("1:1000001", "medium", "test rule", "192.0.2.7", "198.51.100.1:80")),
        (
            "wazuh",
            WAZUH,
            ("5712", "medium", "sshd: brute force trying to get access to the system.", "192.0.2.7", "gate"),
        ),
        ("ossec", OSSEC, ("40111", "high", "Multiple authentication failures.", "192.0.2.7", "")),
    ],
)
def test_alerts_of_every_monitor_are_parsed(monitor: str, line: str, expected: tuple[str, ...]) -> None:
    assert parse_line(monitor, line.encode()) == IntrusionAlert(monitor, *expected)


def test_other_lines_are_not_alerts_and_truncated_ones_are_malformed() -> None:
    for line in (EVE_FLOW, "", "   "):
        with pytest.raises(NotAnAlertError):
            parse_line("suricata", line.encode())
    for monitor, line in (("suricata", EVE[:90]), ("snort", "hello"), ("wazuh", '{"rule":7}'), ("ossec", "[" * 99999)):
        with pytest.raises(MalformedAlertError):
            parse_line(monitor, line.encode())
    with pytest.raises(MalformedAlertError):
        parse_line("wazuh", b'{"rule":' + b'{"a":' * 50_000)


@given(
    st.sampled_from(["wazuh", "ossec", "suricata", "snort"]),
    st.sampled_from([EVE, EVE_FLOW, FAST, FAST_PLAIN, SNORT3, WAZUH, OSSEC]),
    st.integers(0, 400),
    st.integers(0, 20),
    st.binary(max_size=20),
)
def test_any_line_is_an_alert_no_alert_or_malformed(monitor: str, line: str, at: int, gone: int, put: bytes) -> None:
    raw = line.encode()
    try:
        alert = parse_line(monitor, raw[:at] + put + raw[at + gone :])
    except (NotAnAlertError, MalformedAlertError):
        return
    assert alert.severity in SEVERITIES
    DeviceEvent(device_id="d", kind="k", summary=alert.summary, detail={"s": alert.source}, at=datetime.now(UTC))


def _append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


class _Device:
    """A prepared root with Suricata's log, a watch, and a broker that confirms as `confirms` says (None: not yet)."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.log = folder / "root/var/log/suricata/eve.json"
        self.log.parent.mkdir(parents=True)
        self.log.write_text("")
        (folder / "state").mkdir()
        self.clock = ManualAgentClock()
        self.settings = IntrusionSettings.model_validate(settings)
        self.confirms: bool | None = True
        self.sent: list[DeviceEvent] = []
        self.watch = self.new_watch()
        self.step()

    def new_watch(self) -> IntrusionWatch:
        return IntrusionWatch(self.settings, self.folder / "state", System(self.folder / "root"), "edge-1", self.clock)

    def publish(self, channel: UpChannel, payload: bytes, confirmed: Callable[[bool], None] | None = None) -> bool:
        assert channel is UpChannel.EVENT
        assert len(payload) <= MAX_EVENT_BYTES
        self.sent.append(DeviceEvent.model_validate_json(payload))
        if confirmed is not None and self.confirms is not None:
            confirmed(self.confirms)
        return True

    def step(self, *, later: float = 5.0, is_online: bool = True) -> list[DeviceEvent]:
        self.clock.at += later
        self.sent.clear()
        self.watch.step(self.publish, is_online=is_online)
        return list(self.sent)

    def alerts(self, count: int, signature: int = 2001219, severity: int = 2) -> None:
        line = EVE.replace("2001219", str(signature)).replace('"severity":2', f'"severity":{severity}')
        _append(self.log, *[line] * count)


MakeDevice = Callable[..., _Device]


@pytest.fixture
def make_device(tmp_path: Path) -> Iterator[MakeDevice]:
    devices: list[_Device] = []

    def make(**settings: Any) -> _Device:
        devices.append(_Device(tmp_path, **settings))
        return devices[-1]

    yield make
    for device in devices:
        device.watch.close()


def test_an_alert_is_sent_immediately_and_its_repeats_in_one_later_event(make_device: MakeDevice) -> None:
    device = make_device()
    device.alerts(1)
    (event,) = device.step()
    assert (event.kind, event.severity, event.count) == ("intrusion.suricata", "medium", 1)
    assert event.summary == "ET SCAN Potential SSH Scan"
    assert (event.detail["signature"], event.detail["source"]) == ("1:2001219", "192.0.2.7")
    for _ in range(3):
        device.alerts(4)
        assert device.step() == []
    (event,) = device.step(later=300.0)
    assert event.count == 12


def test_alerts_above_the_rate_limit_share_one_event_with_their_count(make_device: MakeDevice) -> None:
    device = make_device()
    for signature in range(600):
        device.alerts(2, signature=signature)
    device.alerts(1, signature=9999, severity=1)
    events = device.step()
    assert len(events) == device.settings.events_per_minute
    flood = events[-1]
    # Of 601 different alerts 256 are pending, the others are only counted.
    assert (flood.kind, flood.severity, flood.detail["signatures"]) == ("intrusion.flood", "medium", "251")
    assert sum(event.count for event in events) == 1201
    # The rate limit holds however long the flood lasts.
    total = 0
    for _ in range(24):
        device.alerts(50, signature=7)
        device.alerts(50, signature=8)
        total += len(device.step())
    assert total <= 2 * (device.settings.events_per_minute + 1)


def test_no_alert_is_lost_while_the_broker_is_unreachable_or_the_agent_restarts(make_device: MakeDevice) -> None:
    device = make_device()
    device.alerts(3)
    assert device.step(is_online=False) == []
    device.watch.close()
    device.alerts(2)
    device.watch = device.new_watch()
    (event,) = device.step()
    assert event.count == 5
    device.watch.close()
    device.watch = device.new_watch()
    assert device.step() == []


def test_an_unconfirmed_event_is_sent_again(make_device: MakeDevice, tmp_path: Path) -> None:
    device = make_device()
    device.confirms = None
    device.alerts(1)
    assert len(device.step()) == 1
    device.watch.save()
    saved = json.loads((tmp_path / "state/intrusion.json").read_text())
    assert [entry[0] for entry in saved["waiting"]] == [1]
    assert device.step() == []
    device.confirms = True
    (repeated,) = device.step(later=200.0)
    assert repeated.count == 1
    assert device.step(later=1000.0) == []


def test_alerts_below_the_configured_severity_are_not_sent(make_device: MakeDevice) -> None:
    device = make_device(min_severity="high")
    device.alerts(5)
    _append(device.log, EVE_FLOW)
    assert device.step() == []
    device.alerts(1, severity=1)
    assert [event.severity for event in device.step()] == ["high"]


def test_damaged_lines_are_counted_in_an_event_of_their_own(make_device: MakeDevice) -> None:
    device = make_device(min_severity="high")  # any of them may have been a high alert
    _append(device.log, EVE_FLOW, "garbage", EVE[:50], "x" * (MAX_LINE_BYTES + 1))
    (event,) = device.step()
    assert (event.kind, event.severity, event.detail["signature"], event.count) == (
        "intrusion.suricata", "low", "damaged", 3
    )  # fmt: skip


def test_a_damaged_state_is_dropped_and_alerts_are_read_from_now_on(make_device: MakeDevice, tmp_path: Path) -> None:
    device = make_device()
    device.watch.close()
    for text in ("{", "[]", '{"v":1,"places":{"a":[1e999,0]},"waiting":[],"beyond":0}', "[" * 100_000):
        (tmp_path / "state/intrusion.json").write_text(text)
        device.alerts(1)
        device.watch = device.new_watch()
        assert device.step() == []
        device.watch.close()


def _section(root: Path, **settings: Any) -> dict[str, Any]:
    collect = IntrusionCollector(IntrusionSettings.model_validate(settings))
    section: dict[str, Any] = normalise_findings({"intrusion": dict(collect(System(root)))}).sections["intrusion"]
    return section


def test_monitors_of_a_prepared_root_are_reported(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError):
        _section(tmp_path)
    path = put(tmp_path, "/var/log/suricata/eve.json")
    then = datetime.now(UTC).timestamp() - 3.5 * 86400
    os.utime(path, (then, then))
    put(tmp_path, "/var/log/suricata/fast.log")
    put(tmp_path, "/proc/12/comm", "Suricata-Main\n")
    put(tmp_path, "/var/ossec/bin/wazuh-control")
    monitors = _section(tmp_path)["monitors"]
    assert monitors == [
        {
            "monitor": "wazuh",
            "path": "/var/ossec/logs/alerts/alerts.json",
            "readable": False,
            "running": False,
            "age_days": None,
            "reason": "there is no such file",
        },
        {
            "monitor": "suricata",
            "path": "/var/log/suricata/eve.json",
            "readable": True,
            "running": True,
            "age_days": 3,
            "reason": "",
        },
    ]
    assert [monitor["path"] for monitor in _section(tmp_path, watch=["snort:/x"])["monitors"]] == ["/x"]


def test_a_file_that_only_root_may_read_needs_root() -> None:
    with unprivileged_folder() as folder:
        put(folder, "/var/log/suricata/eve.json").chmod(0)
        (folder / "proc").mkdir()
        (monitor,) = _section(folder)["monitors"]
    assert (monitor["readable"], monitor["reason"]) == (False, "needs root")
