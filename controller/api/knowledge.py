"""The knowledge that rules rest on: how long distributions and OpenSSL branches get fixes, with source and age."""

from datetime import date
from typing import Annotated, Final

from fastapi import APIRouter, Depends
from pydantic import StringConstraints

from controller.api.auth import CallerDep, scope
from controller.api.context import FleetDep, PoliciesDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, OptionalTimestamp, View
from controller.domain.policy.knowledge import KnowledgeEntry, KnowledgeKind, KnowledgeOnDay
from controller.ports.policies import KnowledgeError
from controller.service.fleet_state import FleetState
from controller.service.policy.activation import PolicyTooBroadError
from controller.service.policy.knowledge import KnowledgeImport, KnowledgeService

MAX_TEXT: Final = 256 * 1024  # characters; of bytes, the file has no more either
router = APIRouter(prefix="/knowledge", tags=["policies"], responses=problems(401, 403, 422, 429, 503))


class KnowledgeEntryView(View):
    """How long a release or branch gets fixes; `ends` is the last day, null for a rolling release.

    `age_days` counts from `verified`; past `good_until` an entry is `too_old`, and `rules` that rest on it are unknown.
    """

    kind: KnowledgeKind
    name: str
    version: str
    ends: date | None
    source: str
    verified: date
    good_until: date
    age_days: int
    too_old: bool
    rules: tuple[str, ...]


class KnowledgeView(View):
    """The knowledge in force; `origin` is `shipped` or `imported`, `signed_by` the id of the key that was checked."""

    version: int
    issued: date
    sha256: str
    origin: str
    signed_by: str
    imported_by: str
    imported_at: OptionalTimestamp
    items: tuple[KnowledgeEntryView, ...]


class KnowledgeSignature(Body):
    """A signature of the file's bytes; `key` is the id of the key."""

    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class NewKnowledge(Body):
    """A knowledge file as text. `force`: although it is not newer, or would contain too many devices."""

    file: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
    signature: KnowledgeSignature | None = None
    force: bool = False


@router.get("", dependencies=[scope("read")])
async def show_knowledge(fleet: FleetDep, policies: PoliciesDep) -> KnowledgeView:
    """Returns the knowledge in force, with the rules that each entry may decide."""
    return _view(fleet, policies.knowledge)


@router.put("", dependencies=[scope("policy"), Depends(writable)], responses=problems(409))
async def replace_knowledge(
    fleet: FleetDep, policies: PoliciesDep, caller: CallerDep, body: NewKnowledge
) -> KnowledgeView:
    """Replaces the knowledge; devices are evaluated by it with their next message."""
    signature = body.signature
    file = KnowledgeImport(
        body.file.encode(),
        signature.key if signature else "",
        signature.signature if signature else "",
        body.force,
    )
    try:
        await policies.knowledge.replace(file, caller)
    except KnowledgeError as e:
        raise ApiError(409, "knowledge_refused", str(e)) from e
    except PolicyTooBroadError as e:
        raise ApiError(409, "policy_too_broad", str(e)) from e
    return _view(fleet, policies.knowledge)


def _view(fleet: FleetState, service: KnowledgeService) -> KnowledgeView:
    present, imported = service.present, service.imported
    knowledge = present.knowledge
    return KnowledgeView(
        version=knowledge.version,
        issued=knowledge.issued,
        sha256=knowledge.digest,
        origin="shipped" if imported is None else "imported",
        signed_by="" if imported is None else imported.signed_by,
        imported_by="" if imported is None else imported.by,
        imported_at=None if imported is None else imported.at,
        items=tuple(_entry(one, present, fleet) for one in knowledge.entries),
    )


def _entry(entry: KnowledgeEntry, present: KnowledgeOnDay, fleet: FleetState) -> KnowledgeEntryView:
    return KnowledgeEntryView.of(
        entry,
        age_days=(present.day - entry.verified).days,
        too_old=present.is_too_old(entry),
        rules=fleet.policies.rules_resting_on(entry),
    )
