"""Compares what one node of the broker lists with what the store says, row by row as the pages come.

Nothing is kept of rows that are as they should be; what is kept is bounded by the devices that are contained or have
rules of a template.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from controller.domain.device import Device
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRules, Ban, BrokerTables, restriction
from controller.service.fleet_state import FleetState

AT_ONCE: Final = 5000  # devices looked at before others get their turn
# A few rows that seem to differ are read once more by themselves: a listing that changes while it is paged may skip a
# row. When this many differ it is no accident of paging.
CERTAIN: Final = 200
END_SLACK: Final = 1.0  # seconds by which a row's end may differ from what was asked: it tells whole ones

BAN_LEFT: Final = "a ban is left over"
RESTRICTION_LEFT: Final = "the restriction is left over"
RULES_MISSING: Final = "the rules of the restriction are missing"
RULES_ALTERED: Final = "the rules were altered"
BAN_MISSING: Final = "the ban is missing"
BAN_ENDS: Final = "the ban ends at another time"
ACCESS_MISSING: Final = "the rules of its template are missing"
ACCESS_ALTERED: Final = "the rules of its template were altered"


class ManagedRules(Protocol):
    """Rules that devices have from templates; a device that is contained has the restriction's instead."""

    def managed(self) -> Mapping[str, AccessRules]:
        """The rules that were written for each device, as the store keeps them."""
        ...

    def is_busy(self, device_id: str) -> bool:
        """Whether they are being changed."""
        ...

    def rewrite(self, device_id: str) -> None:
        """Write the device's rules again: they went missing."""
        ...


class NoManagedRules:
    """No device has rules from a template."""

    def managed(self) -> Mapping[str, AccessRules]:
        """None."""
        return {}

    def is_busy(self, _device_id: str) -> bool:
        """Never."""
        return False

    def rewrite(self, _device_id: str) -> None:
        """There is nothing to write."""


@dataclass(frozen=True, slots=True)
class DriftCandidate:
    """A device whose rows differ at `node`; `device` is what was known of it when they were compared."""

    device: Device
    what: str
    node: str


@dataclass(frozen=True, slots=True)
class NodeComparison:
    """What one node's tables show. `strangers`: bans of Cordon's mark for ids that are not known here."""

    suspects: tuple[DriftCandidate, ...]
    strangers: tuple[Ban, ...]


@dataclass(slots=True)
class _Seen:
    device: Device
    ban: Ban | None = None
    rules: AccessRules | None = None


def difference(
    device: Device, ban: Ban | None, rules: AccessRules | None, managed: AccessRules | None, now: float
) -> str:
    """What is wrong with a device's rows; empty if nothing is."""
    case = device.case
    ours = ban is not None and ban.is_ours and (ban.until is None or ban.until > now)
    if case is None:
        if ours:
            return BAN_LEFT
        if rules == restriction(device.device_id):
            return RESTRICTION_LEFT
        if managed is None or rules == managed:
            return ""
        return ACCESS_MISSING if rules is None else ACCESS_ALTERED
    if rules != restriction(device.device_id):
        return RULES_MISSING if rules is None else RULES_ALTERED
    if case.level is ContainmentLevel.RESTRICTED:
        return BAN_LEFT if ours else ""
    if ban is None or (ban.until is not None and ban.until <= now and _goes_on(case.isolate_until, now)):
        return BAN_MISSING
    return BAN_ENDS if ban.is_ours and _ends_elsewhere(ban.until, case.isolate_until) else ""


def _goes_on(until: float | None, now: float) -> bool:
    return until is None or until > now + END_SLACK


def _ends_elsewhere(is_until: float | None, should: float | None) -> bool:
    if is_until is None or should is None:
        return is_until is not should
    return abs(is_until - should) > END_SLACK


async def compare(
    node: str,
    tables: BrokerTables,
    fleet: FleetState,
    managed: Mapping[str, AccessRules],
    is_busy: Callable[[str], bool],
) -> NodeComparison:
    """Read the node's tables once; devices for which something is under way are left out.

    Raises:
        BrokerError: the node did not answer, or not all of it.
    """
    now = fleet.clock.now()
    contained = {device.device_id: _Seen(device) async for device in _contained(fleet)}
    loose: dict[str, _Seen] = {}  # rows that a device outside of containment should not have
    strangers: list[Ban] = []
    async for ban in tables.bans(node, contained.__contains__):
        seen = contained.get(ban.who)
        device = fleet.get(ban.who)
        if seen is not None:
            seen.ban = ban
        elif device is None:
            strangers.append(ban)
        else:
            loose[ban.who] = _Seen(device, ban=ban)
    as_written: set[str] = set()
    async for client_id, rules in tables.rules(node, fleet.devices.__contains__):
        seen = contained.get(client_id)
        device = fleet.devices[client_id]
        if seen is not None:
            seen.rules = rules
        elif managed.get(client_id) == rules:
            as_written.add(device.device_id)  # the string that is in memory already
        elif client_id in managed or rules == restriction(client_id):
            loose.setdefault(client_id, _Seen(device)).rules = rules
    for client_id in managed:
        if client_id not in as_written and client_id not in contained and client_id in fleet.devices:
            loose.setdefault(client_id, _Seen(fleet.devices[client_id]))
    for client_id in as_written & loose.keys():
        loose[client_id].rules = managed.get(client_id)
    suspects = tuple(_judged(contained | loose, fleet, managed, is_busy, now, node))
    return NodeComparison(suspects, tuple(strangers))


async def _contained(fleet: FleetState) -> AsyncIterator[Device]:
    for number, device in enumerate(list(fleet.devices.values())):
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        if device.case is not None:
            yield device


def _judged(
    seen: Mapping[str, _Seen],
    fleet: FleetState,
    managed: Mapping[str, AccessRules],
    is_busy: Callable[[str], bool],
    now: float,
    node: str,
) -> Iterator[DriftCandidate]:
    for device_id, rows in seen.items():
        device = fleet.get(device_id)
        if device is None or device.case != rows.device.case or is_busy(device_id):
            continue  # decisions go on while pages are read
        what = difference(device, rows.ban, rows.rules, managed.get(device_id), now)
        if what:
            yield DriftCandidate(device, what, node)


async def still_differs(
    suspect: DriftCandidate,
    tables: BrokerTables,
    fleet: FleetState,
    managed: Mapping[str, AccessRules],
    is_busy: Callable[[str], bool],
) -> str:
    """Read the device's own rows once more: what is wrong now; empty if nothing is, or a decision came in between."""
    device_id, node = suspect.device.device_id, suspect.node
    ban = await tables.ban_of(node, device_id)
    rules = await tables.rules_of(node, device_id)
    present = fleet.get(device_id)
    if present is None or present.case != suspect.device.case or is_busy(device_id):
        return ""
    return difference(present, ban, rules, managed.get(device_id), fleet.clock.now())
