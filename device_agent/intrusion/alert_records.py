"""Parses alert files, some with several lines for an alert: Snort's full format and OSSEC's `alerts.log`. Pure."""

import re
from typing import Final

from device_agent.intrusion.alerts import (
    IntrusionAlert,
    MalformedAlertError,
    NotAnAlertError,
    address_of,
    parse_line,
    severity_from_level,
    severity_from_priority,
)
from schemas.base import clean_text

_MAX_LINES: Final = 200  # of an alert
_MAX_LINE: Final = 4096  # characters
_MAX_SUMMARY: Final = 240
_SNORT_START: Final = re.compile(r"\[\*\*\] \[(\d{1,10}:\d{1,10}):\d{1,10}\] (.{0,1000}?) \[\*\*\]\s*")
_SNORT_PRIORITY: Final = re.compile(r"\[Priority: (\d{1,10})\]")
# 11/29-23:14:07.442911 192.0.2.44:51122 -> 198.51.100.7:80
_SNORT_PACKET: Final = re.compile(r"\d\d/\d\d(?:/\d\d)?-[\d:.]+ (\S{1,80}) -> (\S{1,80})\s*")
_SNORT_PORTS: Final = re.compile(r"(?:TCP|UDP) TTL:")
_OSSEC_START: Final = re.compile(r"\*\* Alert \d+\.\d+:")
_OSSEC_RULE: Final = re.compile(r"Rule: (\d{1,10}) \(level (\d{1,2})\) -> '(.*)'\s*")
_OSSEC_FIELD: Final = re.compile(r"(Src IP|Src Port|Src Location|Dst IP|Dst Port|Dst Location|User): (.*)")


class AlertParser:
    """Parses the lines of one alert file; `malformed` counts lines and alerts that were not understood."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._is_ossec = monitor in ("wazuh", "ossec")
        self._record: list[str] = []
        self.malformed = 0

    def feed(self, line: bytes) -> list[IntrusionAlert]:
        """Takes the next line; returns the alerts that it completes."""
        text = line[:_MAX_LINE].decode(errors="replace").rstrip()
        is_start = (_OSSEC_START.match if self._is_ossec else _SNORT_START.fullmatch)(text) is not None
        if is_start or (self._record and not text):
            finished = self.flush()
            self._record = [text] if is_start else []
            return finished
        if self._record:
            if len(self._record) < _MAX_LINES:
                self._record.append(text)
            return []
        try:
            return [parse_line(self._monitor, line)]
        except NotAnAlertError:
            return []
        except MalformedAlertError:
            self.malformed += 1
            return []

    def flush(self) -> list[IntrusionAlert]:
        """Ends the alert whose lines were read last, because no further one follows."""
        record, self._record = self._record, []
        if not record:
            return []
        alert = self._ossec(record) if self._is_ossec else self._snort(record)
        return [alert] if alert is not None else []

    def _snort(self, record: list[str]) -> IntrusionAlert | None:
        start = _SNORT_START.fullmatch(record[0])
        priority = next((match for line in record[1:3] if (match := _SNORT_PRIORITY.search(line))), None)
        packet = next((match for line in record[1:] if (match := _SNORT_PACKET.fullmatch(line))), None)
        if start is None:
            return None
        if priority is None or packet is None:
            self.malformed += 1  # the alert is reported with what it has
        has_port = any(_SNORT_PORTS.match(line) for line in record)
        return IntrusionAlert(
            self._monitor,
            start[1],
            severity_from_priority(int(priority[1]) if priority else None),
            clean_text(start[2].strip('"'), _MAX_SUMMARY).strip(),
            address_of(packet[1], has_port=has_port) if packet else "",
            packet[2] if packet else "",
        )

    def _ossec(self, record: list[str]) -> IntrusionAlert | None:
        # Time and location, the rule, then fields up to the log line, whose text may be anybody's.
        at = next((number for number, line in enumerate(record[:3]) if _OSSEC_RULE.fullmatch(line)), None)
        rule = _OSSEC_RULE.fullmatch(record[at]) if at is not None else None
        if at is None or rule is None:
            self.malformed += 1
            return None
        fields: dict[str, str] = {}
        for line in record[at + 1 :]:
            match = _OSSEC_FIELD.fullmatch(line)
            if match is None or match[1] in fields:
                break
            fields[match[1]] = "" if match[2] == "(none)" else clean_text(match[2], 96).strip()
        return IntrusionAlert(
            self._monitor,
            rule[1],
            severity_from_level(int(rule[2])),
            clean_text(rule[3], _MAX_SUMMARY).strip(),
            fields.get("Src IP", ""),
            fields.get("Dst IP", ""),
        )
