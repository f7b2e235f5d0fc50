"""Waivers: exceptions from a rule with an owner, a reason and an expiry."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import AfterValidator, Field, StringConstraints

from controller.api.auth import CallerDep, scope
from controller.api.context import WaiversDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, DurationText, ReasonText, UtcTimestamp, View
from controller.domain.policy.cel import MAX_EXPRESSION
from controller.service.containment.waivers import WaiverError, WaiverRequest
from schemas.base import DEVICE_ID_PATTERN, MAX_NAME
from schemas.durations import parse_duration

WaiverId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="id of the waiver")]
RuleKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}/([a-z0-9][a-z0-9._-]{0,63}|\*)$")]
WaiverOwner = Annotated[
    str, StringConstraints(max_length=MAX_NAME, pattern=r"^[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$")
]
router = APIRouter(prefix="/waivers", tags=["waivers"], responses=problems(401, 403, 422, 429, 503))


def _some(value: str) -> str:
    if parse_duration(value) == 0:
        raise ValueError("a waiver lasts longer than nothing")
    return value


class NewWaiverBody(Body):
    """The rule (`policy/rule`, or `policy/*`), its responsible `owner`, and one of `device`, `tag` and `expression`."""

    rule: RuleKey
    owner: WaiverOwner
    reason: ReasonText
    duration: Annotated[DurationText, AfterValidator(_some), Field(alias="for", description="1h, 14d; at most 366d")]
    device: Annotated[str, StringConstraints(pattern=DEVICE_ID_PATTERN)] | None = None
    tag: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")] | None = None
    expression: Annotated[str, StringConstraints(min_length=1, max_length=MAX_EXPRESSION)] | None = None


class WaiverView(View):
    """A waiver; exactly one of `device`, `tag` and `expression` is not empty."""

    waiver_id: str
    rule: str
    device: str
    tag: str
    expression: str
    owner: str
    reason: str
    granted_by: str
    granted_at: UtcTimestamp
    expires_at: UtcTimestamp


class WaiverList(View):
    items: tuple[WaiverView, ...]


@router.get("", dependencies=[scope("read")])
async def list_waivers(waivers: WaiversDep) -> WaiverList:
    """Lists waivers in force by expiry."""
    return WaiverList(items=tuple(map(WaiverView.of, waivers.all())))


@router.post("", status_code=201, dependencies=[scope("policy"), Depends(writable)], responses=problems(409))
async def add_waiver(waivers: WaiversDep, caller: CallerDep, body: NewWaiverBody) -> WaiverView:
    """Adds a waiver: covered devices still fail the rule, without a response."""
    new = WaiverRequest(
        body.rule,
        body.owner,
        body.reason,
        caller,
        parse_duration(body.duration),
        body.device or "",
        body.tag or "",
        body.expression or "",
    )
    try:
        return WaiverView.of(await waivers.add(new))
    except WaiverError as e:
        raise ApiError(409, "waiver_mistake", str(e)) from e


@router.delete(
    "/{waiver_id}", status_code=204, dependencies=[scope("policy"), Depends(writable)], responses=problems(404)
)
async def revoke_waiver(waivers: WaiversDep, caller: CallerDep, waiver_id: WaiverId) -> None:
    """Revokes a waiver; the response to the rules that it covered follows at once."""
    try:
        await waivers.revoke(waiver_id, caller)
    except KeyError as e:
        raise ApiError(404, "waiver_unknown", f"there is no waiver {waiver_id} in force") from e
