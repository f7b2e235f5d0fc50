"""Reconciliation: compares the broker with the store, and repairs rows and settings that are missing or were changed.

Nodes are read in turn, each at least once in twice `every`; the row counts of all nodes are compared in every pass.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import (
    AuditEntry,
    ContainmentEffect,
    EndIsolation,
    IsolateClient,
    ReleaseClient,
    RestrictClient,
)
from controller.domain.events import DriftDetected
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_setup import SettingChange
from controller.ports.broker_tables import BAN_MARK, Ban, BrokerTables, TableCounts, UnreadNode, restriction
from controller.ports.errors import BrokerError
from controller.ports.log import Log
from controller.service.containment import comparison
from controller.service.containment.comparison import DriftCandidate, ManagedRules, NodeComparison
from controller.service.containment.drift import DriftEntry, DriftLog, DriftState
from controller.service.containment.effect_queue import EffectQueue
from controller.service.containment.nodes import NodeWatch
from controller.service.fleet_state import FleetState

RETRY: Final = 2.0  # seconds after a failed pass
SETTLE: Final = 0.3  # seconds in which written rows are replicated to every node
_ACTOR: Final = "reconciler"
_RULES_LOST: Final = frozenset({comparison.RULES_MISSING, comparison.RULES_ALTERED})
_FOREIGN_CHANGE: Final = "a repair would overwrite somebody's change: `cordon access apply` restores the template"


class BrokerSettings(Protocol):
    """The broker settings that devices and controller need."""

    async def was_set_up(self) -> bool:
        """Whether they were complete once and not undone: what is missing now was removed."""
        ...

    async def missing(self) -> Sequence[SettingChange]: ...

    async def repair(self) -> Sequence[SettingChange]:
        """Makes the changes that can do no harm; returns them."""
        ...


class Reconciler:
    """Compares every `every` seconds. Rows of others and of unknown devices are never touched.

    `lacks`: settings that the broker never had, as text. `last_pass` is in Unix seconds.
    """

    def __init__(
        self,
        fleet: FleetState,
        tables: BrokerTables,
        effects: EffectQueue,
        every: float,
        log: Log,
        managed: ManagedRules,
        settings: BrokerSettings,
        nodes: NodeWatch,
    ) -> None:
        self._fleet = fleet
        self._tables = tables
        self._effects = effects
        self._every = every
        self._log = log
        self._settings = settings
        self._nodes = nodes
        self._managed = managed
        self._turn = 0
        self._passing = asyncio.Lock()  # two passes at a time would request the same repairs twice
        self.book = DriftLog()
        self.lacks = ""
        self.last_pass: float | None = None
        self.trouble = ""
        self.repaired = 0

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            pause = self._every * min(1.0, 2 / len(self._tables.addresses))
            try:
                await self.reconcile()
                self.trouble = ""
            except BrokerError as e:
                if not self.trouble:
                    self._log("cannot compare with the broker", {"error": str(e)})
                self.trouble = str(e)
                pause = min(RETRY, self._every)
            await asyncio.sleep(pause)

    async def reconcile(self, *, everywhere: bool = False) -> list[DriftEntry]:
        """One pass over one node, or over all nodes; returns the differences, whose repair has begun.

        Raises:
            BrokerError: no node could be read.
        """
        async with self._passing:
            await self._nodes.look()
            trouble = await self._tables.read_prefixes()
            if trouble:
                self._log("topics in use that begin with $ are not known", {"error": trouble})
            settings = await self._compare_setup()
            unequal = await self._compare_counts()
            read: dict[str, NodeComparison] = await self._read(every_node=everywhere or bool(unequal))
            found = [*settings, *unequal, *(self._unread(one) for one in self._nodes.unread)]
            repairs: list[tuple[Device, DriftCandidate]] = []
            seen: set[str] = set()
            for compared in read.values():
                found += [self._unknown_ban(ban) for ban in compared.unknown_bans]
                for suspect in await self._confirmed(compared):
                    found.append(self._drift(suspect))
                    if suspect.device.device_id not in seen:
                        seen.add(suspect.device.device_id)
                        repairs.append((suspect.device, suspect))
            now = self._fleet.clock.now()
            fresh = self.book.record(found, frozenset(read) | self._named_nodes(), now)
            await self._record(fresh)
            for device, suspect in repairs:
                await self._repair(device, suspect)
            self.last_pass = now
            return found

    def _named_nodes(self) -> frozenset[str]:
        """Names under which a node may have been entered as not readable."""
        return frozenset(entry.node for entry in self.book.open if not entry.device_id and entry.node)

    def _unread(self, one: UnreadNode) -> DriftEntry:
        what = "a running node cannot be read" if one.node else "which nodes run is not known"
        return DriftEntry("", what, one.node, DriftState.ALERTED, one.reason)

    async def _read(self, *, every_node: bool) -> dict[str, NodeComparison]:
        """Reads the next node, or all of them; an unreachable node is skipped while others answer."""
        bases = self._nodes.addresses
        order = [bases[(self._turn + number) % len(bases)] for number in range(len(bases))]
        self._turn += 1
        read: dict[str, NodeComparison] = {}
        failure: BrokerError | None = None
        for base in order:
            try:
                read[base] = await comparison.compare(
                    base, self._tables, self._fleet, self._managed.managed(), self._is_busy
                )
            except BrokerError as e:
                failure = e
            if read and not every_node:
                break
        if not read:
            assert failure is not None
            raise failure
        return read

    async def _confirmed(self, compared: NodeComparison) -> list[DriftCandidate]:
        suspects = compared.suspects
        confirmed: list[DriftCandidate] = []
        if len(suspects) > comparison.CERTAIN:
            confirmed = list(suspects)
        else:
            for one in suspects:
                what = await comparison.recheck(one, self._tables, self._fleet, self._managed.managed(), self._is_busy)
                if what:
                    confirmed.append(DriftCandidate(one.device, what, one.node))
        # What another controller carries out meanwhile is no drift.
        self._effects.tell(await self._effects.look(self._fleet.store, *(one.device.device_id for one in confirmed)))
        return [one for one in confirmed if not self._is_busy(one.device.device_id)]

    async def _compare_setup(self) -> list[DriftEntry]:
        """Compares the settings: removed ones are repaired where that is safe, all others reported."""
        missing = await self._settings.missing()
        if not missing:
            self.lacks = ""
            return []
        if not await self._settings.was_set_up():
            self.lacks = ", ".join(change.what for change in missing)
            detail = "it is not set up, or this was undone: run `cordon broker setup --apply`"
            return [DriftEntry("", f"{change.what}: missing", "", DriftState.ALERTED, detail) for change in missing]
        drift = [
            DriftEntry("", f"{change.what}: altered", "", DriftState.ALERTED, change.danger)
            for change in missing
            if change.danger
        ]
        if len(drift) < len(missing):
            made = await self._settings.repair()
            self.repaired += len(made)
            detail = "restored as it was set up"
            drift += [DriftEntry("", f"{one.what}: altered", "", DriftState.REPAIRING, detail) for one in made]
        return drift

    async def _compare_counts(self) -> list[DriftEntry]:
        """Reports nodes with different row counts; counts are read twice, because replication takes a moment."""
        bases = self._nodes.addresses
        if len(bases) == 1 or not _differ(await self._counts()):
            return []
        await asyncio.sleep(SETTLE)
        counts = await self._counts()
        if not _differ(counts):
            return []
        texts = [f"{base}: {one.bans} bans, {one.rules} rows of rules" for base, one in counts.items()]
        detail = "Cordon's own rows are repaired, rows of others are not: " + "; ".join(texts)
        return [DriftEntry("", "nodes hold different bans or rules", "", DriftState.ALERTED, detail)]

    async def _counts(self) -> dict[str, TableCounts]:
        bases = self._nodes.addresses
        answers = await asyncio.gather(*(self._tables.counts(base) for base in bases), return_exceptions=True)
        counts: dict[str, TableCounts] = {}
        for base, answer in zip(bases, answers, strict=True):
            if isinstance(answer, TableCounts):
                counts[base] = answer
            elif not isinstance(answer, BrokerError):
                raise answer
        return counts

    def _is_busy(self, device_id: str) -> bool:
        return self._effects.is_busy(device_id) or self._managed.is_busy(device_id)

    def _drift(self, suspect: DriftCandidate) -> DriftEntry:
        device_id, what, node = suspect.device.device_id, suspect.what, suspect.node
        if what == comparison.ACCESS_ALTERED:
            return DriftEntry(device_id, what, node, DriftState.ALERTED, _FOREIGN_CHANGE)
        return DriftEntry(device_id, what, node, DriftState.REPAIRING, "written again, and read back")

    def _unknown_ban(self, ban: Ban) -> DriftEntry:
        detail = "it has Cordon's mark, but the store has no such device: remove it if nobody needs it"
        case_id = ban.by.removeprefix(BAN_MARK)
        return DriftEntry(ban.who, "a ban of an unknown device", "", DriftState.ALERTED, detail, case_id)

    async def _repair(self, device: Device, suspect: DriftCandidate) -> None:
        """Enqueues the effect of the case again: the outbox writes, reads back and records as the first time."""
        fleet, device_id, case, what = self._fleet, device.device_id, device.case, suspect.what
        present = await fleet.find(device_id)
        if present is None or present.case != case or self._is_busy(device_id):
            return  # a decision was made during the comparison
        if what == comparison.ACCESS_ALTERED:
            return
        case_id = "" if case is None else case.case_id
        await fleet.apply_and_commit(device_id, DriftDetected(fleet.new_id(), case_id, what))
        self.repaired += 1
        effect_id = f"drift-{fleet.new_id()}"
        if what == comparison.ACCESS_MISSING:
            self._managed.rewrite(device_id)
            return
        await self._repair_node(suspect)
        effect: ContainmentEffect
        if case is None:
            effect = ReleaseClient(effect_id, device_id, case_id)
        elif case.level is ContainmentLevel.ISOLATED:
            effect = IsolateClient(effect_id, device_id, case_id, False, case.isolate_until, case.reason)
        elif what == comparison.BAN_LEFT:
            effect = EndIsolation(effect_id, device_id, case_id)
        else:
            effect = RestrictClient(effect_id, device_id, case_id, False)
        await self._effects.repeat(effect, fleet)

    async def _repair_node(self, suspect: DriftCandidate) -> None:
        """Writes rules that only one node lacks: an effect would read another node and find nothing to write."""
        device_id = suspect.device.device_id
        if suspect.what not in _RULES_LOST or len(self._tables.addresses) == 1:
            return
        wanted = restriction(device_id, self._tables.prefixes)
        for base in self._nodes.addresses:
            try:
                if base != suspect.node and await self._tables.rules_of(base, device_id) == wanted:
                    await self._tables.write_rules(suspect.node, device_id, wanted)
                    return
            except BrokerError as e:
                self._log("a node could not be repaired", {"node": base, "error": str(e)})

    async def _record(self, fresh: list[DriftEntry]) -> None:
        """Audits drift of the broker itself and drift without a repair; a repair has its own event."""
        entries: list[AuditEntry] = []
        for one in fresh:
            if one.device_id and one.state is not DriftState.ALERTED:
                continue
            detail: dict[str, object] = {"what": one.what, "state": one.state.value, "detail": one.detail}
            is_known = bool(one.device_id) and await self._fleet.find(one.device_id) is not None
            known = one.device_id if is_known else ""
            if not known and one.device_id:
                detail["device"] = one.device_id
            kind = AuditKind.BROKER_DRIFT_FOUND
            entries.append(AuditEntry(kind, known, _ACTOR, one.case_id, detail=detail, alert=True))
        if entries:
            await self._fleet.record(*entries)


def _differ(counts: Mapping[str, TableCounts]) -> bool:
    return len({(one.bans, one.rules) for one in counts.values()}) > 1
