"""Compares the rows of one broker node with the store, page by page.

Correct rows are not kept; memory is bounded by the devices that are contained or have rules of a template.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from controller.domain.device import Device
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRules, Ban, BrokerTables, is_restriction
from controller.ports.fleet_queries import DeviceFilter
from controller.service.fleet_state import FleetState

AT_ONCE: Final = 1000  # devices that are compared before the loop yields
# Up to this many differing rows are read again one by one: a listing that changes while it is paged may skip rows.
CERTAIN: Final = 200
END_SLACK: Final = 1.0  # seconds by which the end of a ban may differ: EMQX rounds to whole seconds

BAN_LEFT: Final = "a ban was not removed"
RESTRICTION_LEFT: Final = "the restriction was not removed"
RULES_MISSING: Final = "the rules of the restriction are missing"
RULES_ALTERED: Final = "the rules were changed"
BAN_MISSING: Final = "the ban is missing"
BAN_ENDS: Final = "the ban ends at another time"
ACCESS_MISSING: Final = "the rules of its template are missing"
ACCESS_ALTERED: Final = "the rules of its template were changed"


class ManagedRules(Protocol):
    """Rules that devices have from templates; a contained device has those of the restriction instead."""

    def managed(self) -> Mapping[str, AccessRules]:
        """By device, the rules that were written."""
        ...

    def is_busy(self, device_id: str) -> bool:
        """Whether the device's rules are being changed."""
        ...

    def rewrite(self, device_id: str) -> None:
        """Writes the device's rules again."""
        ...


@dataclass(frozen=True, slots=True)
class DriftCandidate:
    """A device whose rows differ at `node`; `device` is its state at the comparison."""

    device: Device
    what: str
    node: str


@dataclass(frozen=True, slots=True)
class NodeComparison:
    """One node's result. `unknown_bans`: bans with Cordon's mark for unknown client ids."""

    suspects: tuple[DriftCandidate, ...]
    unknown_bans: tuple[Ban, ...]


@dataclass(slots=True)
class _Rows:
    ban: Ban | None = None
    rules: AccessRules | None = None


def describe_difference(
    device: Device,
    ban: Ban | None,
    rules: AccessRules | None,
    managed: AccessRules | None,
    now: float,
    prefixes: frozenset[str] = frozenset(),
) -> str:
    """How a device's rows differ from the store; empty if they do not."""
    case = device.case
    ours = ban is not None and ban.is_ours and (ban.until is None or ban.until > now)
    if case is None:
        if ours:
            return BAN_LEFT
        if is_restriction(rules, device.device_id):
            return RESTRICTION_LEFT
        if managed is None or rules == managed:
            return ""
        return ACCESS_MISSING if rules is None else ACCESS_ALTERED
    if not is_restriction(rules, device.device_id, prefixes):
        return RULES_MISSING if rules is None else RULES_ALTERED
    if case.level is ContainmentLevel.RESTRICTED:
        return BAN_LEFT if ours else ""
    if ban is None or (ban.until is not None and ban.until <= now and _is_ban_due(case.isolate_until, now)):
        return BAN_MISSING
    return BAN_ENDS if ban.is_ours and _end_differs(ban.until, case.isolate_until) else ""


def _is_ban_due(until: float | None, now: float) -> bool:
    return until is None or until > now + END_SLACK


def _end_differs(actual: float | None, expected: float | None) -> bool:
    if actual is None or expected is None:
        return actual is not expected
    return abs(actual - expected) > END_SLACK


async def compare(
    node: str,
    tables: BrokerTables,
    fleet: FleetState,
    managed: Mapping[str, AccessRules],
    is_busy: Callable[[str], bool],
) -> NodeComparison:
    """Reads the node's tables once; busy devices are left out.

    Raises:
        BrokerError: the node did not answer, or not all of it.
    """
    contained = {device.device_id: device async for device in fleet.select(DeviceFilter(contained=True))}
    rows = await _differing(node, tables, contained, managed)
    suspects, unknown_bans = list[DriftCandidate](), list[Ban]()
    ids = iter(rows)
    while some := list(islice(ids, AT_ONCE)):
        present = {device.device_id: device for device in await fleet.find_all(some)}
        for client_id in some:
            device, seen, before = present.get(client_id), rows[client_id], contained.get(client_id)
            if device is None and seen.ban is not None:
                unknown_bans.append(seen.ban)
            if device is None or device.case != (None if before is None else before.case) or is_busy(client_id):
                continue  # a decision was made while pages were read
            now, rules_of = fleet.clock.now(), managed.get(client_id)
            what = describe_difference(device, seen.ban, seen.rules, rules_of, now, tables.prefixes)
            if what:
                suspects.append(DriftCandidate(device, what, node))
    return NodeComparison(tuple(suspects), tuple(unknown_bans))


async def _differing(
    node: str, tables: BrokerTables, contained: Mapping[str, Device], managed: Mapping[str, AccessRules]
) -> dict[str, _Rows]:
    """The rows of contained devices, and of other clients whose rows may differ from what was written."""
    rows = {device_id: _Rows() for device_id in contained}
    async for ban in tables.bans(node, contained.__contains__):
        rows.setdefault(ban.who, _Rows()).ban = ban
    lacking = set(managed)  # devices without the rules that were written; shares its ids with `managed`
    async for client_id, rules in tables.rules(node, lambda _: True):
        if client_id in contained:
            rows[client_id].rules = rules
        elif managed.get(client_id) == rules:
            lacking.discard(client_id)
        elif client_id in managed or is_restriction(rules, client_id):
            rows.setdefault(client_id, _Rows()).rules = rules
    for client_id in lacking:
        rows.setdefault(client_id, _Rows())
    for client_id in rows.keys() & managed.keys() - lacking:
        if client_id not in contained:
            rows[client_id].rules = managed[client_id]
    return rows


async def recheck(
    suspect: DriftCandidate,
    tables: BrokerTables,
    fleet: FleetState,
    managed: Mapping[str, AccessRules],
    is_busy: Callable[[str], bool],
) -> str:
    """Reads the device's own rows again; empty if they do not differ, or a decision was made meanwhile."""
    device_id, node = suspect.device.device_id, suspect.node
    ban = await tables.ban_of(node, device_id)
    rules = await tables.rules_of(node, device_id)
    present = await fleet.find(device_id)
    if present is None or present.case != suspect.device.case or is_busy(device_id):
        return ""
    return describe_difference(present, ban, rules, managed.get(device_id), fleet.clock.now(), tables.prefixes)
