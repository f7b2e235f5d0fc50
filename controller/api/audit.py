"""The audit log: observations, decisions and actions with their actors."""

from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, Field

from controller.api.auth import scope
from controller.api.context import StoreDep
from controller.api.errors import ApiError, problems, seconds_of
from controller.api.fields import DeviceIdFilter, PageLimit, SequenceQuery, TextFilter, View
from controller.api.views import AuditEntryView
from controller.domain.audit_chain import ChainHead
from controller.domain.audit_kinds import AuditKind

MAX_KINDS: Final = 50  # kinds in one query

router = APIRouter(prefix="/audit", tags=["audit"], responses=problems(401, 422, 429, 503))


class AuditPage(View):
    """`next` is the `after` of the next page; null on the last page."""

    items: tuple[AuditEntryView, ...]
    next: int | None


@router.get("", dependencies=[scope("read")])
async def list_audit(
    store: StoreDep,
    device_id: DeviceIdFilter = None,
    case_id: TextFilter = None,
    kind: Annotated[list[AuditKind] | None, Query(max_length=MAX_KINDS, description="repeat for several")] = None,
    actor: Annotated[
        TextFilter, Query(description="as entries name it: `operator:NAME`, `person:NAME`, `cordon`")
    ] = None,
    since: Annotated[datetime | None, Query(alias="from", description="a time with its zone")] = None,
    until: Annotated[datetime | None, Query(alias="to", description="a time with its zone; exclusive")] = None,
    alerts_only: bool = False,
    after: Annotated[SequenceQuery, Query(description="go on from this `seq`, in the chosen order")] = 0,
    limit: PageLimit = 200,
    order: Literal["newest", "oldest"] = "newest",
) -> AuditPage:
    """Lists audit entries."""
    lines = await store.audit(
        device_id=device_id,
        case_id=case_id,
        kinds=kind or (),
        actor=actor,
        since=seconds_of("from", since),
        until=seconds_of("to", until),
        alerts_only=alerts_only,
        after=after,
        limit=limit,
        newest_first=order == "newest",
    )
    following = lines[-1].seq if len(lines) == limit else None
    return AuditPage(items=tuple(AuditEntryView.of(line) for line in lines), next=following)


class AuditHeadView(View):
    """The end of the hash chain. Save it where nobody with write access to the store can change it."""

    seq: int
    digest: Annotated[str, BeforeValidator(bytes.hex)]
    head: Annotated[str, Field(validation_alias="text")]


class ChainFlawView(View):
    """A change that was made to the rows from `first` to `last`."""

    what: str
    first: int
    last: int
    text: str


class AuditVerificationView(View):
    """`ok`: every row is as it was written. Reports at most 100 flaws."""

    ok: Annotated[bool, Field(validation_alias="is_intact")]
    rows: int
    head: AuditHeadView
    flaws: tuple[ChainFlawView, ...]


@router.get("/head", dependencies=[scope("read")])
async def audit_head(store: StoreDep) -> AuditHeadView:
    """Returns the end of the audit log's hash chain."""
    return AuditHeadView.of(await store.audit_head())


@router.get("/verify", dependencies=[scope("audit")])
async def verify_audit(
    store: StoreDep,
    head: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}:[0-9a-f]{64}$", description="a head noted before")] = None,
) -> AuditVerificationView:
    """Verifies every row of the audit log in one snapshot; takes seconds for a million rows."""
    try:
        noted = None if head is None else ChainHead.parse(head)
    except ValueError as e:
        raise ApiError(422, "invalid", str(e)) from e
    return AuditVerificationView.of(await store.check_audit(noted))
