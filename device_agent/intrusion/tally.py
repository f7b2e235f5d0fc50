"""Turns any number of alerts into few events: equal ones are counted, what is beyond the rate becomes one event."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from device_agent.intrusion.alerts import SEVERITIES, IntrusionAlert

MAX_KEPT: Final = 256  # different alerts that wait; further ones are only counted
UNCONFIRMED_SECONDS: Final = 120.0  # without the broker's word an event goes out again
_MINUTE: Final = 60.0
LOGIN: Final = "login"  # alerts that are failed logins; their signature is where they came from
LOGIN_KIND: Final = "login_failed"
_NAMED: Final = 3  # signatures that the event about a flood names

AlertKey = tuple[str, str]  # monitor and signature


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """Equal alerts that were not told yet; times as text."""

    alert: IntrusionAlert
    count: int
    first_at: str
    last_at: str

    @property
    def key(self) -> AlertKey:
        """What makes alerts equal."""
        return self.alert.monitor, self.alert.signature


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """One event to send, and what it tells of."""

    number: int
    kind: str
    severity: str
    count: int
    summary: str
    detail: dict[str, str]
    parts: tuple[PendingAlert, ...]
    uncounted: int = 0


class AlertAggregator:
    """What waits and what is under way; times are monotonic seconds, given by the caller."""

    def __init__(
        self, *, per_minute: int, repeat_after: float, waiting: Iterable[PendingAlert] = (), beyond: int = 0
    ) -> None:
        self._per_minute = per_minute
        self._repeat_after = repeat_after
        self._waiting: dict[AlertKey, PendingAlert] = {one.key: one for one in waiting}
        self._beyond = beyond  # alerts that were only counted
        self._told_at: dict[AlertKey, float] = {}
        self._sent_at: list[float] = []
        self._flood_at = float("-inf")
        self._under_way: dict[int, tuple[float, AlertEvent]] = {}
        self._number = 0

    def add(self, alert: IntrusionAlert, at: str, count: int = 1) -> None:
        """One more alert, or `count` equal ones, seen at `at`."""
        key = (alert.monitor, alert.signature)
        known = self._waiting.get(key)
        if known is not None:
            self._waiting[key] = _merged(known, PendingAlert(alert, count, at, at))
        elif len(self._waiting) < MAX_KEPT:
            self._waiting[key] = PendingAlert(alert, count, at, at)
        else:
            self._beyond += count

    def due(self, now: float) -> list[AlertEvent]:
        """The events that may go out at `now`; each is under way until `settle`."""
        for number, (since, _) in list(self._under_way.items()):
            if now > since + UNCONFIRMED_SECONDS:
                self.settle(number, is_taken=False)
        self._sent_at = [at for at in self._sent_at if now < at + _MINUTE]
        self._told_at = {key: at for key, at in self._told_at.items() if now < at + self._repeat_after}
        ready = [one for key, one in self._waiting.items() if key not in self._told_at]
        ready.sort(key=lambda one: (-SEVERITIES.index(one.alert.severity), one.first_at, one.key))
        room = self._per_minute - len(self._sent_at)
        is_flood = self._beyond > 0 or len(ready) > room
        events = [self._one(waiting, now) for waiting in ready[: max(0, room - 1 if is_flood else room)]]
        rest = ready[len(events) :]
        if is_flood and now >= self._flood_at + _MINUTE and (rest or self._beyond):
            self._flood_at = now
            # Guesses from many places at once must not hide among other alerts, nor these among them.
            logins = [one for one in rest if one.alert.monitor == LOGIN]
            others = [one for one in rest if one.alert.monitor != LOGIN]
            events += [self._flood(part, now) for part in (others, logins) if part or (part is others and self._beyond)]
        return events

    def settle(self, number: int, *, is_taken: bool) -> bool:
        """The broker took an event, or did not and it waits again; false when no such event is under way."""
        found = self._under_way.pop(number, None)
        if found is None:
            return False
        if not is_taken:
            self._beyond += found[1].uncounted
            for part in found[1].parts:
                self._told_at.pop(part.key, None)
                later = self._waiting.get(part.key)
                self._waiting[part.key] = part if later is None else _merged(part, later)
        return True

    def kept(self) -> tuple[list[PendingAlert], int]:
        """What must survive a restart: everything that the broker has not taken."""
        together = dict(self._waiting)
        beyond = self._beyond
        for _, telling in self._under_way.values():
            beyond += telling.uncounted
            for part in telling.parts:
                later = together.get(part.key)
                together[part.key] = part if later is None else _merged(part, later)
        return list(together.values()), beyond

    def _one(self, waiting: PendingAlert, now: float) -> AlertEvent:
        alert = waiting.alert
        detail = {
            "signature": alert.signature,
            "source": alert.source,
            "target": alert.target,
            "first_at": waiting.first_at,
            "last_at": waiting.last_at,
        }
        kind = LOGIN_KIND if alert.monitor == LOGIN else f"intrusion.{alert.monitor}"
        return self._begin(kind, alert.severity, alert.summary or alert.signature, detail, (waiting,), now)

    def _flood(self, rest: list[PendingAlert], now: float) -> AlertEvent:
        most = sorted(rest, key=lambda one: (-one.count, one.key))[:_NAMED]
        detail: dict[str, str] = {"signatures": str(len(rest))}
        for number, one in enumerate(most, 1):
            detail[f"most_{number}"] = f"{one.count} of {one.alert.signature}: {one.alert.summary}"
        if rest:
            detail["first_at"] = min(one.first_at for one in rest)
            detail["last_at"] = max(one.last_at for one in rest)
        severity = max((one.alert.severity for one in rest), key=SEVERITIES.index, default="medium")
        if rest and rest[0].alert.monitor == LOGIN:
            detail["source"] = "many"
            return self._begin(LOGIN_KIND, severity, "logins that failed, from many places", detail, tuple(rest), now)
        summary = "more alerts than are told one by one"
        telling = self._begin("intrusion.flood", severity, summary, detail, tuple(rest), now, self._beyond)
        self._beyond = 0
        return telling

    def _begin(
        self,
        kind: str,
        severity: str,
        summary: str,
        detail: dict[str, str],
        parts: tuple[PendingAlert, ...],
        now: float,
        uncounted: int = 0,
    ) -> AlertEvent:
        self._number += 1
        for part in parts:
            del self._waiting[part.key]
            self._told_at[part.key] = now
        count = sum(part.count for part in parts) + uncounted
        shown = {key: value for key, value in detail.items() if value}
        telling = AlertEvent(self._number, kind, severity, count, summary, shown, parts, uncounted)
        self._sent_at.append(now)
        self._under_way[self._number] = (now, telling)
        return telling


def _merged(older: PendingAlert, newer: PendingAlert) -> PendingAlert:
    """The newest words, the worst severity, the count of both."""
    severity = max(older.alert.severity, newer.alert.severity, key=SEVERITIES.index)
    return PendingAlert(
        replace(newer.alert, severity=severity), older.count + newer.count, older.first_at, newer.last_at
    )
