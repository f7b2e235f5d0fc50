"""A command as the bytes that are signed: the same ones whoever signs them, and whenever."""

from datetime import UTC, datetime

from controller.domain.device import OpenCommand
from controller.domain.effects import SendCommand
from schemas.commands import Command


def payload_of(device_id: str, order: SendCommand | OpenCommand) -> bytes:
    """The payload of the envelope."""
    command = Command(
        command_id=order.command_id,
        device_id=device_id,
        action=order.action,
        params=dict(order.params),
        dry_run=order.dry_run,
        issued_at=datetime.fromtimestamp(order.issued_at, UTC),
        expires_at=datetime.fromtimestamp(order.expires_at, UTC),
        counter=order.counter,
    )
    return command.model_dump_json().encode()
