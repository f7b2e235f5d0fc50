"""Follows every intrusion monitor of the device, and tells of alerts: what it knows survives a restart."""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from device_agent.host.clock import Clock
from device_agent.host.files import write_whole
from device_agent.host.intrusion_monitors import AlertSource, sources
from device_agent.host.system import System
from device_agent.intrusion.alerts import SEVERITIES, IntrusionAlert, MalformedAlertError, NotAnAlertError, parse_line
from device_agent.intrusion.follow import FilePosition, LogFollower
from device_agent.intrusion.logins import BtmpReader, FailedLoginCounter, alert_of, failed_in, logs
from device_agent.intrusion.tally import LOGIN, AlertAggregator, AlertEvent, PendingAlert
from device_agent.mqtt_client import Publish
from device_agent.settings import IntrusionSettings
from schemas.base import MAX_TEXT, clean_text
from schemas.events import DeviceEvent
from schemas.topics import UpChannel

FILE: Final = "intrusion.json"
MAX_PIECES: Final = 16  # of one file in one step
SAVE_SECONDS: Final = 15.0  # between two writes because of alerts
PLACE_SECONDS: Final = 600.0  # between two writes because lines without alerts were read
SOURCES_SECONDS: Final = 60.0  # between two looks for monitors
_MAX_BYTES: Final = 1024 * 1024
_log = logging.getLogger(__name__)


