"""Commands to devices."""

import base64
from typing import Annotated, Final

from cryptography.exceptions import InvalidSignature
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator, Field

from controller.api.auth import CallerDep, PrincipalDep, RequestCallerDep, refuse_scope, scope
from controller.api.context import ApprovalsDep, FleetDep, StoreDep, require_device, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    DeviceIdFilter,
    DurationText,
    NextKey,
    PageKey,
    PageLimit,
    ReasonText,
    View,
)
from controller.api.views import CommandView
from controller.api.waiting import RequestWait, WaitDep
from controller.domain.commands import COMMAND_TTL
from controller.domain.device import OpenCommand
from controller.domain.effects import CommandRecord
from controller.domain.events import CommandCountersigned, CommandRequested
from controller.domain.guards.approvals import ApprovalNotAllowedError, ApprovalScopeError
from controller.domain.principal import is_operator
from controller.domain.transition import StepOutcome
from controller.ports.store import Store, StoreWrites
from controller.service.containment.enforcer import payload_of
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork
from controller.service.waiting import WaitEnd
from schemas.base import DEVICE_ID_PATTERN
from schemas.commands import COMMAND_PAYLOAD_TYPE, MAX_PARAMS, ActionName, CommandState, ParamName, ParamValue
from schemas.durations import parse_duration
from schemas.signing import key_id, parse_public_key, to_be_signed

MAX_OPERATORS: Final = 2  # signatures besides the controller's, which may be two
ROLLOUT_ACTOR: Final = "rollout:"
MIN_TTL: Final = 5.0  # seconds; a shorter one expires before a device receives it
MAX_TTL: Final = 86_400.0  # seconds
CommandIdPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

router = APIRouter(prefix="/commands", tags=["commands"], responses=problems(401, 422, 429, 503))


def _sensible(value: str) -> str:
    if not MIN_TTL <= parse_duration(value) <= MAX_TTL:
        raise ValueError(f"a command may wait between {MIN_TTL:.0f}s and {MAX_TTL / 3600:.0f}h")
    return value


class NewCommand(Body):
    """An action for a device; `within`: how long the device may take to start it, ten minutes by default."""

    device_id: Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]
    action: ActionName
    params: Annotated[
        dict[ParamName, ParamValue],
        Field(max_length=MAX_PARAMS, default_factory=dict, json_schema_extra={"additionalProperties": False}),
    ]
    dry_run: bool = False
    hold: Annotated[bool, Field(description="send it only once an operator has signed it too")] = False
    within: Annotated[
        DurationText | None, AfterValidator(lambda value: None if value is None else _sensible(value))
    ] = None


class CommandResultView(CommandView):
    waited: WaitEnd


class CommandPage(View):
    items: tuple[CommandView, ...]
    next: NextKey


@router.get("", dependencies=[scope("read")], responses=problems(404))
async def list_commands(
    store: StoreDep,
    device_id: DeviceIdFilter = None,
    state: Annotated[CommandState | None, Query()] = None,
    limit: PageLimit = 100,
    after: PageKey = None,
) -> CommandPage:
    """Lists commands, newest first."""
    wanted = None if state is None else state.value
    records = await store.commands(device_id=device_id, state=wanted, limit=limit, after=after)
    following = records[-1].command_id if len(records) == limit else None
    return CommandPage(items=tuple(CommandView.of(one) for one in records), next=following)


@router.get("/{command_id}", dependencies=[scope("read")], responses=problems(404))
async def show_command(
    fleet: FleetDep, store: StoreDep, _caller: CallerDep, command_id: CommandIdPath, wait: WaitDep
) -> CommandResultView:
    """Returns a command; with `wait`, once it has ended."""
    return await _result(fleet, store, await _record(store, command_id), wait)


async def _record(store: Store, command_id: str) -> CommandRecord:
    record = await store.command(command_id)
    if record is None:
        raise ApiError(404, "command_unknown", f"there is no command {command_id}")
    return record


async def _result(fleet: FleetState, store: Store, record: CommandRecord, wait: RequestWait) -> CommandResultView:
    """Returns the command once it has ended or the wait is over."""

    def has_ended(_now: float) -> bool:
        device = fleet.get(record.device_id)
        return device is None or all(one.command_id != record.command_id for one in device.commands)

    waited = await wait.until({record.device_id: has_ended})
    if waited is WaitEnd.SETTLED:
        await store.commit(StoreWrites())  # memory is ahead of the store: this returns after the command's end
    if waited is not WaitEnd.NO:
        record = await _record(store, record.command_id)
    return CommandResultView.of(record, waited=waited)


