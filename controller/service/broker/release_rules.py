"""The access rules that a release restores, also on a controller that does not keep them."""

import asyncio
from typing import Final

from controller.domain.broker.access import NO_TEMPLATES, AccessRuleCompiler, CompiledRules
from controller.ports.access import AccessStore, StoredTemplates, WrittenRules, as_broker_rules
from controller.ports.broker_tables import AccessRules
from controller.service.broker.access import AccessRuleManager, TemplateParser
from controller.service.fleet_state import FleetState

_NOTHING: Final = AccessRuleCompiler(NO_TEMPLATES)


class ReleaseRules:
    """As `AccessRuleManager.rules_after`, where this controller has none: everything is read from the store."""

    def __init__(self, fleet: FleetState, store: AccessStore, parse: TemplateParser) -> None:
        self._fleet = fleet
        self._store = store
        self._parse = parse
        self._compiled: tuple[StoredTemplates | None, AccessRuleCompiler] = (None, _NOTHING)
        self._manager: AccessRuleManager | None = None

    def follow(self, manager: AccessRuleManager | None) -> None:
        """`manager`: keeps the access rules in this controller from now on; `None`: another controller does."""
        self._manager = manager

    async def rules_after(self, device_id: str, kept: AccessRules) -> AccessRules:
        """The rules that a release restores; rules that Cordon did not write are given back as they were."""
        if self._manager is not None:
            return await self._manager.rules_after(device_id, kept)
        known = (await self._store.written([device_id])).get(device_id)
        wanted = await self._wanted(device_id)
        ours = () if known is None else (known.rules, known.previous)
        if wanted is None:
            return () if known is not None and kept == as_broker_rules(known.rules) else kept
        if kept and all(one is None or kept != as_broker_rules(one) for one in (wanted, *ours)):
            return kept
        begun = WrittenRules(wanted, None if known is None else known.rules, done=False)
        await self._store.begin({device_id: begun})
        return as_broker_rules(wanted)

    async def _wanted(self, device_id: str) -> CompiledRules | None:
        stored, grants = await self._store.templates(), await self._store.open_grants(device_id)
        if stored != self._compiled[0]:
            templates = NO_TEMPLATES if stored is None else await asyncio.to_thread(self._parse, stored.text)
            self._compiled = (stored, AccessRuleCompiler(templates))
        device = await self._fleet.find(device_id)
        return None if device is None else self._compiled[1].rules(device.device_class, grants, self._fleet.clock.now())
