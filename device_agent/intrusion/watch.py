"""Follows the device's intrusion monitors and sends events about their alerts; its state survives a restart."""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from device_agent.host.clock import Clock
from device_agent.host.files import write_whole
from device_agent.host.intrusion_monitors import AlertSource, sources
from device_agent.host.system import System
from device_agent.intrusion.aggregator import LOGIN, AlertAggregator, AlertEvent, PendingAlert
from device_agent.intrusion.alert_records import AlertParser
from device_agent.intrusion.alerts import SEVERITIES, IntrusionAlert
from device_agent.intrusion.failed_logins import (
    BtmpReader,
    FailedLoginCounter,
    auth_log_source,
    failed_login_alert,
    parse_failed_logins,
)
from device_agent.intrusion.log_follower import FilePosition, LogFollower
from device_agent.mqtt_client import Publish
from device_agent.settings import IntrusionSettings
from schemas.base import MAX_TEXT, clean_text
from schemas.events import DeviceEvent
from schemas.topics import UpChannel

FILE: Final = "intrusion.json"
MAX_CHUNKS: Final = 16  # of one file in one step
SAVE_SECONDS: Final = 15.0  # between two writes when there are new alerts
POSITIONS_SECONDS: Final = 600.0  # between two writes when only positions changed
SOURCES_SECONDS: Final = 60.0  # between two searches for monitors
_MAX_BYTES: Final = 1024 * 1024
_log = logging.getLogger(__name__)


