"""Whole lists as files: every match, a page at a time, so that neither side holds them all."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from controller.api.auth import scope
from controller.api.context import FleetDep, QueriesDep
from controller.api.device_lists import FilterDep, query_of
from controller.api.errors import problems
from controller.api.views import DeviceSummary, device_summary
from controller.ports.fleet_queries import MAX_PAGE, DeviceFilter, DeviceSort, FleetQueries, SortValue
from controller.service.fleet_state import FleetState

_TYPES: Final = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS: Final = (
    "device_id", "class", "tags", "online", "stale", "last_seen", "level", "proven", "reason", "by", "opened_at",
    "failing", "unknown",
)  # fmt: skip

router = APIRouter(prefix="/exports", tags=["devices"], responses=problems(401, 422, 429, 503))


@router.get(
    "/devices",
    dependencies=[scope("read")],
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {} for kind in _TYPES.values()}, "description": "every device that matches"}},
)
async def export_devices(
    fleet: FleetDep, queries: QueriesDep, where: FilterDep, form: Literal["csv", "ndjson"] = "csv"
) -> StreamingResponse:
    """Returns all devices that match, by id: `form=ndjson` has a device of a list in each line."""
    lines = _csv(fleet, queries, where) if form == "csv" else _ndjson(fleet, queries, where)
    headers = {"Content-Disposition": f'attachment; filename="devices.{form}"'}
    return StreamingResponse(lines, media_type=_TYPES[form], headers=headers)


async def _pages(
    fleet: FleetState, queries: FleetQueries, where: DeviceFilter
) -> AsyncIterator[Sequence[DeviceSummary]]:
    after: tuple[SortValue, str] | None = None
    while True:
        found = await queries.devices(query_of(fleet, where, DeviceSort.ID, MAX_PAGE, after=after))
        yield [device_summary(device) for device in found.devices]
        after = found.following
        if after is None:
            return


async def _ndjson(fleet: FleetState, queries: FleetQueries, where: DeviceFilter) -> AsyncIterator[bytes]:
    async for page in _pages(fleet, queries, where):
        yield b"".join(device.model_dump_json().encode() + b"\n" for device in page)


async def _csv(fleet: FleetState, queries: FleetQueries, where: DeviceFilter) -> AsyncIterator[bytes]:
    yield _rows([_COLUMNS])
    async for page in _pages(fleet, queries, where):
        yield _rows([_cells(device.model_dump(mode="json")) for device in page])


def _cells(device: dict[str, object]) -> tuple[object, ...]:
    case = device["case"]
    known = case if isinstance(case, dict) else {}
    counts = device["not_satisfied"]
    unknown = counts.get("unknown", 0) + counts.get("error", 0) if isinstance(counts, dict) else 0
    return (
        device["device_id"],
        device["device_class"],
        _joined(device["tags"]),
        device["online"],
        device["stale"],
        device["last_seen"],
        device["level"],
        known.get("proven"),
        known.get("reason"),
        known.get("by"),
        known.get("opened_at"),
        _joined(device["failing"]),
        unknown,
    )


def _joined(values: object) -> str:
    return " ".join(map(str, values)) if isinstance(values, list) else ""


def _rows(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _safe(cell: object) -> object:
    """Marks a text that a spreadsheet would work out as a text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
