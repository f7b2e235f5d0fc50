"""The record: what was seen, decided and done, and by whom."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from controller.api.context import ServicesDep
from controller.api.errors import problems
from controller.api.fields import DeviceIdFilter, Limit, Sequence, TextFilter, View
from controller.api.guard import scope
from controller.api.views import AuditLine

router = APIRouter(prefix="/audit", tags=["audit"], responses=problems(401, 422, 429, 503))


class AuditPage(View):
    """`next` is the `after` that goes on behind this page; absent when there was nothing more."""

    items: tuple[AuditLine, ...]
    next: int | None


@router.get("", dependencies=[scope("read")])
async def list_audit(
    services: ServicesDep,
    device_id: DeviceIdFilter = None,
    case_id: TextFilter = None,
    kind: TextFilter = None,
    alerts_only: bool = False,
    after: Annotated[Sequence, Query(description="go on from this `seq`, in the chosen order")] = 0,
    limit: Limit = 200,
    order: Literal["newest", "oldest"] = "newest",
) -> AuditPage:
    """Lines of the record."""
    lines = await services.store.audit(
        device_id=device_id,
        case_id=case_id,
        kind=kind,
        alerts_only=alerts_only,
        after=after,
        limit=limit,
        newest_first=order == "newest",
    )
    following = lines[-1].seq if len(lines) == limit else None
    return AuditPage(items=tuple(AuditLine.of(line) for line in lines), next=following)
