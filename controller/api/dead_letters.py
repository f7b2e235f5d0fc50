"""Rejected messages and why they were rejected."""

from typing import Annotated

from fastapi import (
    APIRouter,
    Query,
)
from pydantic import (
    BeforeValidator,
    Field,
)

from controller.api.auth import scope
from controller.api.context import StoreDep
from controller.api.errors import problems
from controller.api.fields import (
    DeviceIdFilter,
    PageLimit,
    SequenceQuery,
    UtcTimestamp,
    View,
)

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], responses=problems(401, 422, 429, 503))


def _escaped(value: str | bytes) -> str:
    content = value if isinstance(value, bytes) else value.encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


class DeadLetterView(View):
    """`payload`: the stored part of `size` bytes; invalid UTF-8 is escaped."""

    at: UtcTimestamp
    device_id: str
    topic: Annotated[str, BeforeValidator(_escaped)]
    reason: str
    detail: str
    size: int
    payload: Annotated[str, BeforeValidator(_escaped)]


class DeadLetterPage(View):
    items: tuple[DeadLetterView, ...]
    next: Annotated[int | None, Field(description="`after` of the next page; null on the last one")]


@router.get("", dependencies=[scope("read")])
async def list_dead_letters(
    store: StoreDep,
    device_id: DeviceIdFilter = None,
    limit: PageLimit = 100,
    after: Annotated[SequenceQuery, Query(description="`next` of the page before")] = 0,
) -> DeadLetterPage:
    """Lists rejected messages, newest first."""
    letters = await store.dead_letters(device_id=device_id, limit=limit, after=after)
    following = letters[-1].seq if len(letters) == limit else None
    return DeadLetterPage(items=tuple(DeadLetterView.of(one) for one in letters), next=following)
