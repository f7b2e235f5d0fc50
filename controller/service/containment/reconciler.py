"""Makes the broker hold what the store says: finds rows and settings that went missing or were altered, and mends them.

Each node is read in turn, every one at least once in twice `every`; how many rows each holds is asked in every pass.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, EndIsolation, IsolateClient, ReleaseClient, RestrictClient
from controller.domain.events import DriftDetected
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import BrokerControl
from controller.ports.broker_setup import SettingChange
from controller.ports.broker_tables import BAN_MARK, Ban, BrokerTables, TableCounts, restriction
from controller.ports.errors import BrokerError
from controller.ports.log import Log
from controller.service.containment import comparison
from controller.service.containment.comparison import DriftCandidate, ManagedRules, NodeComparison, NoManagedRules
from controller.service.containment.drift import DriftEntry, DriftLog, DriftState
from controller.service.containment.outbox import EffectQueue
from controller.service.fleet_state import FleetState

RETRY: Final = 2.0  # seconds after a pass that could not read the broker
SETTLE: Final = 0.3  # seconds in which tables that were just written reach every node
_ACTOR: Final = "reconciler"
_RULES_GONE: Final = frozenset({comparison.RULES_MISSING, comparison.RULES_ALTERED})
_BY_HAND: Final = "somebody's work would be overwritten: `cordon access apply` writes the template again"


class BrokerSettings(Protocol):
    """What all devices and the controller need of the broker."""

    async def was_set_up(self) -> bool:
        """Whether it was there once, so that what is missing was taken away."""
        ...

    async def missing(self) -> Sequence[SettingChange]:
        """What is not there."""
        ...

    async def put_back(self) -> Sequence[SettingChange]:
        """Make it so where that can do no harm; what was changed."""
        ...


class Reconciler:
    """Compares every `every` seconds. Foreign rows and unknown devices are left alone."""

    def __init__(
        self,
        fleet: FleetState,
        broker: BrokerControl,
        tables: BrokerTables,
        effects: EffectQueue,
        every: float,
        log: Log,
        *,
        managed: ManagedRules | None = None,
        settings: BrokerSettings | None = None,
    ) -> None:
        """Without `settings` the broker's own settings are not compared."""
        self._fleet = fleet
        self._broker = broker
        self._tables = tables
        self._effects = effects
        self._every = every
        self._log = log
        self._settings = settings
        self._managed = managed or NoManagedRules()
        self._was_set_up = False
        self._turn = 0
        self._passing = asyncio.Lock()  # two at a time would ask for the same repairs twice
        self.book = DriftLog()
        self.lacks = ""  # what the broker never had for Cordon to work
        self.last_pass: float | None = None  # Unix seconds
        self.trouble = ""
        self.repaired = 0

    async def run(self) -> None:
        """Until cancelled."""
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
        """One pass over one node, or over all of them: what differs, and what is done about it.

        Raises:
            BrokerError: no node could be read.
        """
        async with self._passing:
            settings = await self._compare_setup()
            unequal = await self._unequal_nodes()
            read: dict[str, NodeComparison] = await self._read(every_node=everywhere or bool(unequal))
            found = [*settings, *unequal]
            repairs: list[tuple[Device, DriftCandidate]] = []
            seen: set[str] = set()
            for compared in read.values():
                found += [self._stranger(ban) for ban in compared.strangers]
                for suspect in await self._confirmed(compared):
                    found.append(self._difference(suspect))
                    if suspect.device.device_id not in seen:
                        seen.add(suspect.device.device_id)
                        repairs.append((suspect.device, suspect))
            now = self._fleet.clock.now()
            fresh = self.book.note(found, frozenset(read), now)
            await self._tell(fresh)
            for device, suspect in repairs:
                await self._repair(device, suspect)
            self.last_pass = now
            return found

    async def _read(self, *, every_node: bool) -> dict[str, NodeComparison]:
        """The tables of the node whose turn it is, or of all; a silent node is passed over while others answer."""
        bases = self._tables.addresses
        order = [bases[(self._turn + number) % len(bases)] for number in range(len(bases))]
        self._turn += 1
        read: dict[str, NodeComparison] = {}
        silence: BrokerError | None = None
        for base in order:
            try:
                read[base] = await comparison.compare(
                    base, self._tables, self._fleet, self._managed.managed(), self._is_busy
                )
            except BrokerError as e:
                silence = e
            if read and not every_node:
                break
        if not read:
            assert silence is not None
            raise silence
        return read

    async def _confirmed(self, compared: NodeComparison) -> list[DriftCandidate]:
        suspects = compared.suspects
        if len(suspects) > comparison.CERTAIN:
            return list(suspects)
        confirmed: list[DriftCandidate] = []
        for one in suspects:
            what = await comparison.still_differs(
                one, self._tables, self._fleet, self._managed.managed(), self._is_busy
            )
            if what:
                confirmed.append(DriftCandidate(one.device, what, one.node))
        return confirmed

    # Settings of the broker

    async def _compare_setup(self) -> list[DriftEntry]:
        """What all devices and the controller need: put back when it was there and that is safe, else only told."""
        if self._settings is None:
            return []
        missing = await self._settings.missing()
        if not missing:
            self._was_set_up, self.lacks = True, ""
            return []
        if not self._was_set_up and not await self._settings.was_set_up():
            self.lacks = ", ".join(change.what for change in missing)
            detail = "it was never set up: run `cordon broker setup --apply`"
            return [DriftEntry("", f"{change.what}: missing", "", DriftState.ALERTED, detail) for change in missing]
        told = [
            DriftEntry("", f"{change.what}: altered", "", DriftState.ALERTED, change.danger)
            for change in missing
            if change.danger
        ]
        if len(told) < len(missing):
            made = await self._settings.put_back()
            self.repaired += len(made)
            detail = "put back as it was set up"
            told += [DriftEntry("", f"{one.what}: altered", "", DriftState.REPAIRING, detail) for one in made]
        return told

    async def _unequal_nodes(self) -> list[DriftEntry]:
        """Nodes whose tables hold other numbers of rows than the rest, asked twice: tables travel for a moment."""
        bases = self._tables.addresses
        if len(bases) == 1 or not _differ(await self._counts()):
            return []
        await asyncio.sleep(SETTLE)
        counts = await self._counts()
        if not _differ(counts):
            return []
        texts = [f"{base}: {one.bans} bans, {one.rules} rows of rules" for base, one in counts.items()]
        detail = "Cordon's own rows are written again; the rest is for whoever made it: " + "; ".join(texts)
        return [DriftEntry("", "nodes hold different bans or rules", "", DriftState.ALERTED, detail)]

    async def _counts(self) -> dict[str, TableCounts]:
        bases = self._tables.addresses
        answers = await asyncio.gather(*(self._tables.counts(base) for base in bases), return_exceptions=True)
        counts: dict[str, TableCounts] = {}
        for base, answer in zip(bases, answers, strict=True):
            if isinstance(answer, TableCounts):
                counts[base] = answer
            elif not isinstance(answer, BrokerError):
                raise answer
        return counts

    # Rows

    def _is_busy(self, device_id: str) -> bool:
        return self._effects.is_busy(device_id) or self._managed.is_busy(device_id)

    def _difference(self, suspect: DriftCandidate) -> DriftEntry:
        device_id, what, node = suspect.device.device_id, suspect.what, suspect.node
        if what == comparison.ACCESS_ALTERED:
            return DriftEntry(device_id, what, node, DriftState.ALERTED, _BY_HAND)
        return DriftEntry(device_id, what, node, DriftState.REPAIRING, "asked for again, and read back")

    def _stranger(self, ban: Ban) -> DriftEntry:
        case = ban.by.removeprefix(BAN_MARK)
        detail = (
            f"its mark is Cordon's (case {case}), the store knows no such device: lift it by hand if it is not needed"
        )
        return DriftEntry(ban.who, "a ban for a device that is not known here", "", DriftState.ALERTED, detail)

    async def _repair(self, device: Device, suspect: DriftCandidate) -> None:
        """Ask the outbox for the same effect again: it reads back, repeats and records like the first time."""
        fleet, device_id, case, what = self._fleet, device.device_id, device.case, suspect.what
        present = fleet.get(device_id)
        if present is None or present.case != case or self._is_busy(device_id):
            return  # decisions go on while we compare
        if what == comparison.ACCESS_ALTERED:
            return
        case_id = "" if case is None else case.case_id
        await fleet.handle(device_id, DriftDetected(fleet.new_id(), case_id, what))
        self.repaired += 1
        effect_id = f"drift-{fleet.new_id()}"
        if what == comparison.ACCESS_MISSING:
            self._managed.rewrite(device_id)
            return
        await self._mend_at_node(suspect)
        if case is None:
            self._effects.enqueue(ReleaseClient(effect_id, device_id, case_id))
        elif case.level is ContainmentLevel.ISOLATED:
            self._effects.enqueue(IsolateClient(effect_id, device_id, case_id, False, case.isolate_until, case.reason))
        elif what == comparison.BAN_LEFT:
            self._effects.enqueue(EndIsolation(effect_id, device_id, case_id))
        else:
            self._effects.enqueue(RestrictClient(effect_id, device_id, case_id, False))

    async def _mend_at_node(self, suspect: DriftCandidate) -> None:
        """Where only this node lacks the rules, an effect that asks another one finds nothing to write."""
        device_id = suspect.device.device_id
        if suspect.what not in _RULES_GONE or len(self._tables.addresses) == 1:
            return
        wanted = restriction(device_id)
        for base in self._tables.addresses:
            try:
                if base != suspect.node and await self._tables.rules_of(base, device_id) == wanted:
                    await self._tables.write_rules(suspect.node, device_id, wanted)
                    return
            except BrokerError as e:
                self._log("a node could not be mended by itself", {"node": base, "error": str(e)})

    async def _tell(self, fresh: list[DriftEntry]) -> None:
        """What the record of no device has: differences of the broker itself, and those that are only alerted."""
        told = [one for one in fresh if not one.device_id or one.state is DriftState.ALERTED]
        if not told:
            return
        entries: list[AuditEntry] = []
        for one in told:
            detail: dict[str, object] = {"what": one.what, "state": one.state.value, "detail": one.detail}
            known = one.device_id if self._fleet.get(one.device_id) is not None else ""
            if not known and one.device_id:
                detail["device"] = one.device_id
            entries.append(AuditEntry(AuditKind.BROKER_DRIFT_FOUND, known, _ACTOR, detail=detail, alert=True))
        await self._fleet.record(*entries)


def _differ(counts: Mapping[str, TableCounts]) -> bool:
    return len({(one.bans, one.rules) for one in counts.values()}) > 1
