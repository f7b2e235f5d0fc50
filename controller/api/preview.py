"""Preview of policies that are not in force: evaluates the stored reports and streams the changes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field, StringConstraints
from starlette.types import Receive, Send
from starlette.types import Scope as HttpScope

from controller.api.auth import PrincipalDep, scope
from controller.api.context import RETRY_AFTER, FleetDep, PoliciesDep, PolicyServices, StoreDep
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, View
from controller.domain.policy.model import PolicySet
from controller.ports.policies import PolicyError
from controller.ports.store import Store
from controller.service.fleet_state import FleetState
from controller.service.policy.preview import TooManyPreviewsError, kind_of, preview

MAX_FILES: Final = 100
_NDJSON: Final = "application/x-ndjson"
router = APIRouter(tags=["policies"], responses=problems(401, 403, 409, 413, 422, 429, 503))


class PolicyText(Body):
    """A policy file; `source` names it in problems."""

    source: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    text: str


class CandidatePolicies(Body):
    """Policies that replace those in force of the same name; `alone`: all of them."""

    files: Annotated[tuple[PolicyText, ...], Field(min_length=1, max_length=MAX_FILES, fail_fast=True)]
    alone: bool = False


class PreviewLine(View):
    """A line of the response: progress with changes, and at the end `done` with totals.

    `knowledge`: the entries of the knowledge that results rest on, each with its source and dates.
    """

    judged: int
    reports: int
    changes: tuple[dict[str, Any], ...]
    counts: dict[str, int] = Field(default_factory=dict)
    done: bool = False
    stale: int = 0
    unread: int = 0
    limit: int = 0
    refused: bool = False
    version: str = ""
    knowledge: tuple[str, ...] = ()


@router.post(
    "/policies/preview",
    dependencies=[scope("policy")],
    response_class=StreamingResponse,
    responses={200: {"content": {_NDJSON: {}}, "description": "one `PreviewLine` in each line", "model": PreviewLine}},
)
async def preview_policies(
    fleet: FleetDep, store: StoreDep, policies: PoliciesDep, caller: PrincipalDep, body: CandidatePolicies
) -> StreamingResponse:
    """Returns which devices' containment would change with their next report; changes nothing."""
    try:
        policies.previews.take(caller.key)
    except TooManyPreviewsError as e:
        raise ApiError(429, "too_many_previews", str(e), RETRY_AFTER) from e
    leave = partial(policies.previews.leave, caller.key)
    try:
        candidate = await _compiled(policies, body)
        return _PlacedResponse(_lines(fleet, store, candidate), leave)
    except BaseException:
        leave()
        raise


class _PlacedResponse(StreamingResponse):
    """Gives the place of its preview back when it ends, also if nobody reads it."""

    def __init__(self, lines: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        super().__init__(lines, media_type=_NDJSON)
        self._leave = leave

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _compiled(policies: PolicyServices, body: CandidatePolicies) -> PolicySet:
    try:
        texts = tuple((one.source, one.text) for one in body.files)
        return await asyncio.to_thread(policies.compile, texts, alone=body.alone)  # large ones take seconds
    except PolicyError as e:
        raise ApiError(409, "policy_mistake", str(e)) from e


async def _lines(fleet: FleetState, store: Store, candidate: PolicySet) -> AsyncIterator[bytes]:
    last = PreviewLine(judged=0, reports=0, changes=(), done=True, version=candidate.policy_version)
    async for page in preview(fleet, store, candidate):
        tally = page.tally
        limit = fleet.guards.radius.bounds.limit(fleet.size)
        changes = tuple(
            {
                "device_id": one.device_id,
                "change": kind_of(one),
                "before": one.before.value,
                "after": one.after.value,
                "causes": list(one.causes),
                "held": one.held,
            }
            for one in page.changes
        )
        yield _line(PreviewLine(judged=tally.judged, reports=tally.reports, changes=changes))
        last = PreviewLine(
            judged=tally.judged,
            reports=tally.reports,
            changes=(),
            done=True,
            counts=dict(tally.counts),
            stale=tally.stale,
            unread=tally.unread,
            limit=limit,
            refused=not fleet.guards.radius.bounds.is_unlimited and tally.contains > limit,
            version=candidate.policy_version,
            knowledge=tuple(sorted(map(str, tally.rests_on))),
        )
    yield _line(last)


def _line(line: PreviewLine) -> bytes:
    return json.dumps(line.model_dump(mode="json")).encode() + b"\n"
