"""Starts the rollouts that policies request: the update that fixes a rule, for the devices that fail it."""

import asyncio
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.response import is_response_due, rules_without_response
from controller.domain.effects import AuditEntry
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import PolicyRule
from controller.domain.rollout.model import Rollout, RolloutError, RolloutState, RolloutTarget
from controller.ports.errors import StoreError
from controller.ports.fleet_queries import DeviceFilter
from controller.ports.log import Log
from controller.ports.rollouts import TargetError
from controller.service.fleet_state import FleetState
from controller.service.rollout.operations import RolloutOperations, RolloutRequest
from controller.service.settings.rollouts import RolloutSettings
from controller.service.unit_of_work import UnitOfWork

EVERY: Final = 15.0  # seconds between two passes over all devices
POLICY: Final = "policy"
MOST_PAST: Final = 200  # earlier rollouts of a name that are considered


class RolloutTrigger:
    """Periodically checks the devices that fail a rule with an update; it has no stored state of its own."""

    def __init__(self, fleet: FleetState, operations: RolloutOperations, settings: RolloutSettings, log: Log) -> None:
        self._fleet = fleet
        self._operations = operations
        self._settings = settings
        self._log = log
        # By rule, why nothing was started: recorded once, until it changes.
        self._reasons: dict[str, str] = {}

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.run_once()
            except StoreError as e:
                self._log("rollouts of policies cannot be checked", {"error": str(e)})

    async def run_once(self) -> None:
        """Starts the requested rollouts that are not open."""
        rules = [rule for rule in self._fleet.policies.rules.values() if rule.response.rollout]
        self._reasons = {key: text for key, text in self._reasons.items() if key in {rule.key for rule in rules}}
        if not rules:
            return
        failing = await self._failing(rules)
        for rule in rules:
            if failing[rule.key]:
                await self._start_rollout(rule, failing[rule.key])
            else:
                self._reasons.pop(rule.key, None)

    async def _failing(self, rules: list[PolicyRule]) -> dict[str, set[str]]:
        fleet, now = self._fleet, self._fleet.clock.now()
        found: dict[str, set[str]] = {rule.key: set() for rule in rules}
        for rule in rules:
            async for device in fleet.select(DeviceFilter(rule=rule.key)):
                state = device.rules.get(rule.key)
                if state is None or state.result is not RuleResult.FAIL:
                    continue
                if is_response_due(state, rule.response, now) and rule.key not in rules_without_response(
                    device, fleet.policies, fleet.guards, now
                ):
                    found[rule.key].add(device.device_id)
        return found

    async def _start_rollout(self, rule: PolicyRule, failing: set[str]) -> None:
        try:
            target = await self._operations.find(rule.response.rollout)
            if any(one.target.name == target.name for one in self._operations.open()):
                return  # one at a time; devices that still fail are checked afterwards
            past = await self._previous_rollouts(target)
            left = failing - await self._already_included(past)
            if not left:
                return
            _check_no_stop(past)
            rollout = await self._operations.start(
                RolloutRequest(
                    target=target.path,
                    rings=self._settings.all_rings(),
                    terms=self._settings.terms(),
                    by=POLICY,
                    reason=f"{len(left)} devices fail {rule.key}",
                    device_ids=frozenset(left),
                    rule=rule.key,
                    is_proven=bool(past),
                )
            )
        except (RolloutError, TargetError) as e:
            await self._record_reason(rule, str(e))
            return
        self._reasons.pop(rule.key, None)
        self._log("rollout started by a rule", {"rule": rule.key, "rollout": rollout.rollout_id})

    async def _previous_rollouts(self, target: RolloutTarget) -> list[Rollout]:
        found = await self._operations.store.rollouts(limit=MOST_PAST, name=target.name)
        return [one for one in found if one.target.path == target.path]

    async def _already_included(self, past: list[Rollout]) -> set[str]:
        """The devices of earlier rollouts: an update that did not fix the rule is not tried again."""
        found: set[str] = set()
        for one in past:
            found.update(member.device_id for member in await self._operations.store.members(one.rollout_id))
        return found

    async def _record_reason(self, rule: PolicyRule, why: str) -> None:
        if self._reasons.get(rule.key) == why:
            return
        self._reasons[rule.key] = why
        detail: dict[str, object] = {"rule": rule.key, "target": rule.response.rollout, "why": why}
        batch = UnitOfWork()
        batch.audit.append(
            (self._fleet.clock.now(), AuditEntry(AuditKind.ROLLOUT_START_REFUSED, "", POLICY, "", detail, True))
        )
        await self._fleet.commit(batch)


def _check_no_stop(past: list[Rollout]) -> None:
    stopped = next((one for one in past if one.state is not RolloutState.COMPLETED), None)
    if stopped is not None:
        raise RolloutError(f"{stopped.rollout_id} of the same update was {stopped.state.value}: check it first")
