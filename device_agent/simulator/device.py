"""One simulated device: everything that a device says and does, apart from the socket."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from pydantic import ValidationError

from device_agent.domain.command_verifier import CommandVerifier
from device_agent.domain.report import ReportSender, full_report, heartbeat
from device_agent.domain.report_limits import ScanFindings, findings_of, fit
from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from device_agent.domain.verdict import AcceptedCommand, DuplicateCommand, ForgedCommand, RejectedCommand
from device_agent.host.clock import Clock
from device_agent.simulator import postures, updates
from device_agent.simulator.observations import ObservationKind
from schemas.base import MAX_RECEIPT_BYTES, clean_text
from schemas.commands import Command, CommandResult, CommandState
from schemas.events import DeviceEvent, ReportReceipt, Status
from schemas.topics import DownChannel, UpChannel, down, up

_MAX_KNOWN: Final = 64  # commands remembered
_RESEND_SECONDS: Final = 1.0  # between two full reports that were asked for
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceBehaviour:
    """How devices behave; seconds. `telemetry_topic` and `subscribe` may hold `{id}`."""

    heartbeat_every: float = 10.0
    receipt_timeout: float = 10.0
    telemetry_every: float = 0.0
    telemetry_topic: str = "fleet/{id}/telemetry"
    telemetry_bytes: int = 64
    subscribe: tuple[str, ...] = ()
    action_seconds: float = 0.2
    software: tuple[tuple[str, str], ...] = ()
    """Name and version of what updates have installed before."""
    outcomes: tuple[tuple[str, updates.SimulatedUpdateOutcome], ...] = ()
    """How updates end: `NAME/VERSION` or an empty text for all, and the outcome; the first that fits."""


class DeviceEnvironment(Protocol):
    """What a device needs of its surroundings; everything happens in the fleet's one thread."""

    clock: Clock

    def send(self, topic: str, payload: bytes, note: Mapping[str, Any], *, retain: bool = False) -> bool:
        """Publish with QoS 1; False when there is no connection. `note` comes back with the PUBACK's observation."""
        ...

    def observe(self, seen: ObservationKind, data: Mapping[str, Any]) -> None:
        """Tell whoever watches."""
        ...

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do `act` after `seconds`."""
        ...


@dataclass(slots=True)
class _State:
    """What changes as time passes."""

    outbox: ReportOutbox = field(default_factory=ReportOutbox)
    seq: int = 0
    counter: int = -1
    known: OrderedDict[str, CommandResult] = field(default_factory=OrderedDict)
    accepted: str | None = None
    told: str | None = None
    last_sent: float = float("-inf")
    last_full: float = float("-inf")
    is_online: bool = False
    is_silent: bool = False
    telemetry: int = 0
    timer: int = 0
    untold: set[str] = field(default_factory=set)
    is_resending: bool = False
    nonce: str = ""


class SimulatedDevice:
    """A device's mind: reports, receipts, commands. Its body, the socket, is a `DeviceEnvironment`."""

    def __init__(
        self,
        sender: ReportSender,
        posture: postures.Posture,
        newest: postures.Posture,
        guard: CommandVerifier,
        habits: DeviceBehaviour,
        world: DeviceEnvironment,
    ) -> None:
        self.device_id = sender.device_id
        self._sender = sender
        self._posture = updates.software(posture, dict(habits.software)) if habits.software else posture
        self._outcomes = dict(reversed(habits.outcomes))
        self._newest = newest
        self._guard = guard
        self._habits = habits
        self._world = world
        self._findings: ScanFindings = findings_of(self._posture)
        # As a real agent does on an empty state folder, so that the numbers are above those of an earlier run.
        self._state = _State(seq=int(world.clock.now().timestamp()))
        self._owe()

    @property
    def filters(self) -> list[str]:
        """What it subscribes to after connecting."""
        own = [down(self.device_id, channel) for channel in DownChannel]
        return own + [topic.replace("{id}", self.device_id) for topic in self._habits.subscribe]

    def status(self, *, is_online: bool, is_will: bool = False) -> bytes:
        """The retained status."""
        at = None if is_will else self._world.clock.now()
        status = Status(state="online" if is_online else "offline", boot_id=self._sender.boot_id, at=at)
        return status.model_dump_json(exclude_none=True).encode()

    def connected(self) -> None:
        """The broker accepted and the subscriptions are under way."""
        state = self._state
        state.is_online = True
        state.outbox = state.outbox.reconnected()
        self._world.send(up(self.device_id, UpChannel.STATUS), self.status(is_online=True), {}, retain=True)
        # Only what could not be told; what was lost under way the controller asks for by sending the command again.
        untold, state.untold = state.untold, set()
        for command_id in sorted(untold & state.known.keys()):
            self._tell(state.known[command_id])
        self._tick()

    def disconnected(self) -> None:
        """The connection is gone."""
        self._state.is_online = False

    def change(self, edit: postures.PostureEdit) -> None:
        """Become another device: what is new is reported at once; an edit that makes no posture is only observed."""
        try:
            after = postures.edited(self._posture, edit)
        except (ValidationError, KeyError, TypeError) as e:
            reason = e.errors()[0]["msg"] if isinstance(e, ValidationError) else f"{type(e).__name__}: {e}"
            self._world.observe(ObservationKind.CHANGE_REFUSED, {"reason": clean_text(reason)})
            return
        self._become(after)

    def rescan(self) -> None:
        """Send a full report, changed or not."""
        self._owe()
        self._tick()

    def update_ends(self, target: str, outcome: updates.SimulatedUpdateOutcome) -> None:
        """How updates end from now on: `NAME/VERSION`, or all with an empty text."""
        self._outcomes[target] = outcome

    def silence(self, is_silent: bool) -> None:
        """Say nothing any more, though connected; or speak again."""
        self._state.is_silent = is_silent
        if not is_silent:
            self._tick()

    def telemetry(self) -> None:
        """One message of the fleet's own work."""
        state = self._state
        if not state.is_online or state.is_silent:
            return
        state.telemetry += 1
        topic = self._habits.telemetry_topic.replace("{id}", self.device_id)
        text = f'{{"n":{state.telemetry},"at":{self._world.clock.now().timestamp():.3f}'
        filler = max(0, self._habits.telemetry_bytes - len(text) - len(',"x":""}'))
        if self._world.send(topic, f'{text},"x":"{"x" * filler}"}}'.encode(), {"n": state.telemetry}):
            self._world.observe(ObservationKind.PUBLISHED, {"topic": topic, "n": state.telemetry})

    def received(self, topic: str, payload: bytes) -> None:
        """A message arrived."""
        if topic == down(self.device_id, DownChannel.RECEIPT):
            self._receipt(payload)
        elif topic == down(self.device_id, DownChannel.COMMAND):
            self._command(payload)
        else:
            self._world.observe(ObservationKind.MESSAGE, {"topic": topic, "bytes": len(payload)})

    def _become(self, posture: postures.Posture) -> None:
        self._posture = posture
        findings = findings_of(posture)
        is_new = findings.digest != self._findings.digest
        self._findings = findings
        if is_new:
            self._world.observe(ObservationKind.CHANGED, {"digest": findings.digest})
            self._owe()
            self._tick()

    def _take_seq(self) -> int:
        self._state.seq += 1
        return self._state.seq

    def _owe(self) -> None:
        state, findings = self._state, self._findings
        seq = self._take_seq()
        # What a simulated device is can be told at any time: each report is a scan of its own.
        found = replace(fit(findings), answers=state.nonce)
        payload = full_report(self._sender, seq, self._world.clock.now(), found).decode()
        state.told = findings.digest
        state.outbox = state.outbox.without(findings.digest).owe(PendingReport(seq, findings.digest, payload))

    def _tick(self) -> None:
        """Send what is due, and come back when the next thing is."""
        state = self._state
        state.timer += 1
        if not state.is_online or state.is_silent:
            return
        now = self._world.clock.monotonic()
        for report in state.outbox.due(now, self._habits.receipt_timeout):
            self._post(report.payload.encode(), report.seq, "full", report.digest, report.attempts + 1)
            state.outbox = state.outbox.sent(report.seq, now)
            state.last_full = now
        if (
            not state.outbox.owed
            and state.accepted
            and state.told
            and now >= state.last_sent + self._habits.heartbeat_every
        ):
            seq = self._take_seq()
            self._post(
                heartbeat(self._sender, seq, self._world.clock.now(), state.accepted),
                seq,
                "heartbeat",
                state.accepted,
                1,
            )
        due = state.outbox.next_due(self._habits.receipt_timeout)
        following = min(
            due if due is not None else float("inf"), max(now, state.last_sent) + self._habits.heartbeat_every
        )
        mine = state.timer
        self._world.later(max(0.0, following - now), lambda: self._tick() if state.timer == mine else None)

    def _post(self, payload: bytes, seq: int, kind: str, digest: str, attempt: int) -> None:
        self._state.last_sent = self._world.clock.monotonic()
        if self._world.send(up(self.device_id, UpChannel.POSTURE), payload, {"seq": seq}):
            data = {"seq": seq, "report": kind, "digest": digest, "attempt": attempt}
            self._world.observe(ObservationKind.REPORT_SENT, data)

    def _receipt(self, raw: bytes) -> None:
        try:
            receipt = ReportReceipt.model_validate_json(
                raw[: MAX_RECEIPT_BYTES + 1]
            )  # a longer one is broken by the cut
        except ValidationError:
            _log.warning("%s: a receipt that cannot be read was ignored", self.device_id)
            return
        state = self._state
        data = {"seq": receipt.seq, "verdict": str(receipt.verdict), "reason": receipt.reason and str(receipt.reason)}
        self._world.observe(ObservationKind.RECEIPT, data)
        state.outbox, settled = state.outbox.settle(receipt)
        state.accepted = settled.accepted or state.accepted
        state.nonce = receipt.nonce or state.nonce
        if settled.rejected is not None:
            state.told = None
        if settled.resend and not state.is_resending:
            state.is_resending = True
            self._world.later(max(0.0, state.last_full + _RESEND_SECONDS - self._world.clock.monotonic()), self._resend)
        self._tick()

    def _resend(self) -> None:
        self._state.is_resending = False
        self.rescan()

    def _command(self, raw: bytes) -> None:
        state, now = self._state, self._world.clock.now()
        judged = self._guard.judge(raw, last_counter=state.counter, known=state.known.keys(), now=now)
        match judged:
            case AcceptedCommand(command):
                self._take(command)
            case DuplicateCommand(command_id):
                self._tell(state.known[command_id])
            case RejectedCommand(command_id, end, reason):
                self._world.observe(ObservationKind.COMMAND_REJECTED, {"command_id": command_id, "reason": reason})
                self._tell(CommandResult(command_id=command_id, state=end, reason=reason, detail={}, at=now))
            case ForgedCommand(reason):
                self._world.observe(ObservationKind.COMMAND_REJECTED, {"command_id": None, "reason": reason})
                event = DeviceEvent(
                    device_id=self.device_id, kind="command_refused", severity="high", summary=reason, detail={}, at=now
                )
                self._send(UpChannel.EVENT, event.model_dump_json().encode())

    def _take(self, command: Command) -> None:
        state = self._state
        state.counter = command.counter
        while len(state.known) >= _MAX_KNOWN:
            state.known.popitem(last=False)
        data = {"command_id": command.command_id, "action": command.action, "params": dict(command.params)}
        self._world.observe(ObservationKind.COMMAND_TAKEN, data)
        self._end(command, CommandState.EXECUTING, "", {})
        self._world.later(self._habits.action_seconds, lambda: self._execute(command))

    def _execute(self, command: Command) -> None:
        if command.action in updates.ACTIONS:
            self._update(command)
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
            self._end(command, CommandState.FAILED, str(e), {})
            return
        if command.dry_run:
            self._end(command, CommandState.SUCCEEDED, "", {**detail, "would": f"{command.action} {name}".strip()})
            return
        self._posture, self._findings = after, findings_of(after)
        self._end(command, CommandState.SUCCEEDED, "", detail)
        self.rescan()

    def _update(self, command: Command) -> None:
        """Go through everything that an update says, a moment between two words."""
        target = "/".join(updates.named(command))
        outcome = self._outcomes.get(target) or self._outcomes.get("") or updates.SimulatedUpdateOutcome.GOOD
        stages = updates.stages(command, self._posture, outcome, self._world.clock.now())
        for number, stage in enumerate(stages):
            act = partial(self._reach, command, stage)
            self._world.later(number * self._habits.action_seconds, act)
        if outcome is updates.SimulatedUpdateOutcome.SICK_LATER and command.action == updates.ACTIONS[0]:
            later = (len(stages) + 2) * self._habits.action_seconds
            self._world.later(later, lambda: self._become(updates.sick(self._posture, command)))

    def _reach(self, command: Command, stage: updates.UpdateStep) -> None:
        if stage.posture is not None:
            self._posture, self._findings = stage.posture, findings_of(stage.posture)
        self._end(command, stage.state, stage.reason, stage.detail(command))
        if stage.posture is not None:
            self.rescan()

    def _end(self, command: Command, end: CommandState, reason: str, detail: dict[str, str]) -> None:
        result = CommandResult(
            command_id=command.command_id, state=end, reason=reason, detail=detail, at=self._world.clock.now()
        )
        self._state.known[command.command_id] = result
        if end.is_end:
            data = {"command_id": command.command_id, "action": command.action, "state": str(end), "reason": reason}
            self._world.observe(ObservationKind.COMMAND_DONE, data)
        self._tell(result)

    def _tell(self, result: CommandResult) -> None:
        if not self._send(UpChannel.RESULT, result.model_dump_json().encode()):
            self._state.untold.add(result.command_id)

    def _send(self, channel: UpChannel, payload: bytes) -> bool:
        return not self._state.is_silent and self._world.send(up(self.device_id, channel), payload, {})
