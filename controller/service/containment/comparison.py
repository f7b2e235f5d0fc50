"""Compares the rows of one broker node with the store, page by page.

Correct rows are not kept; memory is bounded by the devices that are contained or have rules of a template.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from controller.domain.device import Device
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRules, Ban, BrokerTables, is_restriction
from controller.service.fleet_state import FleetState

AT_ONCE: Final = 5000  # devices visited before the loop yields
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
class _Observation:
    device: Device
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
    now = fleet.clock.now()
    contained = {device.device_id: _Observation(device) async for device in _contained(fleet)}
    loose: dict[str, _Observation] = {}  # devices without a case whose rows may differ
    unknown_bans: list[Ban] = []
    async for ban in tables.bans(node, contained.__contains__):
        seen = contained.get(ban.who)
        device = fleet.get(ban.who)
        if seen is not None:
            seen.ban = ban
        elif device is None:
            unknown_bans.append(ban)
        else:
            loose[ban.who] = _Observation(device, ban=ban)
    as_written: set[str] = set()
    async for client_id, rules in tables.rules(node, fleet.devices.__contains__):
        seen = contained.get(client_id)
        device = fleet.devices[client_id]
        if seen is not None:
            seen.rules = rules
        elif managed.get(client_id) == rules:
            as_written.add(device.device_id)  # not `client_id`: keeps no second copy of the id
        elif client_id in managed or is_restriction(rules, client_id):
            loose.setdefault(client_id, _Observation(device)).rules = rules
    for client_id in managed:
        if client_id not in as_written and client_id not in contained and client_id in fleet.devices:
            loose.setdefault(client_id, _Observation(fleet.devices[client_id]))
    for client_id in as_written & loose.keys():
        loose[client_id].rules = managed.get(client_id)
    suspects = tuple(_classify(contained | loose, fleet, managed, is_busy, now, node, tables.prefixes))
    return NodeComparison(suspects, tuple(unknown_bans))


async def _contained(fleet: FleetState) -> AsyncIterator[Device]:
    for number, device in enumerate(list(fleet.devices.values())):
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        if device.case is not None:
            yield device


def _classify(
    seen: Mapping[str, _Observation],
    fleet: FleetState,
    managed: Mapping[str, AccessRules],
    is_busy: Callable[[str], bool],
    now: float,
    node: str,
    prefixes: frozenset[str],
) -> Iterator[DriftCandidate]:
    for device_id, rows in seen.items():
        device = fleet.get(device_id)
        if device is None or device.case != rows.device.case or is_busy(device_id):
            continue  # a decision was made while pages were read
        what = describe_difference(device, rows.ban, rows.rules, managed.get(device_id), now, prefixes)
        if what:
            yield DriftCandidate(device, what, node)


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
    present = fleet.get(device_id)
    if present is None or present.case != suspect.device.case or is_busy(device_id):
        return ""
    return describe_difference(present, ban, rules, managed.get(device_id), fleet.clock.now(), tables.prefixes)
