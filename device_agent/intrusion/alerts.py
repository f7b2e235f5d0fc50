"""One line of an intrusion monitor becomes an alert, or nothing: values in, values out, never an exception."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.base import clean_text

SEVERITIES: Final = ("info", "low", "medium", "high", "critical")
MAX_SUMMARY: Final = 240  # characters
_MAX_WORD: Final = 96
# 10/05/10-10:08:59.66  [**] [1:2009187:4] text [**] [Classification: x] [Priority: 3] {TCP} 10.0.0.1:8 -> 10.0.0.2:9
_FAST: Final = re.compile(
    r"\[\*\*\] \[(?P<gid>\d{1,10}):(?P<sid>\d{1,10}):\d{1,10}\] (?P<text>.{0,1000}?) \[\*\*\]"
    r"(?: \[Classification: (?P<class>[^]]{0,200})\])?(?: \[Priority: (?P<priority>\d{1,3})\])?"
    r"(?: \{(?P<proto>[A-Za-z0-9:_-]{1,32})\}(?: (?P<src>\S{1,80}) -> (?P<dst>\S{1,80}))?)?"
)


class NotAnAlertError(Exception):
    """The line says something else: traffic, statistics."""


class MalformedAlertError(Exception):
    """The line cannot be read."""


@dataclass(frozen=True, slots=True)
class IntrusionAlert:
    """What a monitor said; `signature` is its own id of the rule."""

    monitor: str
    signature: str
    severity: str
    summary: str
    source: str = ""
    target: str = ""


def parse_line(monitor: str, raw: bytes) -> IntrusionAlert:
    """Read a line.

    Raises:
        NotAnAlertError: it is well-formed and no alert.
        MalformedAlertError: it is neither JSON of that monitor nor an alert_fast line.
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
    # OSSEC's own names come second: `sidid`, `comment`, `srcip` at the top.
    return IntrusionAlert(
        monitor,
        _word(rule.get("id", rule.get("sidid"))) or "unnamed",
        _of_level(level),
        _text(rule.get("description", rule.get("comment"))),
        _word(data.get("srcip", entry.get("srcip"))),
        _word(data.get("dstip", entry.get("dstip"))) or _word(_name_of(entry.get("agent"))),
    )


def _eve(monitor: str, entry: Mapping[str, Any]) -> IntrusionAlert:
    if entry["event_type"] != "alert":
        raise NotAnAlertError
    alert = _object(entry, "alert")
    return IntrusionAlert(
        monitor,
        f"{_word(alert.get('gid')) or 1}:{_word(alert.get('signature_id')) or 'unnamed'}",
        _of_priority(_number(alert.get("severity"))),
        _text(alert.get("signature")),
        _word(entry.get("src_ip")),
        _with_port(_word(entry.get("dest_ip")), entry.get("dest_port")),
    )


def _snort3(monitor: str, entry: Mapping[str, Any]) -> IntrusionAlert:
    if "msg" not in entry:
        raise NotAnAlertError
    rule = _word(entry.get("rule")).rpartition(":")[0] or f"{_word(entry.get('gid')) or 1}:{_word(entry.get('sid'))}"
    return IntrusionAlert(
        monitor,
        rule,
        _of_priority(_number(entry.get("priority"))),
        _text(entry.get("msg")),
        _word(entry.get("src_addr")) or _word(entry.get("src_ap")),
        _word(entry.get("dst_ap")) or _with_port(_word(entry.get("dst_addr")), entry.get("dst_port")),
    )


def _fast(monitor: str, text: str) -> IntrusionAlert:
    found = _FAST.search(text[:4096])
    if found is None:
        raise MalformedAlertError("neither JSON nor an alert_fast line")
    return IntrusionAlert(
        monitor,
        f"{found['gid']}:{found['sid']}",
        _of_priority(int(found["priority"]) if found["priority"] else None),
        _text(found["text"]),
        _without_port(found["src"] or ""),
        found["dst"] or "",
    )


def _of_level(level: int) -> str:
    """Wazuh's and OSSEC's 0 to 15; below 4 is the everyday."""
    for least, severity in ((15, "critical"), (12, "high"), (7, "medium"), (4, "low")):
        if level >= least:
            return severity
    return "info"


def _of_priority(priority: int | None) -> str:
    """Suricata's and Snort's, where 1 is the worst."""
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


def _word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return clean_text(value, _MAX_WORD).strip() if isinstance(value, str) else str(value)[:_MAX_WORD]


def _text(value: Any) -> str:
    return clean_text(value, MAX_SUMMARY).strip() if isinstance(value, str) else ""


def _name_of(agent: Any) -> Any:
    return agent.get("name") if isinstance(agent, dict) else None


def _with_port(address: str, port: Any) -> str:
    number = _number(port)
    return f"{address}:{number}" if address and number is not None else address


def _without_port(place: str) -> str:
    address, colon, port = place.rpartition(":")
    return address if colon and port.isdigit() and address.count(":") != 6 else place
