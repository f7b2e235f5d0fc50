"""Devices: list, show with timeline, label."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, Field, StringConstraints

from controller.api.auth import CallerDep, scope
from controller.api.context import FleetDep, SigningDep, StoreDep, require_device, writable
from controller.api.device_lists import DevicePage, FilterDep, ListingDep
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    DeviceIdPath,
    OptionalTimestamp,
    ReasonText,
    UtcTimestamp,
    View,
)
from controller.api.views import (
    AuditEntryView,
    CommandView,
    DeviceSummary,
    FindingView,
    OpenCommandView,
    device_summary,
    findings,
    summary_fields,
)
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.receipts import ContainmentReceipt, cases_of
from controller.domain.device import NO_SEQUENCE, Device
from controller.domain.events import DeviceLabelled
from controller.domain.rollout.window import check_zone_tag
from schemas.posture import ReportSections, sections_of

MAX_TIMELINE: Final = 500  # lines
MAX_TAGS: Final = 32
RECENT_COMMANDS: Final = 20
MAX_CASE_LINES: Final = 10_000  # audit entries that are read for the cases of a device

router = APIRouter(prefix="/devices", tags=["devices"], responses=problems(401, 422, 429, 503))
DeviceLabel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]
_Tag = Annotated[DeviceLabel, AfterValidator(check_zone_tag)]


class ReportView(View):
    """The last accepted full report."""

    seq: int
    digest: str
    received_at: UtcTimestamp
    judged_by: str


class DeviceDetail(DeviceSummary):
    """A device with its findings and commands; `timeline`: its latest audit entries, oldest first."""

    first_seen: UtcTimestamp
    boot_id: str
    agent: str
    signs: bool
    gaps: int
    report: ReportView | None
    findings: tuple[FindingView, ...]
    commands: tuple[OpenCommandView, ...]
    recent_commands: tuple[CommandView, ...]
    timeline: tuple[AuditEntryView, ...]


class DeviceLabelsBody(Body):
    """Class and tags for policies; an omitted one stays unchanged. The zone of a tag `tz:ZONE` has to exist."""

    device_class: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{0,64}$")] | None = None
    tags: Annotated[tuple[_Tag, ...], Field(max_length=MAX_TAGS, fail_fast=True)] | None = None


@router.get("", dependencies=[scope("read")])
async def list_devices(listing: ListingDep, where: FilterDep) -> DevicePage:
    """Lists devices, by id unless `sort` says otherwise."""
    return await listing.page(where)


@router.get("/{device_id}", dependencies=[scope("read")], responses=problems(404))
async def show_device(
    fleet: FleetDep,
    store: StoreDep,
    device_id: DeviceIdPath,
    timeline: Annotated[int, Query(ge=0, le=MAX_TIMELINE)] = 100,
) -> DeviceDetail:
    """Returns a device with its findings and timeline."""
    device = await require_device(fleet, device_id)
    lines = await store.audit(device_id=device_id, limit=timeline) if timeline else ()
    recent = await store.commands(device_id=device_id, limit=RECENT_COMMANDS)
    return _detail(
        device,
        findings=findings(device, fleet.policies, fleet.guards.waivers, fleet.clock.now()),
        recent_commands=tuple(CommandView.of(one) for one in recent),
        timeline=tuple(AuditEntryView.of(line) for line in reversed(lines)),
    )


def _detail(device: Device, **more: Any) -> DeviceDetail:
    report = None
    if device.report_seq != NO_SEQUENCE:
        report = ReportView(
            seq=device.report_seq,
            digest=device.digest,
            received_at=device.reported_at,
            judged_by=device.judged_by,
        )
    return DeviceDetail(
        **summary_fields(device),
        first_seen=device.first_seen,
        boot_id=device.boot_id,
        agent=device.agent,
        signs=device.signs,
        gaps=device.gaps,
        report=report,
        commands=device.commands,
        **more,
    )


class CaseSummaryView(View):
    """A containment from its opening to its release. `level`: the highest one.

    `seconds`: from the evidence to the cut, null if nothing was cut. `released_at` is null while it lasts, and where
    it was never carried out (`refused` says why). `proven`: whether the last decision was read back at the broker.
    """

    case_id: str
    opened_at: UtcTimestamp
    by: str
    reason: str
    level: str
    seconds: float | None
    released_at: OptionalTimestamp
    released_by: str
    refused: str
    proven: bool

    @classmethod
    def of_receipt(cls, receipt: ContainmentReceipt) -> "CaseSummaryView":
        """Sums up the decisions of a case."""
        opening, last = receipt.deeds[0], receipt.deeds[-1]
        is_over = last.decision is AuditKind.CONTAINMENT_RELEASE_DECIDED
        return cls.of(
            receipt,
            opened_at=opening.decided_at,
            by=opening.by,
            reason=opening.reason,
            level="isolated" if any(deed.level == "isolated" for deed in receipt.deeds) else "restricted",
            seconds=opening.seconds,
            released_at=last.decided_at if is_over else None,
            released_by=last.by if is_over else "",
            refused=last.refused,
            proven=receipt.is_closed,
        )


class CaseList(View):
    items: tuple[CaseSummaryView, ...]


@router.get("/{device_id}/cases", dependencies=[scope("read")], responses=problems(404))
async def list_cases(fleet: FleetDep, store: StoreDep, device_id: DeviceIdPath) -> CaseList:
    """Lists the containments of a device, newest first, as far as its newest 10,000 audit entries tell."""
    await require_device(fleet, device_id)
    lines = await store.audit(device_id=device_id, limit=MAX_CASE_LINES)
    cases = cases_of(device_id, ((line.at, line.entry) for line in reversed(lines)))
    return CaseList(items=tuple(map(CaseSummaryView.of_receipt, reversed(cases))))


@router.get("/{device_id}/report", dependencies=[scope("read")], responses=problems(404))
async def show_report(fleet: FleetDep, store: StoreDep, device_id: DeviceIdPath) -> ReportSections:
    """Returns the sections of the last full report, as this version parses them."""
    await require_device(fleet, device_id)
    raw = await store.report(device_id)
    if raw is None:
        raise ApiError(404, "no_report", f"{device_id} has not sent a full report yet")
    return sections_of(raw)


@router.put("/{device_id}/labels", dependencies=[scope("policy"), Depends(writable)], responses=problems(404))
async def label_device(
    fleet: FleetDep, caller: CallerDep, device_id: DeviceIdPath, labels: DeviceLabelsBody
) -> DeviceSummary:
    """Sets class and tags of a device; its next full report is evaluated with them."""
    device = await require_device(fleet, device_id)
    device_class = device.device_class if labels.device_class is None else labels.device_class
    tags = device.tags if labels.tags is None else tuple(dict.fromkeys(labels.tags))
    event = DeviceLabelled(fleet.new_id(), device_class, tags, caller)
    outcome = await fleet.apply_and_commit(device_id, event)
    return device_summary(outcome.device)


class SignatureExemptionBody(Body):
    reason: ReasonText


@router.post("/{device_id}/unsigned", dependencies=[scope("identity"), Depends(writable)], responses=problems(404, 409))
async def lift_signature_requirement(
    fleet: FleetDep, signing: SigningDep, caller: CallerDep, device_id: DeviceIdPath, body: SignatureExemptionBody
) -> DeviceSummary:
    """Deletes the device's signing key, and accepts its unsigned reports until it signs again."""
    await require_device(fleet, device_id)
    await signing.lift_signature_requirement(fleet, device_id, caller, body.reason)
    return device_summary(await require_device(fleet, device_id))
