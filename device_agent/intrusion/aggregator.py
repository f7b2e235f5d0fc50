"""Aggregates alerts into few events: equal alerts are counted, alerts above the rate limit share one event."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from device_agent.intrusion.alerts import SEVERITIES, IntrusionAlert

MAX_PENDING: Final = 256  # different alerts that wait to be sent; further ones are only counted
UNCONFIRMED_SECONDS: Final = 120.0  # after this time without a PUBACK an event is sent again
_MINUTE: Final = 60.0
LOGIN: Final = "login"  # monitor name of failed logins; their signature is the source
LOGIN_KIND: Final = "login_failed"
_NAMED_SIGNATURES: Final = 3  # in an overflow event

AlertKey = tuple[str, str]  # monitor and signature


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """Equal alerts that were not sent yet; times in ISO format."""

    alert: IntrusionAlert
    count: int
    first_at: str
    last_at: str

    @property
    def key(self) -> AlertKey:
        """Equal for equal alerts."""
        return self.alert.monitor, self.alert.signature


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """An event to send; `alerts` and `suppressed` (alerts that were only counted) become pending again if it fails."""

    number: int
    kind: str
    severity: str
    count: int
    summary: str
    detail: dict[str, str]
    alerts: tuple[PendingAlert, ...]
    suppressed: int = 0


class AlertAggregator:
    """Holds pending alerts and events in delivery; all times are monotonic seconds passed by the caller."""

    def __init__(
        self, *, per_minute: int, repeat_after: float, pending: Iterable[PendingAlert] = (), suppressed: int = 0
    ) -> None:
        self._per_minute = per_minute
        self._repeat_after = repeat_after
        self._pending: dict[AlertKey, PendingAlert] = {alert.key: alert for alert in pending}
        self._suppressed = suppressed
        self._reported_at: dict[AlertKey, float] = {}
        self._sent_at: list[float] = []
        self._overflow_at = float("-inf")
        self._in_delivery: dict[int, tuple[float, AlertEvent]] = {}
        self._number = 0

    def add(self, alert: IntrusionAlert, at: str, count: int = 1) -> None:
        """Adds `count` equal alerts, detected at `at`."""
        key = (alert.monitor, alert.signature)
        known = self._pending.get(key)
        if known is not None:
            self._pending[key] = _merged(known, PendingAlert(alert, count, at, at))
        elif len(self._pending) < MAX_PENDING:
            self._pending[key] = PendingAlert(alert, count, at, at)
        else:
            self._suppressed += count

    def due(self, now: float) -> list[AlertEvent]:
        """Returns the events that may be sent at `now`; each is in delivery until `on_delivery`."""
        for number, (since, _) in list(self._in_delivery.items()):
            if now > since + UNCONFIRMED_SECONDS:
                self.on_delivery(number, is_confirmed=False)
        self._sent_at = [at for at in self._sent_at if now < at + _MINUTE]
        self._reported_at = {key: at for key, at in self._reported_at.items() if now < at + self._repeat_after}
        ready = [pending for key, pending in self._pending.items() if key not in self._reported_at]
        ready.sort(key=lambda pending: (-SEVERITIES.index(pending.alert.severity), pending.first_at, pending.key))
        room = self._per_minute - len(self._sent_at)
        is_overflow = self._suppressed > 0 or len(ready) > room
        events = [self._alert_event(pending, now) for pending in ready[: max(0, room - 1 if is_overflow else room)]]
        rest = ready[len(events) :]
        if is_overflow and now >= self._overflow_at + _MINUTE and (rest or self._suppressed):
            self._overflow_at = now
            # Separate events: distributed guessing must not hide other alerts, nor the reverse.
            logins = [pending for pending in rest if pending.alert.monitor == LOGIN]
            others = [pending for pending in rest if pending.alert.monitor != LOGIN]
            if others or self._suppressed:
                events.append(self._overflow_event(others, now))
            if logins:
                events.append(self._overflow_event(logins, now))
        return events

    def on_delivery(self, number: int, *, is_confirmed: bool) -> bool:
        """Ends the delivery of an event; unconfirmed, its alerts are pending again. False for an unknown number."""
        delivery = self._in_delivery.pop(number, None)
        if delivery is None:
            return False
        if not is_confirmed:
            _, event = delivery
            self._suppressed += event.suppressed
            for alert in event.alerts:
                self._reported_at.pop(alert.key, None)
                later = self._pending.get(alert.key)
                self._pending[alert.key] = alert if later is None else _merged(alert, later)
        return True

    def unconfirmed(self) -> tuple[list[PendingAlert], int]:
        """Returns the alerts, and the count of suppressed ones, that the broker has not confirmed."""
        alerts = dict(self._pending)
        suppressed = self._suppressed
        for _, event in self._in_delivery.values():
            suppressed += event.suppressed
            for alert in event.alerts:
                later = alerts.get(alert.key)
                alerts[alert.key] = alert if later is None else _merged(alert, later)
        return list(alerts.values()), suppressed

    def _alert_event(self, pending: PendingAlert, now: float) -> AlertEvent:
        alert = pending.alert
        detail = {
            "signature": alert.signature,
            "source": alert.source,
            "target": alert.target,
            "first_at": pending.first_at,
            "last_at": pending.last_at,
        }
        kind = LOGIN_KIND if alert.monitor == LOGIN else f"intrusion.{alert.monitor}"
        return self._start_delivery(kind, alert.severity, alert.summary or alert.signature, detail, (pending,), now)

    def _overflow_event(self, alerts: list[PendingAlert], now: float) -> AlertEvent:
        most = sorted(alerts, key=lambda pending: (-pending.count, pending.key))[:_NAMED_SIGNATURES]
        detail: dict[str, str] = {"signatures": str(len(alerts))}
        for number, pending in enumerate(most, 1):
            detail[f"most_{number}"] = f"{pending.count} of {pending.alert.signature}: {pending.alert.summary}"
        if alerts:
            detail["first_at"] = min(pending.first_at for pending in alerts)
            detail["last_at"] = max(pending.last_at for pending in alerts)
        severity = max((pending.alert.severity for pending in alerts), key=SEVERITIES.index, default="medium")
        if alerts and alerts[0].alert.monitor == LOGIN:
            detail["source"] = "many"
            summary = "failed logins from many sources"
            return self._start_delivery(LOGIN_KIND, severity, summary, detail, tuple(alerts), now)
        summary = "more alerts than the rate limit allows"
        event = self._start_delivery("intrusion.flood", severity, summary, detail, tuple(alerts), now, self._suppressed)
        self._suppressed = 0
        return event

    def _start_delivery(
        self,
        kind: str,
        severity: str,
        summary: str,
        detail: dict[str, str],
        alerts: tuple[PendingAlert, ...],
        now: float,
        suppressed: int = 0,
    ) -> AlertEvent:
        self._number += 1
        for alert in alerts:
            del self._pending[alert.key]
            self._reported_at[alert.key] = now
        count = sum(alert.count for alert in alerts) + suppressed
        filled = {key: value for key, value in detail.items() if value}
        event = AlertEvent(self._number, kind, severity, count, summary, filled, alerts, suppressed)
        self._sent_at.append(now)
        self._in_delivery[self._number] = (now, event)
        return event


def _merged(older: PendingAlert, newer: PendingAlert) -> PendingAlert:
    """Keeps the newer text and the higher severity; adds the counts."""
    severity = max(older.alert.severity, newer.alert.severity, key=SEVERITIES.index)
    return PendingAlert(
        replace(newer.alert, severity=severity), older.count + newer.count, older.first_at, newer.last_at
    )
