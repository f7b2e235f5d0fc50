"""Messages that were refused: what came, from whom, and what was wrong with it."""

from fastapi import APIRouter

from controller.api.auth import scope
from controller.api.context import ServicesDep
from controller.api.errors import problems
from controller.api.fields import DeviceIdFilter, PageLimit, UtcTimestamp, View, at
from controller.ports.store import DeadLetter

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], responses=problems(401, 422, 429, 503))


class DeadLetterView(View):
    """`payload` is what was kept of `size` bytes; bytes that are no UTF-8 are written as escapes."""

    at: UtcTimestamp
    device_id: str
    topic: str
    reason: str
    detail: str
    size: int
    payload: str

    @classmethod
    def of(cls, letter: DeadLetter) -> "DeadLetterView":
        """The letter as it is kept."""
        return cls(
            at=at(letter.at),
            device_id=letter.device_id,
            topic=letter.topic.encode("utf-8", "backslashreplace").decode(),
            reason=letter.reason,
            detail=letter.detail,
            size=letter.size,
            payload=letter.payload.decode("utf-8", "backslashreplace"),
        )


class DeadLetterPage(View):
    items: tuple[DeadLetterView, ...]


@router.get("", dependencies=[scope("read")])
async def list_dead_letters(
    services: ServicesDep, device_id: DeviceIdFilter = None, limit: PageLimit = 100
) -> DeadLetterPage:
    """Refused messages, newest first."""
    letters = await services.store.dead_letters(device_id=device_id, limit=limit)
    return DeadLetterPage(items=tuple(DeadLetterView.of(one) for one in letters))
