"""Broker setup: plan, apply, undo."""

from fastapi import APIRouter, Depends

from controller.api.auth import CallerDep, scope
from controller.api.context import BrokerDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, View
from controller.service.broker.setup import NothingToUndoError

router = APIRouter(prefix="/broker/setup", tags=["broker"], responses=problems(401, 403, 409, 422, 429, 502, 503))


class SetupOptions(Body):
    """Options that affect devices, so each has to be requested."""

    client_id: bool = False
    deny_unmatched: bool = False


class SettingChangeView(View):
    """`danger`: how the change could affect devices; empty if it cannot."""

    what: str
    before: str
    after: str
    danger: str


class ManualStepView(View):
    what: str
    why: str
    configuration: str


class SetupView(View):
    """Planned or applied changes; `by_hand`: changes that only the broker's configuration can make."""

    changes: tuple[SettingChangeView, ...]
    by_hand: tuple[ManualStepView, ...] = ()
    left: tuple[str, ...] = ()


@router.post("/plan", dependencies=[scope("read")])
async def plan(broker: BrokerDep, options: SetupOptions) -> SetupView:
    """Returns what a setup would change; writes nothing."""
    return SetupView.of(await broker.setup.plan(client_id=options.client_id, deny_unmatched=options.deny_unmatched))


@router.post("/apply", dependencies=[scope("admin", step_up=True), Depends(writable)])
async def apply(broker: BrokerDep, caller: CallerDep, options: SetupOptions) -> SetupView:
    """Applies the changes; the previous settings are stored for an undo."""
    made = await broker.setup.apply(caller, client_id=options.client_id, deny_unmatched=options.deny_unmatched)
    return SetupView(changes=made)


@router.post("/plan-undo", dependencies=[scope("read")])
async def plan_undo(broker: BrokerDep) -> SetupView:
    """Returns what an undo would change; writes nothing."""
    try:
        return SetupView(changes=await broker.setup.plan_undo())
    except NothingToUndoError as e:
        raise ApiError(409, "nothing_to_undo", str(e)) from e


@router.post("/undo", dependencies=[scope("admin", step_up=True), Depends(writable)])
async def undo(broker: BrokerDep, caller: CallerDep) -> SetupView:
    """Restores the broker's settings from before the first setup; `left`: what could not be restored."""
    setup = broker.setup
    try:
        changes = await setup.plan_undo()
        left = await setup.undo(caller)
    except NothingToUndoError as e:
        raise ApiError(409, "nothing_to_undo", str(e)) from e
    return SetupView(changes=changes, left=left)
