"""The life cycle of a command in the controller: issued, sent again when it may be lost, ended with a reason."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import OpenCommand
from controller.domain.effects import CommandRecord, SendCommand
from controller.domain.events import (
    CommandCountersigned,
    CommandDelivered,
    CommandReported,
    CommandRequested,
    CommandWithdrawn,
)
from controller.domain.evolve import evolve
from controller.domain.principal import is_operator
from controller.domain.transition import Transition
from schemas.commands import MAX_COUNTER_AHEAD, OLD_COMMAND, WRONG_CLOCK, CommandState, ParamValue

COMMAND_TTL: Final = 600.0  # seconds in which a device has to begin a command
# A result is accepted this long after expiry: the device may have begun in time and worked for long.
END_GRACE: Final = 3600.0
RESEND_AFTER: Final = 30.0  # seconds without a result after which a command is sent again
HELD: Final = "waits for a second signature"
MAX_OPEN: Final = 16  # open commands of one device
MAX_OPEN_BY_HAND: Final = 12  # of operators: the other places are left for the remedies of policies
_MILLISECONDS: Final = 1000
_ENDS: Final[Mapping[CommandState, AuditKind]] = {
    CommandState.SUCCEEDED: AuditKind.COMMAND_SUCCEEDED,
    CommandState.FAILED: AuditKind.COMMAND_FAILED,
    CommandState.EXPIRED: AuditKind.COMMAND_EXPIRED,
    CommandState.REJECTED: AuditKind.COMMAND_REJECTED,
}
_Detail = tuple[tuple[str, str], ...]


def issue(
    transition: Transition,
    action: str,
    params: tuple[tuple[str, ParamValue], ...],
    *,
    by: str,
    rule: str = "",
    ttl: float = COMMAND_TTL,
    dry_run: bool = False,
    held: bool = False,
) -> None:
    """Opens a command and sends it; a `held` command is sent after an operator has signed it.

    The command is the last of `transition.commands`, unless the device has `MAX_OPEN` open commands already, or an
    operator's `MAX_OPEN_BY_HAND`.
    """
    device = transition.device
    by_hand = sum(is_operator(command.by) for command in device.commands) if is_operator(by) else 0
    if len(device.commands) >= MAX_OPEN or by_hand >= MAX_OPEN_BY_HAND:
        reason = f"{len(device.commands)} commands are open already"
        transition.add_audit(AuditKind.COMMAND_NOT_ISSUED, by, action=action, reason=reason)
        return
    # Counters follow the clock, so that a store restored from a backup does not fall behind its devices.
    by_clock = int(transition.now * _MILLISECONDS)
    counter = max(device.counter + 1, by_clock)
    if counter > by_clock + MAX_COUNTER_AHEAD:
        counter = by_clock  # by a clock that was far ahead: devices refused those commands, and would refuse the next
    command = OpenCommand(
        command_id=f"{transition.event_id}-c{len(transition.commands)}",
        action=action,
        params=params,
        counter=counter,
        state=CommandState.SCHEDULED,
        issued_at=transition.now,
        expires_at=transition.now + ttl,
        by=by,
        rule=rule,
        dry_run=dry_run,
        held=held,
    )
    transition.update_device(counter=counter, commands=(*device.commands, command))
    transition.add_audit(
        AuditKind.COMMAND_ISSUED, by, command_id=command.command_id, action=action, params=dict(params), rule=rule
    )
    _record_command(transition, command, CommandState.SCHEDULED, HELD if held else "")
    if not held:
        _send(transition, command)


def on_command_requested(transition: Transition, event: CommandRequested) -> None:
    issue(transition, event.action, event.params, by=event.by, ttl=event.ttl, dry_run=event.dry_run, held=event.held)


def on_command_countersigned(transition: Transition, event: CommandCountersigned) -> None:
    """Adds an operator's signature to an open command and sends it."""
    command = _find(transition, event.command_id)
    if command is None or transition.now >= command.expires_at:
        return
    if any(keyid == event.keyid for keyid, _ in command.signatures):
        return
    signed = evolve(command, held=False, signatures=(*command.signatures, (event.keyid, event.signature)))
    _replace(transition, command, signed)
    transition.add_audit(
        AuditKind.COMMAND_COUNTERSIGNED, event.by, command_id=command.command_id, action=command.action, key=event.keyid
    )
    _record_command(transition, signed, CommandState.SCHEDULED, "")
    _send(transition, signed)


def on_command_delivered(transition: Transition, event: CommandDelivered) -> None:
    transition.add_audit(AuditKind.COMMAND_SENT, command_id=event.command_id)


