"""The record: what was seen, decided and done, and by whom."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from controller.api.auth import scope
from controller.api.context import ServicesDep
from controller.api.errors import ApiError, problems
from controller.api.fields import DeviceIdFilter, Limit, Sequence, TextFilter, View
from controller.api.views import AuditLine
from controller.domain.audit_chain import Checked, Head

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


class HeadView(View):
    """The end of the chain: note it where nobody can change it who can change the store."""

    seq: int
    digest: str
    head: str

    @classmethod
    def of(cls, head: Head) -> "HeadView":
        """With the one text that `verify` takes."""
        return cls(seq=head.seq, digest=head.digest.hex(), head=str(head))


class FlawView(View):
    """What was done to the rows from `first` to `last`."""

    what: str
    first: int
    last: int
    text: str


class Verified(View):
    """`ok` when every row is as it was written; at most 100 flaws are told."""

    ok: bool
    rows: int
    head: HeadView
    flaws: tuple[FlawView, ...]

    @classmethod
    def of(cls, checked: Checked) -> "Verified":
        """What the check found."""
        told = tuple(FlawView(what=one.what, first=one.first, last=one.last, text=one.text) for one in checked.flaws)
        return cls(ok=not told, rows=checked.rows, head=HeadView.of(checked.head), flaws=told)


@router.get("/head", dependencies=[scope("read")])
async def audit_head(services: ServicesDep) -> HeadView:
    """The end of the record's chain."""
    return HeadView.of(await services.store.audit_head())


@router.get("/verify", dependencies=[scope("admin")])
async def verify_audit(
    services: ServicesDep,
    head: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}:[0-9a-f]{64}$", description="a head noted before")] = None,
) -> Verified:
    """Look at every row of the record, in one snapshot; it reads them all, so it takes a while."""
    try:
        noted = None if head is None else Head.parse(head)
    except ValueError as e:
        raise ApiError(422, "invalid", str(e)) from e
    return Verified.of(await services.store.check_audit(noted))
