"""One simulated device: its reports, receipts, commands and telemetry, without the connection."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from pydantic import ValidationError

from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.command_verifier import CommandVerifier
from device_agent.domain.report import ReportSender, full_report, heartbeat
from device_agent.domain.report_limits import ScanFindings, normalise_findings, truncate_to_size
from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from device_agent.domain.verdict import AcceptedCommand, DuplicateCommand, ForgedCommand, RejectedCommand
from device_agent.host.clock import Clock
from device_agent.simulator import postures, updates
from device_agent.simulator.observations import ObservationKind
from schemas.base import MAX_RECEIPT_BYTES, clean_text
from schemas.commands import Command, CommandResult, CommandState
from schemas.events import DeviceEvent, ReportReceipt, Status
from schemas.topics import DownChannel, UpChannel, down, up

_MAX_COMMANDS: Final = 64  # kept for repeated deliveries
_RESEND_SECONDS: Final = 1.0  # between two full reports that receipts asked for
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceBehaviour:
    """Timing and behaviour of devices, in seconds; `telemetry_topic` and `subscribe` may contain `{id}`."""

    heartbeat_every: float = 10.0
    receipt_timeout: float = 10.0
    telemetry_every: float = 0.0
    telemetry_topic: str = "fleet/{id}/telemetry"
    telemetry_bytes: int = 64
    subscribe: tuple[str, ...] = ()
    action_seconds: float = 0.2
    software: tuple[tuple[str, str], ...] = ()
    """Name and version of the targets that earlier updates installed."""
    outcomes: tuple[tuple[str, updates.SimulatedUpdateOutcome], ...] = ()
    """Outcomes of updates by `NAME/VERSION`, or an empty text for all; the first match counts."""


class DeviceEnvironment(Protocol):
    """The connection and clock of a device; everything runs in the fleet's one thread."""

    clock: Clock

    def send(self, topic: str, payload: bytes, note: Mapping[str, Any], *, retain: bool = False) -> bool:
        """Publishes with QoS 1; returns False when not connected. The PUBACK's observation contains `note`."""
        ...

    def observe(self, kind: ObservationKind, data: Mapping[str, Any]) -> None:
        """Passes an observation to the observer."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` after `seconds`."""
        ...


@dataclass(slots=True)
class _State:
    outbox: ReportOutbox = field(default_factory=ReportOutbox)
    seq: int = 0
    counters: CommandCounters = field(default_factory=CommandCounters)
    results: OrderedDict[str, CommandResult] = field(default_factory=OrderedDict)  # by command id
    accepted: str | None = None  # digest of the last accepted report
    reported: str | None = None  # digest of the last full report
    last_sent: float = float("-inf")
    last_full: float = float("-inf")
    is_online: bool = False
    is_silent: bool = False
    telemetry: int = 0
    timer: int = 0
    unconfirmed_results: set[str] = field(default_factory=set)
    is_resending: bool = False
    nonce: str = ""


