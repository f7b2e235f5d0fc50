"""Rejected messages and why they were rejected."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator

from controller.api.auth import scope
from controller.api.context import StoreDep
from controller.api.errors import problems
from controller.api.fields import DeviceIdFilter, PageLimit, UtcTimestamp, View

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


@router.get("", dependencies=[scope("read")])
async def list_dead_letters(
    store: StoreDep, device_id: DeviceIdFilter = None, limit: PageLimit = 100
) -> DeadLetterPage:
    """Lists rejected messages, newest first."""
    letters = await store.dead_letters(device_id=device_id, limit=limit)
    return DeadLetterPage(items=tuple(DeadLetterView.of(one) for one in letters))