@router.post("", status_code=201, dependencies=[scope("command"), Depends(writable)], responses=problems(404, 409))
async def send_command(
    fleet: FleetDep,
    store: StoreDep,
    approvals: ApprovalsDep,
    caller: PrincipalDep,
    command: NewCommand,
    wait: WaitDep,
) -> CommandResultView:
    """Signs and sends a command; an offline device receives it when it reconnects, until it expires."""
    await require_device(fleet, command.device_id)
    ttl = COMMAND_TTL if command.within is None else parse_duration(command.within)
    event = CommandRequested(
        fleet.new_id(),
        command.action,
        tuple(command.params.items()),
        caller.actor,
        ttl,
        command.dry_run,
        command.hold,
    )

    def decide(now: float, batch: UnitOfWork) -> StepOutcome:
        outcome = fleet.apply(fleet.known_or_new(command.device_id, now), event, now, batch)
        if command.hold and outcome.commands:
            approvals.ask_for_signature(outcome.commands[0], caller, now, batch)
        return outcome

    outcome = await fleet.decide((command.device_id,), decide)
    if not outcome.commands:
        text = f"{command.device_id} has as many commands as may be open: wait, or see `cordon command list`"
        raise ApiError(409, "too_many_open", text)
    return await _result(fleet, store, outcome.commands[0], wait)


class WithdrawnCommandView(CommandView):
    """`was_sent`: the device may have it already, and may still carry it out until `expires_at`."""

    was_sent: bool


class WithdrawalBody(Body):
    reason: ReasonText


@router.post("/{command_id}/withdraw", dependencies=[scope("command"), Depends(writable)], responses=problems(404, 409))
async def withdraw_command(
    fleet: FleetDep,
    store: StoreDep,
    approvals: ApprovalsDep,
    caller: PrincipalDep,
    command_id: CommandIdPath,
    body: WithdrawalBody,
) -> WithdrawnCommandView:
    """Ends a command that was not begun: it is not sent, or sent again. No message takes it back from a device."""
    device_id, found = await _open(fleet, store, command_id)
    if found.by.startswith(ROLLOUT_ACTOR):
        raise ApiError(409, "command_of_rollout", f"it belongs to {found.by}: abort or pause the rollout")
    if found.state is CommandState.EXECUTING:
        raise ApiError(409, "command_begun", f"the device {device_id} has begun it already")
    outcome = await approvals.withdraw_command(device_id, command_id, caller, body.reason)
    if not outcome.commands:
        raise ApiError(409, "command_ended", f"the command {command_id} has ended")
    return WithdrawnCommandView.of(outcome.commands[0], was_sent=found.sent_at > 0.0)


class SigningPayloadView(View):
    """The bytes that an operator signs (base64), and their DSSE payload type."""

    command_id: str
    device_id: str
    payload_type: str
    payload: str


class NewSignature(Body):
    """A public key as written in configurations, and its signature over the payload (base64)."""

    key: Annotated[str, Field(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")]
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


async def _open(fleet: FleetState, store: Store, command_id: str) -> tuple[str, OpenCommand]:
    record = await _record(store, command_id)
    for one in (await require_device(fleet, record.device_id)).commands:
        if one.command_id == command_id:
            return record.device_id, one
    raise ApiError(409, "command_ended", f"the command {command_id} has ended: {record.state}")


@router.get("/{command_id}/payload", dependencies=[scope("read")], responses=problems(404, 409))
async def show_payload(fleet: FleetDep, store: StoreDep, command_id: CommandIdPath) -> SigningPayloadView:
    """Returns the payload that an operator signs, while the command is open."""
    device_id, found = await _open(fleet, store, command_id)
    payload = base64.b64encode(payload_of(device_id, found)).decode()
    return SigningPayloadView(
        command_id=command_id, device_id=device_id, payload_type=COMMAND_PAYLOAD_TYPE, payload=payload
    )


@router.post(
    "/{command_id}/signatures",
    status_code=201,
    dependencies=[scope("command", step_up=True), Depends(writable)],
    responses=problems(404, 409),
)
async def sign_command(
    request: Request,
    fleet: FleetDep,
    store: StoreDep,
    approvals: ApprovalsDep,
    caller: RequestCallerDep,
    command_id: CommandIdPath,
    body: NewSignature,
) -> CommandView:
    """Adds the signature of another person than the one who asked for the command, and sends it.

    The device decides whether it trusts the key.
    """
    device_id, found = await _open(fleet, store, command_id)
    try:
        key = parse_public_key(body.key)
        key.verify(base64.b64decode(body.signature), to_be_signed(COMMAND_PAYLOAD_TYPE, payload_of(device_id, found)))
    except (ValueError, InvalidSignature) as e:
        raise ApiError(422, "signature_wrong", "the signature is not of this key and command") from e
    if len(found.signatures) >= MAX_OPERATORS:
        raise ApiError(409, "too_many_signatures", f"{MAX_OPERATORS} operators have signed it already")
    event = CommandCountersigned(fleet.new_id(), command_id, key_id(key), body.signature, caller.actor)
    try:
        outcome = await approvals.sign(device_id, event, caller, by_hand=is_operator(found.by))
    except ApprovalScopeError as e:
        raise await refuse_scope(request, caller, e.scopes, str(e)) from e
    except ApprovalNotAllowedError as e:
        raise ApiError(409, "not_decidable", str(e)) from e
    if not outcome.commands:
        raise ApiError(409, "signed_already", "this key has signed it already, or the command has expired")
    return CommandView.of(outcome.commands[0])
