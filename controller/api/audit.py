"""The audit log: observations, decisions and actions with their actors."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, Field

from controller.api.auth import scope
from controller.api.context import StoreDep
from controller.api.errors import ApiError, problems, seconds_of
from controller.api.fields import DeviceIdFilter, NextKey, PageLimit, TextFilter, View
from controller.api.views import AuditEntryView
from controller.domain.audit_anchors import HEADS_FORM, AuditHeads
from controller.domain.audit_chain import ChainHead
from controller.domain.audit_id import CURSOR_FORM, AuditCursor, AuditId
from controller.domain.audit_kinds import AuditKind

MAX_KINDS: Final = 50  # kinds in one query
MAX_HEAD: Final = 4096  # characters; some fifty chains with lines since the last anchor

router = APIRouter(prefix="/audit", tags=["audit"], responses=problems(401, 422, 429, 503))


class AuditPage(View):
    """Entries by time, writer and number."""

    items: tuple[AuditEntryView, ...]
    next: NextKey


def _cursor(text: str | None) -> AuditCursor | None:
    try:
        return None if text is None else AuditCursor.parse(text)
    except ValueError as e:
        raise ApiError(422, "invalid", f"query.after: {e}") from e


@router.get("", dependencies=[scope("read")], responses=problems(404))
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
    after: Annotated[
        str | None,
        Query(max_length=64, pattern=CURSOR_FORM, description="`next` of the page before, or the `id` of an entry"),
    ] = None,
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
        after=_cursor(after),
        limit=limit,
        newest_first=order == "newest",
    )
    following = str(lines[-1].cursor) if len(lines) == limit else None
    return AuditPage(items=tuple(AuditEntryView.of(line) for line in lines), next=following)


class AnchorHeadView(View):
    """The last anchor: its digest stands for the ends of the chains as they were then."""

    number: Annotated[int, Field(validation_alias="seq")]
    digest: Annotated[str, BeforeValidator(bytes.hex)]


class ChainHeadView(View):
    """The end of one writer's chain: `id` of its last entry, and the digest of that."""

    id: str
    digest: str


def _ends(chains: Mapping[int, ChainHead]) -> list[ChainHeadView]:
    return [
        ChainHeadView(id=str(AuditId(writer, head.seq)), digest=head.digest.hex())
        for writer, head in sorted(chains.items())
    ]


class AuditHeadsView(View):
    """The ends of the hash chains. Save `head` where nobody with write access to the store can change it."""

    head: Annotated[str, Field(validation_alias="text")]
    anchor: AnchorHeadView
    chains: Annotated[tuple[ChainHeadView, ...], BeforeValidator(_ends)]


class ChainFlawView(View):
    """A change that was made to the entries from `first` to `last`; `aNUMBER` is an anchor."""

    what: str
    first: str
    last: str
    text: str


class AuditVerificationView(View):
    """`ok`: every row is as it was written. Reports at most 100 flaws."""

    ok: Annotated[bool, Field(validation_alias="is_intact")]
    rows: int
    heads: AuditHeadsView
    flaws: tuple[ChainFlawView, ...]


@router.get("/head", dependencies=[scope("read")])
async def audit_heads(store: StoreDep) -> AuditHeadsView:
    """Returns the ends of the audit log's hash chains."""
    return AuditHeadsView.of(await store.audit_heads())


@router.get("/verify", dependencies=[scope("audit")])
async def verify_audit(
    store: StoreDep,
    head: Annotated[
        str | None, Query(max_length=MAX_HEAD, pattern=HEADS_FORM, description="heads noted before")
    ] = None,
) -> AuditVerificationView:
    """Verifies every row of the audit log in one snapshot; takes seconds for a million rows."""
    try:
        noted = None if head is None else AuditHeads.parse(head)
    except ValueError as e:
        raise ApiError(422, "invalid", str(e)) from e
    return AuditVerificationView.of(await store.check_audit(noted))