class IntrusionWatch:
    """Reads the monitors and publishes events; `step` runs in one thread, confirmations arrive in another."""

    def __init__(
        self, settings: IntrusionSettings, state_dir: Path, system: System, device_id: str, clock: Clock
    ) -> None:
        """Restores the saved state; with a damaged one, reading starts at the current end of the files."""
        self._settings = settings
        self._system = system
        self._device_id = device_id
        self._clock = clock
        self._path = state_dir / FILE
        self._mutex = threading.Lock()
        self._followers: dict[AlertSource, LogFollower] = {}
        self._positions, pending, suppressed = self._load()
        self._aggregator = AlertAggregator(
            per_minute=settings.events_per_minute,
            repeat_after=settings.repeat_after,
            pending=pending,
            suppressed=suppressed,
        )
        self._failed_logins = FailedLoginCounter(settings.failed_logins, settings.failed_logins_within)
        self._btmp: BtmpReader | None = None
        self._sources_read_at = float("-inf")
        self._saved_at = float("-inf")
        self._has_unsaved_alerts = False
        self._parsers: dict[AlertSource, AlertParser] = {}

    def step(self, publish: Publish, *, is_online: bool) -> None:
        """Reads new lines, publishes the events that are due, and saves the state from time to time."""
        now = self._clock.monotonic()
        if now >= self._sources_read_at + SOURCES_SECONDS:
            self._sources_read_at = now
            self._read_sources()
        for source, follower in self._followers.items():
            self._read(source, follower)
        self._read_btmp()
        if is_online:
            with self._mutex:
                due = self._aggregator.due(now)
            for event in due:
                self._send(event, publish)
        interval = SAVE_SECONDS if self._has_unsaved_alerts else POSITIONS_SECONDS
        if now >= self._saved_at + interval:
            self.save()

    def save(self) -> None:
        """Saves the positions in all files and the unconfirmed alerts."""
        with self._mutex:
            pending, suppressed = self._aggregator.unconfirmed()
            readers: dict[AlertSource, LogFollower | BtmpReader] = dict(self._followers)
            if self._btmp is not None:
                readers[BtmpReader.source] = self._btmp
            positions = {_position_key(source): reader.position for source, reader in readers.items()}
            places = {key: [position.inode, position.offset] for key, position in positions.items() if position}
            content = {
                "v": 1,
                "places": places,
                "digests": {key: position.digest for key, position in positions.items() if position},
                "beyond": suppressed,
                "waiting": [
                    [
                        alert.count,
                        alert.first_at,
                        alert.last_at,
                        *(getattr(alert.alert, key) for key in IntrusionAlert.__slots__),
                    ]
                    for alert in pending
                ],
            }
            self._has_unsaved_alerts = False
        self._saved_at = self._clock.monotonic()
        if not places and not pending and not suppressed and not self._path.exists():
            return
        try:
            temporary = self._path.with_name(f".{FILE}.new")
            write_whole(self._path, temporary, json.dumps(content, separators=(",", ":")).encode("ascii"))
        except OSError as e:
            _log.warning("%s cannot be written: %s", self._path, e.strerror)

    def close(self) -> None:
        """Saves the state and closes the files."""
        for source in self._parsers:
            self._flush(source)
        self.save()
        for follower in self._followers.values():
            follower.close()

    def _read_sources(self) -> None:
        configured = set(sources(self._settings.watch, self._system))
        if self._settings.failed_logins:
            auth_log = auth_log_source(self._system)
            if auth_log is not None:
                configured.add(auth_log)
                self._btmp = None
            elif self._btmp is None:
                self._btmp = BtmpReader(self._system, self._positions.pop(_position_key(BtmpReader.source), None))
        for gone in self._followers.keys() - configured:
            self._followers.pop(gone).close()
            self._parsers.pop(gone, None)
        for source in sorted(configured - self._followers.keys()):
            position = self._positions.pop(_position_key(source), None)
            self._followers[source] = LogFollower(self._system.path(source.path), position)
            _log.info("following %s of %s", source.path, source.monitor)

    def _read(self, source: AlertSource, follower: LogFollower) -> None:
        for _ in range(MAX_CHUNKS):
            try:
                chunk = follower.read()
            except OSError as e:
                _log.debug("%s: %s", source.path, e)  # the report's section `intrusion` has the reason
                follower.close()
                return
            if chunk.is_truncated and source.monitor != LOGIN:
                self._add(_lost_lines_alert(source))
            for line in chunk.lines:
                self._handle_line(source, line)
            if source.monitor != LOGIN:
                self._count_malformed(source, chunk.lines_dropped)
                if not chunk.lines and not chunk.has_more:
                    self._flush(source)  # nothing was written since the previous step
            if not chunk.has_more:
                return

    def _handle_line(self, source: AlertSource, line: bytes) -> None:
        if source.monitor == LOGIN:
            for address in parse_failed_logins(line):
                self._add_failed_login(address)
            return
        if source.monitor == "suricata" and line.startswith(b"{") and line.endswith(b"}") and b'"alert"' not in line:
            return  # most lines of Suricata are flows and statistics
        parser = self._parser(source)
        self._add_severe(parser.feed(line))
        self._count_malformed(source, 0)

    def _parser(self, source: AlertSource) -> AlertParser:
        return self._parsers.setdefault(source, AlertParser(source.monitor))

    def _flush(self, source: AlertSource) -> None:
        self._add_severe(self._parser(source).flush())
        self._count_malformed(source, 0)

    def _add_severe(self, alerts: Iterable[IntrusionAlert]) -> None:
        for alert in alerts:
            if SEVERITIES.index(alert.severity) >= SEVERITIES.index(self._settings.min_severity):
                self._add(alert)

    def _read_btmp(self) -> None:
        if self._btmp is None:
            return
        try:
            addresses = self._btmp.read()
        except OSError as e:
            _log.debug("btmp: %s", e)  # the report's section `access` has the reason
            return
        for address in addresses:
            self._add_failed_login(address)

    def _add_failed_login(self, address: str) -> None:
        if not address or SEVERITIES.index("medium") < SEVERITIES.index(self._settings.min_severity):
            return
        address, count = self._failed_logins.add_failure(address, self._clock.monotonic())
        if count:
            self._add(failed_login_alert(address), count)

    def _add(self, alert: IntrusionAlert, count: int = 1) -> None:
        with self._mutex:
            self._aggregator.add(alert, self._clock.now().isoformat(timespec="seconds"), count)
            self._has_unsaved_alerts = True

    def _count_malformed(self, source: AlertSource, dropped: int) -> None:
        parser = self._parser(source)
        count, parser.malformed = parser.malformed + dropped, 0
        if count:  # any of them may have been an alert
            summary = f"{source.path} has lines that were not understood: alerts may be missing"
            self._add(IntrusionAlert(source.monitor, "damaged", "low", summary), count)

    def _send(self, event: AlertEvent, publish: Publish) -> None:
        message = DeviceEvent(
            device_id=self._device_id,
            kind=event.kind,
            severity=event.severity,
            count=event.count,
            summary=clean_text(event.summary),
            detail={key: clean_text(value, MAX_TEXT) for key, value in event.detail.items()},
            at=self._clock.now(),
        )

        def on_delivery(is_confirmed: bool) -> None:
            with self._mutex:
                is_known = self._aggregator.on_delivery(event.number, is_confirmed=is_confirmed)
                self._has_unsaved_alerts = is_known or self._has_unsaved_alerts

        if not publish(UpChannel.EVENT, message.model_dump_json().encode(), on_delivery):
            on_delivery(False)

    def _load(self) -> tuple[dict[str, FilePosition], list[PendingAlert], int]:
        try:
            with self._path.open("rb") as file:
                return _parse_state(json.loads(file.read(_MAX_BYTES)))  # a longer file is malformed after the cut
        except FileNotFoundError:
            return {}, [], 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
            _log.warning("%s: %s: following alerts from now on", self._path, e)
            return {}, [], 0


def _position_key(source: AlertSource) -> str:
    return f"{source.monitor}:{source.path}"


def _lost_lines_alert(source: AlertSource) -> IntrusionAlert:
    summary = f"{source.path} was rotated or emptied before all of it was read: alerts may be missing"
    return IntrusionAlert(source.monitor, "gap", "low", summary)


def _parse_state(raw: Mapping[str, Any]) -> tuple[dict[str, FilePosition], list[PendingAlert], int]:
    if raw["v"] != 1:
        raise ValueError(f"version {raw['v']}")
    digests = raw.get("digests", {})
    positions = {
        str(name): FilePosition(int(inode), int(offset), str(digests.get(name, "")))
        for name, (inode, offset) in raw["places"].items()
    }
    pending = []
    for count, first_at, last_at, *fields in raw["waiting"]:
        alert = IntrusionAlert(*(str(field) for field in fields))
        if alert.severity not in SEVERITIES:
            raise ValueError(f"severity {alert.severity}")
        pending.append(PendingAlert(alert, int(count), str(first_at), str(last_at)))
    return positions, pending, int(raw["beyond"])
