"""From an audit line to deliveries: rules, one thread for each case, deduplication, bursts, quiet hours.

A sink hears of a change of state, once. Whoever was told that something is open is told that it got better and that it
is over, whatever the rules say. What repeats is counted; while it lasts, it is told again after `REPEAT`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Final, assert_never

from controller.domain.audit_id import AuditId
from controller.domain.effects import AuditEntry
from controller.domain.notifications.kinds import Classified, classify
from controller.domain.notifications.model import AlertSeverity, Delivery, Message, Sink, Thread, ThreadStatus
from controller.domain.notifications.texts import Sentence, clean, facts_of, headline_of

REPEAT: Final = 4 * 3600.0  # seconds before what did not change is told again
BURST: Final = 20  # messages of one kind to one sink within `WINDOW`; further ones are told together
WINDOW: Final = 60.0  # seconds
MAX_NAMED: Final = 20  # devices that a message about many names
MAX_TOLD: Final = 16  # states of a thread that are remembered
_KEY_DIGITS: Final = 32  # hex digits

ThreadKey = tuple[str, str]  # sink and thread


@dataclass(frozen=True, slots=True)
class Line:
    """An audit line with what planning needs besides; `device_class` is empty where it is not known."""

    id: AuditId
    at: float
    entry: AuditEntry
    device_class: str = ""


@dataclass(slots=True)
class _Burst:
    began: float
    count: int = 0
    folded: int = 0
    named: list[str] = field(default_factory=list)
    severity: AlertSeverity = AlertSeverity.INFO
    key: str = ""
    first: Message | None = None


class Bursts:
    """Messages of each sink and kind in the current minute; bounded by sinks and kinds. Only for one process's life."""

    def __init__(self) -> None:
        self._bursts: dict[tuple[str, str], _Burst] = {}

    def admit(self, sink: Sink, message: Message, key: str, now: float) -> Delivery | None:
        """Returns `None` for a message that is told by itself, else the delivery that tells it with others.

        That delivery grows: each one replaces the one before it of the same key.
        """
        burst = self._bursts.get((sink.sink_id, message.kind))
        if burst is None or not 0 <= now - burst.began < WINDOW:
            burst = self._bursts[sink.sink_id, message.kind] = _Burst(now)
        burst.count += 1
        if burst.count <= BURST:
            return None
        if burst.first is None:
            burst.first, burst.key = message, key
        burst.folded += message.count
        burst.severity = max(burst.severity, message.severity)
        name = message.device_id or message.thread
        if len(burst.named) < MAX_NAMED and name not in burst.named:
            burst.named.append(name)
        return Delivery(burst.key, sink.name, burst.began + WINDOW, _together(burst, burst.first))


def _together(burst: _Burst, first: Message) -> Message:
    names = ", ".join(burst.named)
    _, _, sentence = first.headline.partition(": ")
    headline = clean(f"{burst.folded} more within a minute: {sentence or first.headline}")
    facts = (("about", clean(names, 1000)),)
    return replace(
        first, severity=burst.severity, status=ThreadStatus.EVENT, headline=headline, subject=headline, facts=facts,
        thread=f"burst:{burst.key}", case_id="", device_id="", device_class="", count=burst.folded,
    )  # fmt: skip


