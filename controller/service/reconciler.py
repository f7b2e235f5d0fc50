"""Makes the broker hold what the store says: mends rows that went missing or were altered."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from controller.domain.device import Device
from controller.domain.effects import EndIsolation, IsolateClient, ReleaseClient, RestrictClient
from controller.domain.events import DriftFound
from controller.domain.policy import Level
from controller.ports.broker import BAN_MARK, Ban, BrokerControl, Rules, restriction
from controller.ports.errors import BrokerError
from controller.service.keeper import Keeper
from controller.service.outbox import Outbox

_LEFT_OVER_BAN: Final = "a ban is left over"
RETRY: Final = 2.0  # seconds after a pass that could not read the broker

Log = Callable[[str, Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between what should be and what is."""

    device_id: str
    what: str


class Reconciler:
    """Compares every `every` seconds. Foreign rows and unknown devices are left alone."""

    def __init__(
        self,
        keeper: Keeper,
        broker: BrokerControl,
        outbox: Outbox,
        every: float,
        log: Log,
        controller_id: str = "",
    ) -> None:
        self._keeper = keeper
        self._broker = broker
        self._outbox = outbox
        self._every = every
        self._log = log
        self._controller_id = controller_id
        self._was_set_up = False
        self.lacks = ""  # what the broker never had for Cordon to work
        self.last_pass: float | None = None  # Unix seconds
        self.trouble = ""
        self.repaired = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = self._every
            try:
                await self.reconcile()
                self.trouble = ""
            except BrokerError as e:
                if not self.trouble:
                    self._log("cannot compare with the broker", {"error": str(e)})
                self.trouble = str(e)
                pause = min(RETRY, self._every)
            await asyncio.sleep(pause)

    async def reconcile(self) -> list[Drift]:
        """One pass: what differed and was put right, or for the broker itself, what an operator has to do."""
        settings = await self._compare_setup()
        bans = {ban.who: ban async for ban in self._broker.bans() if ban.kind == "clientid"}
        rules = {client: rows async for client, rows in self._broker.client_rules()}
        found = [
            (device, drift)
            for device in list(self._keeper.devices.values())
            if not self._outbox.is_busy(device.device_id)
            and (drift := self._drift(device, bans.get(device.device_id), rules.get(device.device_id)))
        ]
        self._warn_of_strangers(bans)
        repaired = []
        for device, what in found:
            # Decisions go on while we compare: only what still differs for the present case is mended.
            present = self._keeper.get(device.device_id)
            if present is None or present.case != device.case or self._outbox.is_busy(device.device_id):
                continue
            await self._repair(present, what)
            repaired.append(Drift(device.device_id, what))
        self.last_pass = self._keeper.clock.now()
        self.repaired += len(repaired)
        return settings + repaired

    async def _compare_setup(self) -> list[Drift]:
        """The rules that all devices and the controller need: put back when they were there, else only told."""
        if not self._controller_id:
            return []
        missing = await self._broker.plan_setup(self._controller_id)
        if not missing:
            self._was_set_up, self.lacks = True, ""
            return []
        if self._was_set_up:
            made = await self._broker.apply_setup(self._controller_id)
            self.repaired += len(made)
            for change in made:
                self._log("settings put back", {"alert": True, "what": change.what, "before": change.before})
            return [Drift("", f"{change.what}: was altered, put back") for change in made]
        lacks = ", ".join(change.what for change in missing)
        if lacks != self.lacks:
            self._log("the broker lacks what Cordon needs", {"what": lacks, "mend": "cordon init"})
        self.lacks = lacks
        return [Drift("", f"{change.what}: missing, run `cordon init`") for change in missing]

    def _drift(self, device: Device, ban: Ban | None, rules: Rules | None) -> str:
        """What is wrong for this device; empty if nothing is."""
        case = device.case
        if case is None:
            if ban is not None and ban.is_ours:
                return _LEFT_OVER_BAN
            return "the restriction is left over" if rules == restriction(device.device_id) else ""
        if rules != restriction(device.device_id):
            return "the rules of the restriction are missing" if rules is None else "the rules were altered"
        if case.level is Level.ISOLATED and ban is None:
            return "the ban is missing"
        if case.level is Level.RESTRICTED and ban is not None and ban.is_ours:
            return _LEFT_OVER_BAN
        return ""

    async def _repair(self, device: Device, what: str) -> None:
        """Ask the outbox for the same effect again: it reads back, repeats and records like the first time."""
        keeper, device_id, case = self._keeper, device.device_id, device.case
        case_id = "" if case is None else case.case_id
        await keeper.handle(device_id, DriftFound(keeper.new_id(), case_id, what))
        effect_id = f"drift-{keeper.new_id()}"
        if case is None:
            self._outbox.put(ReleaseClient(effect_id, device_id, case_id))
        elif case.level is Level.ISOLATED:
            self._outbox.put(IsolateClient(effect_id, device_id, case_id, False, case.isolate_until, case.reason))
        elif what == _LEFT_OVER_BAN:
            self._outbox.put(EndIsolation(effect_id, device_id, case_id))
        else:
            self._outbox.put(RestrictClient(effect_id, device_id, case_id, False))

    def _warn_of_strangers(self, bans: Mapping[str, Ban]) -> None:
        for who, ban in bans.items():
            if ban.is_ours and self._keeper.get(who) is None:
                case = ban.by.removeprefix(BAN_MARK)
                self._log("a ban of ours for a device we do not know: left alone", {"device": who, "case": case})