class IntrusionWatch:
    """What the monitors say, step by step; `step` belongs to one thread, the broker's word comes from another."""

    def __init__(
        self, settings: IntrusionSettings, state_dir: Path, system: System, device_id: str, clock: Clock
    ) -> None:
        """Go on where an earlier run stopped; a damaged memory is dropped, and alerts count from now."""
        self._settings = settings
        self._system = system
        self._device_id = device_id
        self._clock = clock
        self._path = state_dir / FILE
        self._mutex = threading.Lock()
        self._followers: dict[AlertSource, LogFollower] = {}
        self._places, waiting, beyond = self._load()
        self._tally = AlertAggregator(
            per_minute=settings.events_per_minute, repeat_after=settings.repeat_after, waiting=waiting, beyond=beyond
        )
        self._guesses = FailedLoginCounter(settings.failed_logins, settings.failed_logins_within)
        self._btmp: BtmpReader | None = None
        self._looked_at = float("-inf")
        self._saved_at = float("-inf")
        self._has_news = False
        self._damaged: dict[AlertSource, int] = {}

    def step(self, publish: Publish, *, is_online: bool) -> None:
        """Read what was written since the last step, send what is due, remember it."""
        now = self._clock.monotonic()
        if now >= self._looked_at + SOURCES_SECONDS:
            self._looked_at = now
            self._look()
        for source, follower in self._followers.items():
            self._read(source, follower)
        self._read_btmp()
        if is_online:
            with self._mutex:
                due = self._tally.due(now)
            for telling in due:
                self._send(telling, publish)
        wait = SAVE_SECONDS if self._has_news else PLACE_SECONDS
        if now >= self._saved_at + wait:
            self.save()

    def save(self) -> None:
        """Write down how far everything was read, and what was not told yet."""
        with self._mutex:
            waiting, beyond = self._tally.kept()
            read: dict[AlertSource, LogFollower | BtmpReader] = dict(self._followers)
            if self._btmp is not None:
                read[BtmpReader.source] = self._btmp
            places = {f"{one.monitor}:{one.path}": f.place for one, f in read.items() if f.place is not None}
            content = {
                "v": 1,
                "places": {name: [place.inode, place.offset] for name, place in places.items()},
                "beyond": beyond,
                "waiting": [
                    [
                        one.count,
                        one.first_at,
                        one.last_at,
                        *(getattr(one.alert, key) for key in IntrusionAlert.__slots__),
                    ]
                    for one in waiting
                ],
            }
            self._has_news = False
        self._saved_at = self._clock.monotonic()
        if not places and not waiting and not beyond and not self._path.exists():
            return
        try:
            fresh = self._path.with_name(f".{FILE}.new")
            write_whole(self._path, fresh, json.dumps(content, separators=(",", ":")).encode("ascii"))
        except OSError as e:
            _log.warning("%s cannot be written: %s", self._path, e.strerror)

    def close(self) -> None:
        """Write everything down and let go of the files."""
        self.save()
        for follower in self._followers.values():
            follower.close()

    def _look(self) -> None:
        wanted = set(sources(self._settings.watch, self._system))
        if self._settings.failed_logins:
            told = logs(self._system)
            wanted.update(told)
            if not told and self._btmp is None:
                place = self._places.pop(f"{BtmpReader.source.monitor}:{BtmpReader.source.path}", None)
                self._btmp = BtmpReader(self._system, place)
            elif told:
                self._btmp = None
        for gone in self._followers.keys() - wanted:
            self._followers.pop(gone).close()
        for source in sorted(wanted - self._followers.keys()):
            place = self._places.pop(f"{source.monitor}:{source.path}", None)
            self._followers[source] = LogFollower(self._system.path(source.path), place)
            _log.info("following %s of %s", source.path, source.monitor)

    def _read(self, source: AlertSource, follower: LogFollower) -> None:
        for _ in range(MAX_PIECES):
            try:
                piece = follower.read()
            except OSError as e:
                _log.debug("%s: %s", source.path, e)  # the section `intrusion` says so
                follower.close()
                return
            if piece.has_gap and source.monitor != LOGIN:
                self._add(_lost(source))
            for line in piece.lines:
                self._take(source, line)
            if piece.skipped:
                self._note_damage(source, piece.skipped)
            if not piece.has_more:
                return

    def _take(self, source: AlertSource, line: bytes) -> None:
        if source.monitor == LOGIN:
            self._failed(failed_in(line))
            return
        if source.monitor == "suricata" and line.startswith(b"{") and b'"alert"' not in line:
            return  # flows and statistics are most of what Suricata writes
        try:
            alert = parse_line(source.monitor, line)
        except NotAnAlertError:
            return
        except MalformedAlertError:
            self._note_damage(source, 1)
            return
        if SEVERITIES.index(alert.severity) >= SEVERITIES.index(self._settings.min_severity):
            self._add(alert)

    def _read_btmp(self) -> None:
        if self._btmp is None:
            return
        try:
            found = self._btmp.read()
        except OSError as e:
            _log.debug("btmp: %s", e)  # the section `access` says so
            return
        for source in found:
            self._failed(source)

    def _failed(self, source: str) -> None:
        if not source or SEVERITIES.index("medium") < SEVERITIES.index(self._settings.min_severity):
            return
        source, count = self._guesses.failed(source, self._clock.monotonic())
        if count:
            self._add(alert_of(source), count)

    def _add(self, alert: IntrusionAlert, count: int = 1) -> None:
        with self._mutex:
            self._tally.add(alert, self._clock.now().isoformat(timespec="seconds"), count)
            self._has_news = True

    def _note_damage(self, source: AlertSource, count: int) -> None:
        if source not in self._damaged:
            _log.warning("%s: a line that cannot be read; further ones are only counted", source.path)
        self._damaged[source] = self._damaged.get(source, 0) + count

    def _send(self, telling: AlertEvent, publish: Publish) -> None:
        event = DeviceEvent(
            device_id=self._device_id,
            kind=telling.kind,
            severity=telling.severity,
            count=telling.count,
            summary=clean_text(telling.summary),
            detail={key: clean_text(value, MAX_TEXT) for key, value in telling.detail.items()},
            at=self._clock.now(),
        )

        def confirmed(is_taken: bool) -> None:
            with self._mutex:
                self._has_news = self._tally.settle(telling.number, is_taken=is_taken) or self._has_news

        if not publish(UpChannel.EVENT, event.model_dump_json().encode(), confirmed):
            confirmed(False)

    def _load(self) -> tuple[dict[str, FilePosition], list[PendingAlert], int]:
        try:
            with self._path.open("rb") as file:
                return _read_state(json.loads(file.read(_MAX_BYTES)))  # a longer one is broken by the cut
        except FileNotFoundError:
            return {}, [], 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
            _log.warning("%s: %s: alerts are followed from now on", self._path, e)
            return {}, [], 0


def _lost(source: AlertSource) -> IntrusionAlert:
    summary = f"{source.path} was rotated or emptied before all of it was read: alerts may be missing"
    return IntrusionAlert(source.monitor, "gap", "low", summary)


def _read_state(raw: Mapping[str, Any]) -> tuple[dict[str, FilePosition], list[PendingAlert], int]:
    if raw["v"] != 1:
        raise ValueError(f"version {raw['v']}")
    places = {str(name): FilePosition(int(inode), int(offset)) for name, (inode, offset) in raw["places"].items()}
    waiting = []
    for count, first_at, last_at, *words in raw["waiting"]:
        alert = IntrusionAlert(*(str(word) for word in words))
        if alert.severity not in SEVERITIES:
            raise ValueError(f"severity {alert.severity}")
        waiting.append(PendingAlert(alert, int(count), str(first_at), str(last_at)))
    return places, waiting, int(raw["beyond"])