@dataclass(slots=True)
class Plan:
    """Deliveries, and the threads as they are afterwards."""

    deliveries: dict[str, Delivery] = field(default_factory=dict)
    threads: dict[ThreadKey, Thread] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planner:
    """`zones` has the time zone of every sink with quiet hours, by its IANA name."""

    sinks: Sequence[Sink]
    zones: Mapping[str, tzinfo]
    sentence: Sentence
    bursts: Bursts

    def plan(
        self, lines: Sequence[Line], threads: Mapping[ThreadKey, Thread], acknowledged: frozenset[str], now: float
    ) -> Plan:
        """Decides about lines in their order; `threads` has those of every line, `acknowledged` cases."""
        plan = Plan()
        known = dict(threads)
        for line in lines:
            found = classify(line.entry)
            if found is None:
                continue
            for sink in self.sinks:
                key = (sink.sink_id, found.thread)
                before = known.get(key)
                if not self._is_for(sink, line, found, before):
                    continue
                after, is_told = _follow(sink, line, found, before, acknowledged)
                if is_told:
                    message = self._message(line, found, after)
                    last = message if found.status is ThreadStatus.OPEN else after.last if after.is_open else None
                    after = replace(after, silent=0, subject=message.subject, last=last)
                    self._deliver(plan, sink, message, key_of(sink, line.id, line.at, line.entry), now)
                known[key] = plan.threads[key] = after
        return plan

    def remind(self, threads: Sequence[Thread], now: float) -> Plan:
        """Tells again what is open, critical and not acknowledged; the caller chose the threads that are due."""
        plan = Plan()
        sinks = {sink.sink_id: sink for sink in self.sinks}
        for thread in threads:
            sink = sinks.get(thread.sink)
            if sink is None or thread.last is None:
                continue
            number = thread.reminders + 1
            message = replace(thread.last, is_reminder=True, count=1 + thread.silent)
            key = _digest(f"{thread.sink}\n{thread.key}\n{thread.opened_at!r}\nreminder {number}")
            self._deliver(plan, sink, message, key, now)
            after = replace(thread, told_at=now, reminders=number, silent=0)
            plan.threads[thread.sink, thread.key] = after
        return plan

    @staticmethod
    def _is_for(sink: Sink, line: Line, found: Classified, before: Thread | None) -> bool:
        detail = line.entry.detail or {}
        if line.entry.kind.value.startswith("notification.sink_") and detail.get("sink") == sink.name:
            return False  # a sink that takes nothing cannot tell of it; what it missed is in its next message
        if (
            before is not None
            and before.is_open
            and (found.status is ThreadStatus.RESOLVED or found.severity < before.severity)
        ):
            return True
        return sink.takes(line.entry.kind.value, found.severity, line.device_class)

    def _message(self, line: Line, found: Classified, after: Thread) -> Message:
        entry = line.entry
        headline = headline_of(entry, self.sentence)
        detail = entry.detail or {}
        kind, _, account = str(detail.get("person", "")).partition(":")
        return Message(
            kind=entry.kind.value,
            severity=found.severity,
            status=found.status,
            headline=headline,
            thread=found.thread,
            subject=after.subject or headline,
            at=line.at,
            line=str(line.id),
            facts=facts_of(entry),
            case_id=clean(entry.case_id, 64),
            device_id=clean(entry.device_id, 128),
            device_class=clean(line.device_class, 64),
            actor=clean(entry.actor),
            requester=clean(detail.get("requester", "")),
            account=clean(account, 64) if kind == "account" else "",
            count=1 + after.silent,
        )

    def _deliver(self, plan: Plan, sink: Sink, message: Message, key: str, now: float) -> None:
        together = self.bursts.admit(sink, message, key, now)
        delivery = Delivery(key, sink.name, now, message) if together is None else together
        if sink.quiet is not None and delivery.message.severity is not AlertSeverity.CRITICAL:
            end = sink.quiet.until(now, self.zones[sink.quiet.zone])
            delivery = delivery if end is None else replace(delivery, due=max(delivery.due, end))
        plan.deliveries[delivery.key] = delivery


def key_of(sink: Sink, line: AuditId, at: float, entry: AuditEntry) -> str:
    """Returns the idempotency key: the same for the same line and sink, whenever it is planned.

    A number of a line is given again after an older store was restored, so what the line says is part of the key.
    """
    return _digest(f"{sink.sink_id}\n{line}\n{at!r}\n{entry.kind}\n{entry.device_id}\n{entry.case_id}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY_DIGITS]


def _follow(
    sink: Sink, line: Line, found: Classified, before: Thread | None, acknowledged: frozenset[str]
) -> tuple[Thread, bool]:
    """Returns the thread after a line, and whether it is told."""
    thread = before
    if thread is None or (found.status is ThreadStatus.OPEN and not thread.is_open):  # it begins, or begins anew
        thread = Thread(
            sink.sink_id, found.thread, "", line.at, line.at, found.severity, False, case_id=line.entry.case_id
        )
    is_better = thread.is_open and found.status is ThreadStatus.OPEN and found.severity < thread.severity
    told_at = next((at for state, at in thread.told if state == found.state), None)
    is_acknowledged = bool(line.entry.case_id) and line.entry.case_id in acknowledged
    if told_at is not None and not is_better and (is_acknowledged or line.at - told_at < REPEAT):
        return replace(thread, silent=thread.silent + 1), False
    told = (found.state, line.at)
    kept = tuple(one for one in thread.told if one[0] != found.state)
    match found.status:
        case ThreadStatus.OPEN:
            states = (told,) if is_better else (*kept, told)[-MAX_TOLD:]
            after = replace(thread, is_open=True, severity=found.severity, told=states)
        case ThreadStatus.RESOLVED:
            after = replace(thread, is_open=False, severity=found.severity, told=(told,))
        case ThreadStatus.EVENT:
            after = replace(thread, told=(*kept, told)[-MAX_TOLD:])
        case _:
            assert_never(found.status)
    return replace(after, told_at=line.at), True
