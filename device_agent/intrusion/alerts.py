"""Parses the alerts of intrusion monitors: Wazuh, OSSEC, Suricata and Snort. Pure."""

import csv
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.base import clean_text

SEVERITIES: Final = ("info", "low", "medium", "high", "critical")
MAX_SUMMARY: Final = 240  # characters
_MAX_FIELD: Final = 96
# 10/05/10-10:08:59.66  [**] [1:2009187:4] text [**] [Classification: x] [Priority: 3] {TCP} 10.0.0.1:8 -> 10.0.0.2:9
_FAST: Final = re.compile(
    r"\[\*\*\] \[(?P<gid>\d{1,10}):(?P<sid>\d{1,10}):\d{1,10}\] (?P<text>.{0,1000}?) \[\*\*\]"
    r"(?: \[Classification: (?P<class>[^]]{0,200})\])?(?: \[Priority: (?P<priority>\d{1,10})\])?"
    r"(?: \[AppID: [^]]{0,200}\])?"
    r"(?: \{(?P<proto>[A-Za-z0-9:_-]{1,32})\}(?: (?P<src>\S{1,80}) -> (?P<dst>\S{1,80}))?)?"
)
_SNORT_CSV_RULE: Final = re.compile(r"(\d{1,10}:\d{1,10}):\d{1,10}")
_PORT_PROTOCOLS: Final = frozenset({"TCP", "UDP"})  # in whose lines Snort writes ports; Suricata writes them in all


class NotAnAlertError(Exception):
    """The line is well-formed but no alert, such as flows or statistics."""


class MalformedAlertError(Exception):
    """The line cannot be parsed."""


@dataclass(frozen=True, slots=True)
class IntrusionAlert:
    """An alert of a monitor; `signature` is the monitor's id of the rule."""

    monitor: str
    signature: str
    severity: str
    summary: str
    source: str = ""
    target: str = ""


def parse_line(monitor: str, raw: bytes) -> IntrusionAlert:
    """Parses a line of a monitor.

    Raises:
        NotAnAlertError: the line is well-formed and no alert.
        MalformedAlertError: the line is neither JSON of that monitor nor in the formats alert_fast and CSV.
    """
    text = raw.decode(errors="replace").strip()
    if not text:
        raise NotAnAlertError
    if not text.startswith("{"):
        return _fast(monitor, text) or _snort_csv(monitor, text)
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise MalformedAlertError(str(e)) from e
    if not isinstance(entry, dict):
        raise MalformedAlertError("not an object")
    if monitor in {"wazuh", "ossec"}:
        return _wazuh(monitor, entry)
    return _eve(monitor, entry) if "event_type" in entry else _snort3(monitor, entry)


def _wazuh(monitor: str, entry: Mapping[str, Any]) -> IntrusionAlert:
    rule = _object(entry, "rule")
    level = _number(rule.get("level"))
    if level is None:
        raise MalformedAlertError("an alert without a level")
    data = _object(entry, "data") if "data" in entry else {}
    # The second names are OSSEC's: `sidid`, `comment`, and `srcip` at the top level.
    return IntrusionAlert(
        monitor,
        _field(rule.get("id", rule.get("sidid"))) or "unnamed",
        severity_from_level(level),
        _text(rule.get("description", rule.get("comment"))),
        _field(data.get("srcip", entry.get("srcip"))),
        _field(data.get("dstip", entry.get("dstip"))) or _field(_agent_name(entry.get("agent"))),
    )


def _eve(monitor: str, entry: Mapping[str, Any]) -> IntrusionAlert:
    if entry["event_type"] != "alert":
        raise NotAnAlertError
    alert = _object(entry, "alert")
    return IntrusionAlert(
        monitor,
        f"{_field(alert.get('gid')) or 1}:{_field(alert.get('signature_id')) or 'unnamed'}",
        severity_from_priority(_number(alert.get("severity"))),
        _text(alert.get("signature")),
        _field(entry.get("src_ip")),
        _with_port(_field(entry.get("dest_ip")), entry.get("dest_port")),
    )