def on_command_reported(transition: Transition, event: CommandReported) -> None:
    """Applies a result; unknown states from newer agents are recorded and otherwise ignored."""
    state, reason, detail = event.state, event.reason, event.detail
    command = _find(transition, event.command_id)
    if command is None:
        # The command has ended: a repeated result is expected after a lost acknowledgement. If the device rejected the
        # command as a replay, somebody else sent it.
        if state is CommandState.REJECTED and reason.endswith(OLD_COMMAND):
            device_id = transition.device.device_id
            transition.add_audit(
                AuditKind.COMMAND_REPLAY_REFUSED, device_id, command_id=event.command_id, reason=reason
            )
        return
    if state is CommandState.EXPIRED and transition.now < command.expires_at:
        detail = (*detail, *(one for one in WRONG_CLOCK.items() if one not in detail))  # of the device
    if state.is_end:
        _end(transition, command, state, reason, detail)
    elif state is not command.state:
        known_state = CommandState.EXECUTING if state is CommandState.EXECUTING else command.state
        changed = replace(command, state=known_state)
        _replace(transition, command, changed)
        _record_command(transition, changed, state, reason, detail)
    elif state is CommandState.EXECUTING and any(name == "phase" for name, _ in detail):
        _record_command(transition, command, state, reason, detail)  # progress of an update


def on_command_withdrawn(transition: Transition, event: CommandWithdrawn) -> None:
    """Ends an open command; a device that has received it may still carry it out."""
    command = _find(transition, event.command_id)
    if command is not None:
        transition.add_audit(AuditKind.COMMAND_WITHDRAWN, event.by, command_id=command.command_id, reason=event.reason)
        _end(transition, command, CommandState.EXPIRED, event.reason, ())


def resend_open(transition: Transition) -> None:
    """Sends all open commands again: after a reconnect they may have been lost with the session."""
    for command in transition.device.commands:
        if transition.now < command.expires_at and not command.held:
            _send(transition, command)


def resend_unanswered(transition: Transition) -> None:
    """Sends open commands again that were sent `RESEND_AFTER` seconds ago: the command or its result may be lost.

    A broker loses messages silently, for example those of a banned device to a session of an absent controller. A
    device answers a command that it has executed without executing it again.
    """
    for command in transition.device.commands:
        is_waiting = transition.now < command.expires_at and not command.held
        if is_waiting and transition.now - command.sent_at >= RESEND_AFTER:
            _send(transition, command)


def deadline_of(command: OpenCommand) -> float:
    """Returns when a command expires, Unix seconds; a command that was begun may end `END_GRACE` later."""
    return command.expires_at + (END_GRACE if command.state is CommandState.EXECUTING else 0.0)


def expire(transition: Transition) -> None:
    """Ends commands that were not begun in time, and begun commands without a result."""
    for command in transition.device.commands:
        if transition.now >= deadline_of(command):
            reason = "no result came" if command.state is CommandState.EXECUTING else "not begun in time"
            _end(transition, command, CommandState.EXPIRED, reason, ())


def _find(transition: Transition, command_id: str) -> OpenCommand | None:
    return next((command for command in transition.device.commands if command.command_id == command_id), None)


def _end(transition: Transition, command: OpenCommand, state: CommandState, reason: str, detail: _Detail) -> None:
    device = transition.device
    transition.update_device(
        commands=tuple(other for other in device.commands if other.command_id != command.command_id)
    )
    transition.add_audit(
        _ENDS[state],
        device.device_id if state is not CommandState.EXPIRED else "cordon",
        command_id=command.command_id,
        action=command.action,
        reason=reason,
        result=dict(detail),
    )
    _record_command(transition, command, state, reason, detail)


def _replace(transition: Transition, old: OpenCommand, new: OpenCommand) -> None:
    commands = tuple(new if command is old else command for command in transition.device.commands)
    transition.update_device(commands=commands)


def _send(transition: Transition, command: OpenCommand) -> None:
    _replace(transition, command, evolve(command, sent_at=transition.now))
    transition.effects.append(
        SendCommand(
            effect_id=transition.next_effect_id(),
            device_id=transition.device.device_id,
            command_id=command.command_id,
            action=command.action,
            params=command.params,
            dry_run=command.dry_run,
            issued_at=command.issued_at,
            expires_at=command.expires_at,
            counter=command.counter,
            signatures=command.signatures,
        )
    )


def _record_command(
    transition: Transition, command: OpenCommand, state: CommandState, reason: str, detail: _Detail = ()
) -> None:
    transition.commands.append(
        CommandRecord(
            command.command_id,
            transition.device.device_id,
            command.action,
            command.params,
            state.value,
            reason,
            detail,
            command.by,
            command.rule,
            command.dry_run,
            command.issued_at,
            command.expires_at,
            transition.now,
        )
    )
