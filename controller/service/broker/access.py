"""Access rules: keeps each device's rules at the broker as its template and grants say, and expires grants.

Rules are stored before they are written, so that after a crash they are known as Cordon's own; rules of others are
never replaced. A contained device has the rules of the restriction; its release restores what its template says then.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.broker.access import (
    NO_TEMPLATES,
    AccessGrant,
    AccessRuleCompiler,
    AccessTemplates,
    CompiledRules,
)
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, IsolateClient, RestrictClient
from controller.domain.policy.model import ContainmentLevel
from controller.ports.access import AccessBroker, AccessStore, StoredTemplates, WrittenRules
from controller.ports.broker_tables import AccessRules, is_restriction, restriction
from controller.ports.errors import BrokerError
from controller.ports.log import Log
from controller.service.broker.noted_devices import DueDevice, NotedDevices
from controller.service.broker.rule_forms import RuleForms
from controller.service.containment.effect_queue import EffectQueue
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

EVERY: Final = 5.0  # seconds between two passes over devices that may be due
LATEST: Final = 0.05  # seconds after its end within which a grant expires
AT_ONCE: Final = 16  # devices written at a time
BULK: Final = 100  # clients in one request; EMQX takes 14,000 clients a second so
MANY: Final = 50  # more devices than this: all rules are listed instead of read one by one
_ACTOR: Final = "access"

TemplateParser = Callable[[str], AccessTemplates]


@dataclass(slots=True)
class AccessState:
    """The active rules. `foreign`: devices whose rules others wrote; only an operator has them overwritten."""

    kept: StoredTemplates | None = None
    written: dict[str, WrittenRules] = field(default_factory=dict)
    grants: dict[str, list[AccessGrant]] = field(default_factory=dict)
    foreign: dict[str, AccessRules] = field(default_factory=dict)
    overwrite: set[str] = field(default_factory=set)


class AccessRuleManager:
    """Writes the access rules of devices that are not contained."""

    def __init__(
        self,
        fleet: FleetState,
        effects: EffectQueue,
        broker: AccessBroker,
        store: AccessStore,
        parse: TemplateParser,
        log: Log,
    ) -> None:
        """`parse` reads the text of templates. Call `load` first."""
        self._fleet = fleet
        self._effects = effects
        self.broker = broker
        self.store = store
        self.parse = parse
        self._log = log
        self._wake = asyncio.Event()
        self._ticking = asyncio.Lock()
        self._compiler = AccessRuleCompiler(NO_TEMPLATES)
        self._forms = RuleForms()
        self._managed: dict[str, AccessRules] = {}
        self.state = AccessState()
        self.trouble = ""
        self._noted = NotedDevices(fleet)
        self._begun: set[str] = set()  # devices whose rules a former run, or another leader, began to write

    async def load(self) -> None:
        """Loads templates, written rules and grants at the start."""
        kept = self.state.kept = await self.store.templates()
        self.set_templates(NO_TEMPLATES if kept is None else self.parse(kept.text))
        self.state.written = dict(await self.store.written())
        for device_id, one in self.state.written.items():
            if one.done:
                self._managed[device_id] = self._forms.of(one.rules)
        self._begun = {device_id for device_id, one in self.state.written.items() if not one.done}
        for grant in await self.store.open_grants():
            self.state.grants.setdefault(grant.device_id, []).append(grant)

    @property
    def templates(self) -> AccessTemplates:
        return self._compiler.templates

    def set_templates(self, templates: AccessTemplates) -> None:
        self._compiler = AccessRuleCompiler(templates)
        self._noted.note_all()
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self._wake.clear()
            await self._run_pass()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_next_pass()):
                    await self._wake.wait()

    async def _run_pass(self) -> None:
        trouble = ""
        try:
            await self.tick()
        except* BrokerError as group:
            trouble = str(group.exceptions[0])
        if trouble and not self.trouble:
            self._log("access rules cannot be written", {"error": trouble})
        self.trouble = trouble

    def on_commit(self, batch: UnitOfWork) -> None:
        """Notes the devices whose rules are to be written after a decision."""
        for device in batch.devices.values():
            if device.case is None and self._is_due(device) is not None:
                self._noted.note(device.device_id)

    def note(self, *device_ids: str) -> None:
        """Has the next pass look at these."""
        self._noted.note(*device_ids)
        self._wake.set()

    def managed(self) -> Mapping[str, AccessRules]:
        """By device, the rules that were written; for the reconciler."""
        return self._managed

    def is_busy(self, device_id: str) -> bool:
        """Whether the device's rules are about to be written."""
        return device_id in self._noted

    def rewrite(self, device_id: str) -> None:
        """Writes the device's rules again, at the next pass."""
        known = self.state.written.get(device_id)
        if known is not None:
            self.state.written[device_id] = WrittenRules(known.rules, None, done=False)
            self.state.foreign.pop(device_id, None)
            self.note(device_id)

    async def rules_after(self, device_id: str, kept: AccessRules) -> AccessRules:
        """The rules that a release restores: of the template and grants in force, else those that were saved.

        They are stored as written before this returns: by the next pass the grants may have changed.
        """
        device = await self._fleet.find(device_id)
        wanted = None if device is None else self.desired_rules(device)
        if wanted is None:
            ours = self.state.written.get(device_id)
            return () if ours is not None and kept == self._forms.of(ours.rules) else kept
        if device_id in self.state.foreign:
            return kept
        known = self.state.written.get(device_id)
        begun = WrittenRules(wanted, None if known is None else known.rules, done=False)
        await self.store.begin({device_id: begun})
        self.state.written[device_id] = begun
        self._noted.note(device_id)
        return self._forms.of(wanted)

    def desired_rules(self, device: Device, compiler: AccessRuleCompiler | None = None) -> CompiledRules | None:
        """The device's rules by its template and grants; `None` if it has neither."""
        grants = self.state.grants.get(device.device_id, ())
        return (compiler or self._compiler).rules(device.device_class, grants, self._fleet.clock.now())

    def _is_due(self, device: Device) -> DueDevice | None:
        device_id = device.device_id
        wanted, known = self.desired_rules(device), self.state.written.get(device_id)
        if device_id in self.state.overwrite:
            return DueDevice(device, wanted)
        if device_id in self.state.foreign or (known is None and wanted is None):
            return None
        if known is not None and known.done and known.rules is not wanted and known.rules == wanted:
            # Keeps the same object, so that the next comparison costs nothing.
            known = self.state.written[device_id] = WrittenRules(wanted)
        settled = known is not None and known.done and known.rules is wanted
        return None if settled else DueDevice(device, wanted)

    async def tick(self) -> None:
        """Expires grants, then writes what is due; contained and busy devices wait."""
        async with self._ticking:
            await self._expire_grants()
            for device_id in [one for one in self._begun if not self._effects.is_busy(one)]:
                with contextlib.suppress(BrokerError):  # tried again at the next pass
                    await self._yield_to_containment(device_id)
                    self._begun.discard(device_id)
            due: list[DueDevice] = []
            async with self._noted.taken() as devices:
                async for device in devices:
                    one = self._is_due(device)
                    if one is None or device.case is not None:
                        continue  # once a containment ends, its commit notes the device
                    self._noted.note(device.device_id)  # until its rules are written
                    if not self._effects.is_busy(device.device_id):
                        due.append(one)
                if due:
                    await self._write_all(due)

    async def _expire_grants(self) -> None:
        now = self._fleet.clock.now()
        ended = [one for grants in self.state.grants.values() for one in grants if one.expires_at <= now]
        if ended:
            await self.end(ended, _ACTOR, "expired")

    async def end(self, grants: Sequence[AccessGrant], actor: str, why: str) -> None:
        """Ends grants in the store; their rules are removed at the next pass."""
        now = self._fleet.clock.now()
        await self.store.end_grants([one.grant_id for one in grants], now)
        gone = {one.grant_id for one in grants}
        for device_id in {one.device_id for one in grants}:
            left = [one for one in self.state.grants.get(device_id, []) if one.grant_id not in gone]
            if left:
                self.state.grants[device_id] = left
            else:
                self.state.grants.pop(device_id, None)
            self._noted.note(device_id)
        entries = (
            AuditEntry(AuditKind.ACCESS_GRANT_ENDED, one.device_id, actor, detail={"grant": one.grant_id, "why": why})
            for one in grants
        )
        await self._fleet.record(*entries)
        self._wake.set()

    async def _write_all(self, due: Sequence[DueDevice]) -> None:
        actual = await self._current_rules(due)
        await self._look_again([one for one in due if self._is_foreign(one, actual)])
        ready: list[DueDevice] = []
        for one in due:
            if self._is_foreign(one, actual):
                self._skip_foreign(one.device.device_id, actual[one.device.device_id])
            else:
                ready.append(one)
        if not ready:
            return
        known = self.state.written
        begun: dict[str, WrittenRules] = {}
        for one in ready:
            before, device_id = known.get(one.device.device_id), one.device.device_id
            if one.wanted is not None:
                begun[device_id] = WrittenRules(one.wanted, None if before is None else before.rules, done=False)
            elif before is not None:
                begun[device_id] = WrittenRules(before.rules, before.previous, done=False)
        await self.store.begin(begun)
        known.update(begun)
        single = await self._write_bulk([one for one in ready if one.device.device_id not in actual])
        single += [one for one in ready if one.device.device_id in actual]
        turns = asyncio.Semaphore(AT_ONCE)
        failed: list[str] = []

        async def write(one: DueDevice) -> None:
            async with turns:
                try:
                    await self._write(one, actual.get(one.device.device_id))
                except BrokerError as e:  # a failure of one device does not stop the others; it stays due
                    failed.append(f"{one.device.device_id}: {e}")

        async with asyncio.TaskGroup() as group:
            for one in single:
                group.create_task(write(one))
        if failed:
            raise BrokerError(f"{len(failed)} devices, the first one {failed[0]}")

    async def _current_rules(self, due: Sequence[DueDevice]) -> Mapping[str, AccessRules]:
        ids = {one.device.device_id for one in due}
        if len(ids) > MANY:
            return await self.broker.rules_of_all(ids)
        return {device_id: rules for device_id in ids if (rules := await self.broker.rules(device_id)) is not None}

    async def _look_again(self, strange: Sequence[DueDevice]) -> None:
        """Another controller may have written the rules of a release: the store has them."""
        if strange:
            self.state.written.update(await self.store.written([one.device.device_id for one in strange]))

    def _is_foreign(self, one: DueDevice, actual_rules: Mapping[str, AccessRules]) -> bool:
        device_id = one.device.device_id
        actual, known = actual_rules.get(device_id), self.state.written.get(device_id)
        if actual is None or device_id in self.state.overwrite:
            return False
        ours = (one.wanted, *(() if known is None else (known.rules, known.previous)))
        return not is_restriction(actual, device_id) and all(
            actual != self._forms.of(rules) for rules in ours if rules is not None
        )

    def _skip_foreign(self, device_id: str, rules: AccessRules) -> None:
        known = self.state.written.get(device_id)
        if known is not None and not known.done:
            # The rules were changed at the broker: the reconciler reports drift.
            self.state.written[device_id] = WrittenRules(known.rules, known.previous)
        self._noted.settle(device_id)
        if device_id not in self.state.foreign:
            self.state.foreign[device_id] = rules
            self._log("access rules of others are not replaced", {"device": device_id, "rules": len(rules)})

    async def _write_bulk(self, new: Sequence[DueDevice]) -> list[DueDevice]:
        """Writes equal rules of devices without any, 100 in one request; returns the devices to write one by one."""
        left: list[DueDevice] = [one for one in new if one.wanted is None]
        giving = sorted((one for one in new if one.wanted is not None), key=lambda one: id(one.wanted))
        for _, group in groupby(giving, key=lambda one: id(one.wanted)):
            same = list(group)
            if len(same) < 2:
                left += same
                continue
            for first in range(0, len(same), BULK):
                await self._add(same[first : first + BULK])
        return left

    async def _add(self, some: Sequence[DueDevice]) -> None:
        wanted = some[0].wanted
        assert wanted is not None
        still = [one for one in some if await self._may_write(one)]
        # A row that was made meanwhile, as by a containment, makes EMQX refuse the whole request: nothing is replaced.
        if not still or not await self.broker.add([one.device.device_id for one in still], self._forms.of(wanted)):
            return
        turns = asyncio.Semaphore(AT_ONCE)

        async def settle(one: DueDevice) -> None:
            async with turns:
                await self.broker.settle(one.device.device_id, wanted)

        async with asyncio.TaskGroup() as group:
            for one in still:
                group.create_task(settle(one))
        await self._finish(still)

    async def _may_write(self, one: DueDevice) -> bool:
        present = await self._fleet.find(one.device.device_id)
        return present is not None and present.case is None and not self._effects.is_busy(one.device.device_id)

    async def _write(self, one: DueDevice, actual: AccessRules | None) -> None:
        device_id = one.device.device_id
        if not await self._may_write(one):
            return
        if one.wanted is None:
            known = self.state.written.get(device_id)
            if actual is not None and known is not None and not is_restriction(actual, device_id):
                await self.broker.write(device_id, None)
                await self.broker.settle(device_id, ())
        elif actual != self._forms.of(one.wanted):
            await self.broker.write(device_id, self._forms.of(one.wanted))
            await self.broker.settle(device_id, one.wanted)
        if await self._may_write(one):
            await self._finish([one])
        else:
            await self._yield_to_containment(device_id)

    async def disown(self, device_ids: Sequence[str]) -> None:
        """Leaves the rules of these devices to whoever changed them."""
        await self.store.forget(device_ids)
        self._forget(device_ids)

    def _forget(self, device_ids: Sequence[str]) -> None:
        for device_id in device_ids:
            self.state.written.pop(device_id, None)
            self._managed.pop(device_id, None)

    async def _finish(self, done: Sequence[DueDevice]) -> None:
        gone = [one.device.device_id for one in done if one.wanted is None]
        there = [one for one in done if one.wanted is not None]
        if gone:
            await self.store.forget(gone)
        if there:
            await self.store.done([one.device.device_id for one in there])
        self._forget(gone)
        for one in there:
            assert one.wanted is not None
            self.state.written[one.device.device_id] = WrittenRules(one.wanted)
            self._managed[one.device.device_id] = self._forms.of(one.wanted)
        for one in done:
            self._noted.settle(one.device.device_id)
            self.state.foreign.pop(one.device.device_id, None)
            self.state.overwrite.discard(one.device.device_id)

    async def _yield_to_containment(self, device_id: str) -> None:
        """Writes the restriction again if a containment was decided meanwhile, and has the outbox read it back."""
        present = await self._fleet.find(device_id)
        if present is None or present.case is None:
            return
        await self.broker.write(device_id, restriction(device_id))
        case, effect_id = present.case, f"access-{self._fleet.new_id()}"
        again: IsolateClient | RestrictClient = RestrictClient(effect_id, device_id, case.case_id, False)
        if case.level is ContainmentLevel.ISOLATED:
            again = IsolateClient(effect_id, device_id, case.case_id, False, case.isolate_until, case.reason)
        await self._effects.repeat(again, self._fleet)

    def _seconds_to_next_pass(self) -> float:
        """Seconds until the next pass: `EVERY`, or until the first grant expires."""
        ends = [one.expires_at for grants in self.state.grants.values() for one in grants]
        first = min(ends, default=float("inf")) - self._fleet.clock.now()
        return max(LATEST, min(EVERY, first + LATEST))