def _snort3(monitor: str, entry: Mapping[str, Any]) -> IntrusionAlert:
    rule = _field(entry.get("rule")).rpartition(":")[0]
    if not rule and "sid" not in entry and "msg" not in entry:
        raise MalformedAlertError("an alert without rule and message")
    proto = _field(entry.get("proto"))
    return IntrusionAlert(
        monitor,
        rule or f"{_field(entry.get('gid')) or 1}:{_field(entry.get('sid'))}",
        severity_from_priority(_number(entry.get("priority"))),
        _text(entry.get("msg")),
        _field(entry.get("src_addr")) or address_of(_field(entry.get("src_ap")), has_port=proto in _PORT_PROTOCOLS),
        _field(entry.get("dst_ap")) or _with_port(_field(entry.get("dst_addr")), entry.get("dst_port")),
    )


def _fast(monitor: str, text: str) -> IntrusionAlert | None:
    match = _FAST.search(text[:4096])
    if match is None:
        return None
    has_port = monitor == "suricata" or match["proto"] in _PORT_PROTOCOLS
    return IntrusionAlert(
        monitor,
        f"{match['gid']}:{match['sid']}",
        severity_from_priority(int(match["priority"]) if match["priority"] else None),
        _text(match["text"].strip('"')),
        address_of(match["src"] or "", has_port=has_port),
        match["dst"] or "",
    )


def _snort_csv(monitor: str, text: str) -> IntrusionAlert:
    """Parses the default columns of Snort 3 (10, the rule is the ninth) and of Snort 2 (generator, signature, ...)."""
    try:
        columns = [column.strip() for column in next(csv.reader([text[:4096]], skipinitialspace=True))]
    except (csv.Error, StopIteration) as e:
        raise MalformedAlertError(str(e)) from e
    if len(columns) == 10 and (rule := _SNORT_CSV_RULE.fullmatch(columns[8])):
        source = address_of(columns[6], has_port=columns[2] in _PORT_PROTOCOLS)
        return IntrusionAlert(monitor, rule[1], severity_from_priority(None), "", source, _field(columns[7]))
    if len(columns) > 9 and all(column.isdecimal() and len(column) < 11 for column in columns[1:4]):
        target = _with_port(_field(columns[8]), columns[9])
        signature = f"{columns[1]}:{columns[2]}"
        return IntrusionAlert(
            monitor, signature, severity_from_priority(None), _text(columns[4]), _field(columns[6]), target
        )
    raise MalformedAlertError("neither JSON nor a line of alert_fast or CSV")


def severity_from_level(level: int) -> str:
    """Maps the levels 0 to 15 of Wazuh and OSSEC."""
    for minimum, severity in ((15, "critical"), (12, "high"), (7, "medium"), (4, "low")):
        if level >= minimum:
            return severity
    return "info"


def severity_from_priority(priority: int | None) -> str:
    """Maps the priorities of Suricata and Snort: 1 is the highest; None and Snort's 0 mean that the rule has none."""
    return {0: "low", 1: "high", 2: "medium", 3: "low"}.get(priority or 0, "info")


def _object(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = entry.get(key)
    if not isinstance(value, dict):
        raise MalformedAlertError(f"{key} is missing")
    return value


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _field(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return clean_text(value, _MAX_FIELD).strip() if isinstance(value, str) else str(value)[:_MAX_FIELD]


def _text(value: Any) -> str:
    return clean_text(value, MAX_SUMMARY).strip() if isinstance(value, str) else ""


def _agent_name(agent: Any) -> Any:
    return agent.get("name") if isinstance(agent, dict) else None


def _with_port(address: str, port: Any) -> str:
    number = _number(port)
    return f"{address}:{number}" if address and number is not None else address


def address_of(endpoint: str, *, has_port: bool) -> str:
    """Returns the address of `address:port`. An IPv6 address may look the same with and without its port."""
    head, colon, port = endpoint.rpartition(":")
    if not colon or not port.isdecimal() or not _is_address(head.strip("[]")):
        return _field(endpoint)
    return _field(head.strip("[]") if has_port or not _is_address(endpoint) else endpoint)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
