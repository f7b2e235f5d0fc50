"""The life of a command on the controller's side: issued, sent again when it may be lost, ended with a reason."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import OpenCommand
from controller.domain.effects import CommandRecord, SendCommand
from controller.domain.events import CommandRequested
from controller.domain.evolve import evolve
from controller.domain.transition import Transition
from schemas.commands import OLD_COMMAND, CommandState, ParamValue

COMMAND_TTL: Final = 600.0  # seconds in which a command has to begin
# An end reported this much after expiry is still believed: the device may have begun in time and worked for long.
END_GRACE: Final = 3600.0
RESEND_AFTER: Final = 30.0  # seconds
HELD: Final = "waits for a second signature"
MAX_OPEN: Final = 16  # commands of one device that have not ended
_MILLISECONDS: Final = 1000
_ENDS: Final[Mapping[CommandState, AuditKind]] = {
    CommandState.SUCCEEDED: AuditKind.COMMAND_SUCCEEDED,
    CommandState.FAILED: AuditKind.COMMAND_FAILED,
    CommandState.EXPIRED: AuditKind.COMMAND_EXPIRED,
    CommandState.REJECTED: AuditKind.COMMAND_REJECTED,
}


def issue(
    draft: Transition,
    action: str,
    params: tuple[tuple[str, ParamValue], ...],
    *,
    by: str,
    rule: str = "",
    ttl: float = COMMAND_TTL,
    dry_run: bool = False,
    held: bool = False,
) -> str | None:
    """Open a command and ask for it to be sent, unless it is held until an operator has signed it.

    `None` when the device has too many open ones.
    """
    device = draft.device
    if len(device.commands) >= MAX_OPEN:
        draft.record(AuditKind.COMMAND_NOT_ISSUED, by, action=action, reason=f"{MAX_OPEN} commands are open already")
        return None
    # Counters follow the clock too, so that a store restored from a backup does not fall behind its devices.
    counter = max(device.counter + 1, int(draft.now * _MILLISECONDS))
    command = OpenCommand(
        command_id=f"{draft.event_id}-c{len(draft.commands)}",
        action=action,
        params=params,
        counter=counter,
        state=CommandState.SCHEDULED,
        issued_at=draft.now,
        expires_at=draft.now + ttl,
        by=by,
        rule=rule,
        dry_run=dry_run,
        held=held,
    )
    draft.update(counter=counter, commands=(*device.commands, command))
    draft.record(
        AuditKind.COMMAND_ISSUED, by, command_id=command.command_id, action=action, params=dict(params), rule=rule
    )
    _keep(draft, command, CommandState.SCHEDULED, HELD if held else "")
    if not held:
        _send(draft, command)
    return command.command_id


def ordered(draft: Transition, event: CommandRequested) -> None:
    """An operator, or a rollout, asks for a command."""
    issue(draft, event.action, event.params, by=event.by, ttl=event.ttl, dry_run=event.dry_run, held=event.held)


def countersigned(draft: Transition, command_id: str, keyid: str, signature: str, by: str) -> None:
    """An operator signed a command; now it is sent."""
    command = next((one for one in draft.device.commands if one.command_id == command_id), None)
    if command is None or draft.now >= command.expires_at or any(name == keyid for name, _ in command.signatures):
        return
    signed = evolve(command, held=False, signatures=(*command.signatures, (keyid, signature)))
    _replace(draft, command, signed)
    draft.record(AuditKind.COMMAND_COUNTERSIGNED, by, command_id=command_id, action=command.action, key=keyid)
    _keep(draft, signed, CommandState.SCHEDULED, "")
    _send(draft, signed)


def send_again(draft: Transition) -> None:
    """The device is back: whatever has not ended may have been lost with its session."""
    for command in draft.device.commands:
        if draft.now < command.expires_at and not command.held:
            _send(draft, command)


def send_lost(draft: Transition) -> None:
    """The device is there and has ended nothing of what it was sent a while ago: order or end may have been lost.

    A broker loses both without a word: what a device said before it was banned is dropped when the session of a
    controller that was away goes on. An order that the device knows it answers again, and does not begin again.
    """
    for command in draft.device.commands:
        waits = draft.now < command.expires_at and not command.held
        if waits and draft.now - command.sent_at >= RESEND_AFTER:
            _send(draft, command)


def reported(
    draft: Transition, command_id: str, state: CommandState, reason: str, detail: tuple[tuple[str, str], ...]
) -> None:
    """Take in what a device says of a command; a word from a newer agent changes nothing but the record."""
    command = next((one for one in draft.device.commands if one.command_id == command_id), None)
    if command is None:
        # Ended before: a repeated result is expected after a lost acknowledgement. What the device refused as recorded
        # was sent by somebody else.
        if state is CommandState.REJECTED and reason.endswith(OLD_COMMAND):
            draft.record(AuditKind.COMMAND_REPLAY_REFUSED, draft.device.device_id, command_id=command_id, reason=reason)
        return
    if state.is_end:
        _end(draft, command, state, reason, detail)
    elif state is not command.state:
        moved = replace(command, state=CommandState.EXECUTING if state is CommandState.EXECUTING else command.state)
        _replace(draft, command, moved)
        _keep(draft, moved, state, reason, detail)
    elif state is CommandState.EXECUTING and any(name == "phase" for name, _ in detail):
        _keep(draft, command, state, reason, detail)  # an update got further


def withdraw(draft: Transition, command_id: str, by: str, reason: str) -> None:
    """End a command that is wanted no more; a device that has it already may still carry it out."""
    command = next((one for one in draft.device.commands if one.command_id == command_id), None)
    if command is not None:
        draft.record(AuditKind.COMMAND_WITHDRAWN, by, command_id=command_id, reason=reason)
        _end(draft, command, CommandState.EXPIRED, reason, ())


def due(command: OpenCommand) -> float:
    """When a command ends by itself, in Unix seconds; what a device began gets time to tell how it ended."""
    return command.expires_at + (END_GRACE if command.state is CommandState.EXECUTING else 0.0)


def expire(draft: Transition) -> None:
    """End what was not begun in time, and what was begun and never told of."""
    for command in draft.device.commands:
        if draft.now >= due(command):
            reason = "no result came" if command.state is CommandState.EXECUTING else "not begun in time"
            _end(draft, command, CommandState.EXPIRED, reason, ())


def _end(
    draft: Transition, command: OpenCommand, state: CommandState, reason: str, detail: tuple[tuple[str, str], ...]
) -> None:
    left = tuple(one for one in draft.device.commands if one.command_id != command.command_id)
    draft.update(commands=left)
    draft.record(
        _ENDS[state],
        draft.device.device_id if state is not CommandState.EXPIRED else "cordon",
        command_id=command.command_id,
        action=command.action,
        reason=reason,
        result=dict(detail),
    )
    _keep(draft, command, state, reason, detail)


def _replace(draft: Transition, old: OpenCommand, new: OpenCommand) -> None:
    draft.update(commands=tuple(new if one is old else one for one in draft.device.commands))


def _send(draft: Transition, command: OpenCommand) -> None:
    _replace(draft, command, evolve(command, sent_at=draft.now))
    draft.effects.append(
        SendCommand(
            effect_id=draft.next_effect_id(),
            device_id=draft.device.device_id,
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


def _keep(
    draft: Transition,
    command: OpenCommand,
    state: CommandState,
    reason: str,
    detail: tuple[tuple[str, str], ...] = (),
) -> None:
    draft.commands.append(
        CommandRecord(
            command.command_id,
            draft.device.device_id,
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
            draft.now,
        )
    )
