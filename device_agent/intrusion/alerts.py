"""Parses the alert lines of intrusion monitors: Wazuh, OSSEC, Suricata and Snort. Pure."""

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
    r"(?: \[Classification: (?P<class>[^]]{0,200})\])?(?: \[Priority: (?P<priority>\d{1,3})\])?"
    r"(?: \{(?P<proto>[A-Za-z0-9:_-]{1,32})\}(?: (?P<src>\S{1,80}) -> (?P<dst>\S{1,80}))?)?"
)


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
        MalformedAlertError: the line is neither JSON of that monitor nor in the format alert_fast.
    """
    text = raw.decode(errors="replace").strip()
    if not text:
        raise NotAnAlertError
    if not text.startswith("{"):
        return _fast(monitor, text)
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
        _severity_from_level(level),
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
        _severity_from_priority(_number(alert.get("severity"))),
        _text(alert.get("signature")),
        _field(entry.get("src_ip")),
        _with_port(_field(entry.get("dest_ip")), entry.get("dest_port")),
    )


def _snort3(monitor: str, entry: Mapping[str, Any]) -> IntrusionAlert:
    if "msg" not in entry:
        raise NotAnAlertError
    rule_id = f"{_field(entry.get('gid')) or 1}:{_field(entry.get('sid'))}"
    return IntrusionAlert(
        monitor,
        _field(entry.get("rule")).rpartition(":")[0] or rule_id,
        _severity_from_priority(_number(entry.get("priority"))),
        _text(entry.get("msg")),
        _field(entry.get("src_addr")) or _field(entry.get("src_ap")),
        _field(entry.get("dst_ap")) or _with_port(_field(entry.get("dst_addr")), entry.get("dst_port")),
    )


def _fast(monitor: str, text: str) -> IntrusionAlert:
    match = _FAST.search(text[:4096])
    if match is None:
        raise MalformedAlertError("neither JSON nor an alert_fast line")
    return IntrusionAlert(
        monitor,
        f"{match['gid']}:{match['sid']}",
        _severity_from_priority(int(match["priority"]) if match["priority"] else None),
        _text(match["text"]),
        _without_port(match["src"] or ""),
        match["dst"] or "",
    )


def _severity_from_level(level: int) -> str:
    """Maps the levels 0 to 15 of Wazuh and OSSEC."""
    for minimum, severity in ((15, "critical"), (12, "high"), (7, "medium"), (4, "low")):
        if level >= minimum:
            return severity
    return "info"


def _severity_from_priority(priority: int | None) -> str:
    """Maps the priorities of Suricata and Snort, of which 1 is the highest."""
    return {1: "high", 2: "medium", 3: "low"}.get(priority if priority is not None else 3, "info")


def _object(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = entry.get(key)
    if not isinstance(value, dict):
        raise MalformedAlertError(f"{key} is missing")
    return value


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 3:
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


def _without_port(endpoint: str) -> str:
    address, colon, port = endpoint.rpartition(":")
    return address if colon and port.isdigit() and address.count(":") != 6 else endpoint
