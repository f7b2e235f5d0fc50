"""Alerts with several lines, in CSV, with IPv6 addresses; monitors whose alerts are elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from device_agent.collectors.tools.intrusion import IntrusionCollector
from device_agent.errors import NotApplicableError
from device_agent.host.system import System
from device_agent.intrusion.alert_records import AlertParser
from device_agent.intrusion.alerts import IntrusionAlert
from device_agent.intrusion.watch import IntrusionWatch
from device_agent.settings import IntrusionSettings
from schemas.events import DeviceEvent
from schemas.topics import UpChannel
from tests.support.clocks import ManualAgentClock
from tests.support.root_folder import put

SNORT_FULL: Final = """[**] [1:1000201:2] EXPLOIT remote command execution attempt [**]
[Classification: Attempted Administrator Privilege Gain] [Priority: 1]
11/29-23:14:07.442911 192.0.2.44:51122 -> 198.51.100.7:80
TCP TTL:61 TOS:0x0 ID:4711 IpLen:20 DgmLen:512 DF
***AP*** Seq: 0x1A2B3C4D  Ack: 0x5E6F7081  Win: 0x1F6  TcpLen: 20
[Xref => http://www.example.org/ref/1]

"""
EXPLOIT: Final = IntrusionAlert(
    "snort", "1:1000201", "high", "EXPLOIT remote command execution attempt", "192.0.2.44", "198.51.100.7:80"
)
OSSEC_LOG: Final = """** Alert 1510376401.7788: mail  - syslog,sshd,authentication_failures,
2017 Nov 11 00:00:01 (gate) 192.0.2.9->/var/log/auth.log
Rule: 5712 (level 10) -> 'SSHD brute force trying to get access to the system.'
Src IP: 2001:db8::7
Src Port: 4711
User: root
Nov 11 00:00:01 gate sshd[1]: Failed password
Src IP: 192.0.2.66

"""
BRUTE: Final = ("5712", "medium", "SSHD brute force trying to get access to the system.", "2001:db8::7", "")
FAST: Final = (
    "08/28-12:55:38.765402 [**] [1:7:1] {text} [**] [Priority: {priority}] {{{proto}}} {src} -> 192.0.2.1:80\n"
)


def parse(monitor: str, text: str) -> tuple[list[IntrusionAlert], int]:
    """Returns the alerts and the count of what was not understood."""
    parser = AlertParser(monitor)
    alerts = [alert for line in text.encode().split(b"\n")[:-1] for alert in parser.feed(line)]
    return alerts + parser.flush(), parser.malformed


def test_the_full_format_of_snort_is_one_alert_each() -> None:
    assert parse("snort", SNORT_FULL * 2) == ([EXPLOIT, EXPLOIT], 0)
    assert parse("snort", SNORT_FULL.replace("\n\n", "\n") * 2) == ([EXPLOIT, EXPLOIT], 0)
    cut = SNORT_FULL.replace("[Priority: 1]", "[Prio")
    assert parse("snort", cut)[1] == 1
    ping = SNORT_FULL.replace("44:51122", "44").replace("7:80", "7").replace("TCP TTL", "ICMP TTL")
    assert [(one.source, one.target) for one in parse("snort", ping)[0]] == [("192.0.2.44", "198.51.100.7")]


@pytest.mark.parametrize("monitor", ["ossec", "wazuh"])
def test_the_text_log_of_ossec_is_one_alert_each(monitor: str) -> None:
    alert = IntrusionAlert(monitor, *BRUTE)
    assert parse(monitor, OSSEC_LOG * 2) == ([alert, alert], 0)
    assert parse(monitor, OSSEC_LOG.replace("Rule: ", "Rul")) == ([], 1)
    assert parse(monitor, "** Alert\n") == ([], 1)
    high = OSSEC_LOG.replace("level 10", "level 13").replace("2001:db8::7", "(none)")
    assert [(one.severity, one.source) for one in parse(monitor, high)[0]] == [("high", "")]


@pytest.mark.parametrize(
    ("monitor", "proto", "src", "source"),
    [
        ("snort", "TCP", "2001:db8::1:51122", "2001:db8::1"),
        ("snort", "UDP", "2001:db8:0:0:0:0:0:1:53", "2001:db8:0:0:0:0:0:1"),
        ("snort", "IPV6-ICMP", "2001:db8::1:51", "2001:db8::1:51"),
        ("snort", "TCP", "[2001:db8::1]:51122", "2001:db8::1"),
        ("suricata", "IPv6-ICMP", "2001:0db8:0:0:0:0:0000:0001:128", "2001:0db8:0:0:0:0:0000:0001"),
        ("suricata", "TCP", "fe80::1:2", "fe80::1"),
        ("snort", "ICMP", "192.0.2.7", "192.0.2.7"),
        ("snort", "ICMP", "fe80::1", "fe80::1"),
    ],
)  # fmt: skip
def test_the_source_is_the_address_without_its_port(monitor: str, proto: str, src: str, source: str) -> None:
    ((alert,), _) = parse(monitor, FAST.format(text="x", priority=1, proto=proto, src=src))
    assert alert.source == source


@pytest.mark.parametrize(
    ("priority", "severity"), [(0, "low"), (1, "high"), (2, "medium"), (3, "low"), (4, "info"), (4_000_000_000, "info")]
)
def test_priority_0_means_that_the_rule_has_none(priority: int, severity: str) -> None:
    ((alert,), _) = parse("snort", FAST.format(text="x", priority=priority, proto="TCP", src="192.0.2.7:1"))
    assert alert.severity == severity


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            "08/28-12:55:38.765402, 3, TCP, raw, 60, C2S, 192.0.2.7:4711, 198.51.100.1:80, 1:1000001:1, allow",
            ("1:1000001", "low", "", "192.0.2.7", "198.51.100.1:80"), id="CSV of Snort 3",
        ),
        pytest.param(
            '08/28-12:55:38.765402 ,1,1000001,1,"a, b",TCP,192.0.2.7,4711,198.51.100.1,80,00:11,00:22',
            ("1:1000001", "low", "a, b", "192.0.2.7", "198.51.100.1:80"), id="CSV of Snort 2",
        ),
        pytest.param(
            '{"timestamp": "x", "proto": "TCP", "src_ap": "192.0.2.7:1", "dst_ap": "192.0.2.1:80", "rule": "1:9:1"}',
            ("1:9", "low", "", "192.0.2.7", "192.0.2.1:80"), id="JSON of Snort 3 without a message",
        ),
        pytest.param(
            '08/28-12:55:38.765402 [**] [1:9:1] "a b" [**] [Classification: x] [Priority: 1] [AppID: HTTP] {TCP} '
            "192.0.2.7:1 -> 192.0.2.1:80",
            ("1:9", "high", "a b", "192.0.2.7", "192.0.2.1:80"), id="alert_fast of Snort 3",
        ),
    ],
)  # fmt: skip
def test_the_other_formats_of_snort(line: str, expected: tuple[str, ...]) -> None:
    assert parse("snort", line + "\n") == ([IntrusionAlert("snort", *expected)], 0)


@pytest.mark.parametrize("line", ["a,b,c", '"', "{}", "[**] [1:2] x", ",".join("1" * 9), "08/28 ,1,x,1,m,TCP,a,1,b,2"])
def test_other_lines_are_counted(line: str) -> None:
    assert parse("snort", line + "\n") == ([], 1)


def test_the_last_alert_is_sent_when_nothing_follows_it(tmp_path: Path) -> None:
    log = put(tmp_path, "root/var/log/snort/alert", "")
    (tmp_path / "state").mkdir()
    clock = ManualAgentClock()
    watch = IntrusionWatch(IntrusionSettings(), tmp_path / "state", System(tmp_path / "root"), "edge-1", clock)
    sent: list[DeviceEvent] = []

    def publish(_: UpChannel, payload: bytes, __: Callable[[bool], None] | None = None) -> bool:
        sent.append(DeviceEvent.model_validate_json(payload))
        return True

    def step() -> list[str]:
        clock.at += 5.0
        sent.clear()
        watch.step(publish, is_online=True)
        return [f"{event.severity} {event.detail['source']}" for event in sent]

    assert step() == []
    with log.open("a") as file:
        file.write(SNORT_FULL[:150])
        file.flush()
        assert step() == []
        file.write(SNORT_FULL[150:].rstrip("\n") + "\n")
        file.flush()
        assert step() == []
    assert step() == ["high 192.0.2.44"]
    watch.close()


def test_an_agent_whose_manager_has_the_alerts_is_not_applicable(tmp_path: Path) -> None:
    collect = IntrusionCollector(IntrusionSettings())
    put(tmp_path, "/proc/77/comm", "wazuh-agentd\n")
    for name in ("wazuh-control", "wazuh-agentd"):
        put(tmp_path, f"/var/ossec/bin/{name}")
    with pytest.raises(NotApplicableError, match="manager"):
        collect(System(tmp_path))
    put(tmp_path, "/var/ossec/bin/wazuh-analysisd")
    (monitor,) = collect(System(tmp_path))["monitors"]
    assert (monitor["monitor"], monitor["readable"]) == ("wazuh", False)


def test_the_text_log_of_ossec_is_followed_where_there_is_no_json(tmp_path: Path) -> None:
    put(tmp_path, "/proc/5/comm", "ossec-analysisd\n")
    put(tmp_path, "/var/ossec/bin/ossec-control")
    put(tmp_path, "/var/ossec/logs/alerts/alerts.log", OSSEC_LOG)
    (monitor,) = IntrusionCollector(IntrusionSettings())(System(tmp_path))["monitors"]
    assert (monitor["path"], monitor["readable"]) == ("/var/ossec/logs/alerts/alerts.log", True)