class SimulatedDevice:
    """Sends reports, processes receipts and executes commands over a `DeviceEnvironment`."""

    def __init__(
        self,
        sender: ReportSender,
        posture: postures.Posture,
        newest: postures.Posture,
        verifier: CommandVerifier,
        behaviour: DeviceBehaviour,
        environment: DeviceEnvironment,
    ) -> None:
        self.device_id = sender.device_id
        self._sender = sender
        self._posture = updates.software(posture, dict(behaviour.software)) if behaviour.software else posture
        self._outcomes = dict(reversed(behaviour.outcomes))
        self._newest = newest
        self._verifier = verifier
        self._behaviour = behaviour
        self._environment = environment
        self._findings: ScanFindings = normalise_findings(self._posture)
        # As a real agent does with an empty state folder: the sequence starts above that of an earlier run.
        self._state = _State(seq=int(environment.clock.now().timestamp()))
        self._enqueue_report()

    @property
    def filters(self) -> list[str]:
        """The topic filters to subscribe to after connecting."""
        own = [down(self.device_id, channel) for channel in DownChannel]
        return own + [topic.replace("{id}", self.device_id) for topic in self._behaviour.subscribe]

    def status(self, *, is_online: bool, is_will: bool = False) -> bytes:
        """Returns the payload of the retained status."""
        at = None if is_will else self._environment.clock.now()
        status = Status(state="online" if is_online else "offline", boot_id=self._sender.boot_id, at=at)
        return status.model_dump_json(exclude_none=True).encode()

    def on_connected(self) -> None:
        """Publishes the status and everything due; the broker accepted the connection."""
        state = self._state
        state.is_online = True
        state.outbox = state.outbox.mark_all_due()
        self._environment.send(up(self.device_id, UpChannel.STATUS), self.status(is_online=True), {}, retain=True)
        # Results that were not published; for one lost in transit, the controller repeats the command.
        unconfirmed, state.unconfirmed_results = state.unconfirmed_results, set()
        for command_id in sorted(unconfirmed & state.results.keys()):
            self._publish_result(state.results[command_id])
        self._send_due()

    def on_disconnected(self) -> None:
        """Stops sending until the next connection."""
        self._state.is_online = False

    def change(self, edit: postures.PostureEdit) -> None:
        """Changes the posture and reports it; an invalid edit only causes an observation."""
        try:
            after = postures.apply_edit(self._posture, edit)
        except (ValidationError, KeyError, TypeError) as e:
            reason = e.errors()[0]["msg"] if isinstance(e, ValidationError) else f"{type(e).__name__}: {e}"
            self._environment.observe(ObservationKind.CHANGE_REFUSED, {"reason": clean_text(reason)})
            return
        self._set_posture(after)

    def rescan(self) -> None:
        """Sends a full report, changed or not."""
        self._enqueue_report()
        self._send_due()

    def set_update_outcome(self, target: str, outcome: updates.SimulatedUpdateOutcome) -> None:
        """Sets the outcome of updates of `NAME/VERSION`, or of all with an empty text."""
        self._outcomes[target] = outcome

    def set_silent(self, is_silent: bool) -> None:
        """Stops or resumes sending while connected."""
        self._state.is_silent = is_silent
        if not is_silent:
            self._send_due()

    def send_telemetry(self) -> None:
        """Publishes one telemetry message."""
        state = self._state
        if not state.is_online or state.is_silent:
            return
        state.telemetry += 1
        topic = self._behaviour.telemetry_topic.replace("{id}", self.device_id)
        text = f'{{"n":{state.telemetry},"at":{self._environment.clock.now().timestamp():.3f}'
        filler = max(0, self._behaviour.telemetry_bytes - len(text) - len(',"x":""}'))
        if self._environment.send(topic, f'{text},"x":"{"x" * filler}"}}'.encode(), {"n": state.telemetry}):
            self._environment.observe(ObservationKind.PUBLISHED, {"topic": topic, "n": state.telemetry})

    def on_message(self, topic: str, payload: bytes) -> None:
        """Processes a received message."""
        if topic == down(self.device_id, DownChannel.RECEIPT):
            self._on_receipt(payload)
        elif topic == down(self.device_id, DownChannel.COMMAND):
            self._on_command(payload)
        else:
            self._environment.observe(ObservationKind.MESSAGE, {"topic": topic, "bytes": len(payload)})

    def _set_posture(self, posture: postures.Posture) -> None:
        self._posture = posture
        findings = normalise_findings(posture)
        is_changed = findings.digest != self._findings.digest
        self._findings = findings
        if is_changed:
            self._environment.observe(ObservationKind.CHANGED, {"digest": findings.digest})
            self._enqueue_report()
            self._send_due()

    def _next_seq(self) -> int:
        self._state.seq += 1
        return self._state.seq

    def _enqueue_report(self) -> None:
        state, findings = self._state, self._findings
        seq = self._next_seq()
        # A simulated posture is always current, so that every report may answer the latest nonce.
        content = replace(truncate_to_size(findings), challenge_nonce=state.nonce)
        payload = full_report(self._sender, seq, self._environment.clock.now(), content).decode()
        state.reported = findings.digest
        state.outbox = state.outbox.discard_superseded(findings.digest).add(
            PendingReport(seq, findings.digest, payload)
        )

    def _send_due(self) -> None:
        """Sends due reports and heartbeats, and schedules the next call."""
        state = self._state
        state.timer += 1
        if not state.is_online or state.is_silent:
            return
        now = self._environment.clock.monotonic()
        for report in state.outbox.due(now, self._behaviour.receipt_timeout):
            self._publish_report(report.payload.encode(), report.seq, "full", report.digest, report.attempts + 1)
            state.outbox = state.outbox.mark_sent(report.seq, now)
            state.last_full = now
        is_heartbeat_due = now >= state.last_sent + self._behaviour.heartbeat_every
        if not state.outbox.reports and state.accepted and state.reported and is_heartbeat_due:
            seq = self._next_seq()
            payload = heartbeat(self._sender, seq, self._environment.clock.now(), state.accepted)
            self._publish_report(payload, seq, "heartbeat", state.accepted, 1)
        due = state.outbox.next_due(self._behaviour.receipt_timeout)
        next_heartbeat = max(now, state.last_sent) + self._behaviour.heartbeat_every
        next_at = min(due if due is not None else float("inf"), next_heartbeat)
        timer = state.timer
        self._environment.call_later(
            max(0.0, next_at - now), lambda: self._send_due() if state.timer == timer else None
        )

    def _publish_report(self, payload: bytes, seq: int, kind: str, digest: str, attempt: int) -> None:
        self._state.last_sent = self._environment.clock.monotonic()
        if self._environment.send(up(self.device_id, UpChannel.POSTURE), payload, {"seq": seq}):
            data = {"seq": seq, "report": kind, "digest": digest, "attempt": attempt}
            self._environment.observe(ObservationKind.REPORT_SENT, data)

    def _on_receipt(self, raw: bytes) -> None:
        try:
            # A payload above the limit is malformed after the cut.
            receipt = ReportReceipt.model_validate_json(raw[: MAX_RECEIPT_BYTES + 1])
        except ValidationError:
            _log.warning("%s: ignored a malformed receipt", self.device_id)
            return
        state = self._state
        data = {"seq": receipt.seq, "verdict": str(receipt.verdict), "reason": receipt.reason and str(receipt.reason)}
        self._environment.observe(ObservationKind.RECEIPT, data)
        state.outbox, outcome = state.outbox.apply_receipt(receipt)
        state.accepted = outcome.accepted or state.accepted
        state.nonce = receipt.nonce or state.nonce
        if outcome.rejected is not None:
            state.reported = None
        if outcome.full_report_requested and not state.is_resending:
            state.is_resending = True
            delay = state.last_full + _RESEND_SECONDS - self._environment.clock.monotonic()
            self._environment.call_later(max(0.0, delay), self._resend)
        self._send_due()

    def _resend(self) -> None:
        self._state.is_resending = False
        self.rescan()

    def _on_command(self, raw: bytes) -> None:
        state, now = self._state, self._environment.clock.now()
        verdict = self._verifier.verify(raw, counters=state.counters, known_command_ids=state.results.keys(), now=now)
        match verdict:
            case AcceptedCommand(command, spaces):
                state.counters = state.counters.with_accepted(command.counter, spaces)
                self._accept_command(command)
            case DuplicateCommand(command_id):
                self._publish_result(state.results[command_id])
            case RejectedCommand(command_id, end, reason):
                data = {"command_id": command_id, "reason": reason}
                self._environment.observe(ObservationKind.COMMAND_REJECTED, data)
                self._publish_result(CommandResult(command_id=command_id, state=end, reason=reason, detail={}, at=now))
            case ForgedCommand(reason):
                self._environment.observe(ObservationKind.COMMAND_REJECTED, {"command_id": None, "reason": reason})
                event = DeviceEvent(
                    device_id=self.device_id, kind="command_refused", severity="high", summary=reason, detail={}, at=now
                )
                self._send(UpChannel.EVENT, event.model_dump_json().encode())

    def _accept_command(self, command: Command) -> None:
        state = self._state
        while len(state.results) >= _MAX_COMMANDS:
            state.results.popitem(last=False)
        data = {"command_id": command.command_id, "action": command.action, "params": dict(command.params)}
        self._environment.observe(ObservationKind.COMMAND_TAKEN, data)
        self._record_result(command, CommandState.EXECUTING, "", {})
        self._environment.call_later(self._behaviour.action_seconds, lambda: self._execute(command))

    def _execute(self, command: Command) -> None:
        if command.action in updates.ACTIONS:
            self._start_update(command)
            return
        name = str(command.params.get("name", ""))
        try:
            if command.action == "service.disable":
                after, detail = postures.disable_service(self._posture, name)
            elif command.action == "package.upgrade":
                after, detail = postures.upgrade_package(self._posture, name, self._newest)
            else:
                after, detail = self._posture, {}
        except postures.PostureItemNotFoundError as e:
            self._record_result(command, CommandState.FAILED, str(e), {})
            return
        if command.dry_run:
            detail = {**detail, "would": f"{command.action} {name}".strip()}
            self._record_result(command, CommandState.SUCCEEDED, "", detail)
            return
        self._posture, self._findings = after, normalise_findings(after)
        self._record_result(command, CommandState.SUCCEEDED, "", detail)
        self.rescan()

    def _start_update(self, command: Command) -> None:
        """Schedules the steps of an update, `action_seconds` apart."""
        target = "/".join(updates.command_target(command))
        outcome = self._outcomes.get(target) or self._outcomes.get("") or updates.SimulatedUpdateOutcome.GOOD
        steps = updates.update_steps(command, self._posture, outcome, self._environment.clock.now())
        interval = self._behaviour.action_seconds
        for number, step in enumerate(steps):
            self._environment.call_later(number * interval, partial(self._advance_update, command, step))
        if outcome is updates.SimulatedUpdateOutcome.SICK_LATER and command.action == updates.ACTIONS[0]:
            self._environment.call_later(
                (len(steps) + 2) * interval,
                lambda: self._set_posture(updates.unhealthy_posture(self._posture, command)),
            )

    def _advance_update(self, command: Command, step: updates.UpdateStep) -> None:
        if step.posture is not None:
            self._posture, self._findings = step.posture, normalise_findings(step.posture)
        self._record_result(command, step.state, step.reason, step.detail(command))
        if step.posture is not None:
            self.rescan()

    def _record_result(self, command: Command, state: CommandState, reason: str, detail: dict[str, str]) -> None:
        now = self._environment.clock.now()
        result = CommandResult(command_id=command.command_id, state=state, reason=reason, detail=detail, at=now)
        self._state.results[command.command_id] = result
        if state.is_end:
            data = {"command_id": command.command_id, "action": command.action, "state": str(state), "reason": reason}
            self._environment.observe(ObservationKind.COMMAND_DONE, data)
        self._publish_result(result)

    def _publish_result(self, result: CommandResult) -> None:
        if not self._send(UpChannel.RESULT, result.model_dump_json().encode()):
            self._state.unconfirmed_results.add(result.command_id)

    def _send(self, channel: UpChannel, payload: bytes) -> bool:
        return not self._state.is_silent and self._environment.send(up(self.device_id, channel), payload, {})
