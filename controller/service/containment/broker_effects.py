"""Carries out containment effects at the broker, and saves the rules and subscriptions that they replace."""

from collections.abc import Awaitable, Callable

from controller.domain.containment.plan import Subject
from controller.domain.device import Device
from controller.domain.effects import (
    ContainmentEffect,
    Effect,
    EndIsolation,
    IsolateClient,
    ReleaseClient,
    RestrictClient,
)
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import ContainmentBroker, Proof, SavedSubscription, SaveRules, SaveSubscriptions
from controller.ports.broker_tables import AccessRules
from controller.service.fleet_state import FleetState

# Maps a device and its saved rules to the rules that it gets back.
RulesAfterRelease = Callable[[str, AccessRules], Awaitable[AccessRules]]


async def rules_as_saved(_device_id: str, saved: AccessRules) -> AccessRules:
    """Gives a device the rules back that it had before its containment."""
    return saved


class ContainmentExecutor:
    """Contains and releases subjects at the broker; saves in the store what it replaces there, before it is replaced.

    Every method raises `BrokerError` where nothing is known to have changed.
    """

    def __init__(
        self, fleet: FleetState, broker: ContainmentBroker, rules_after: RulesAfterRelease = rules_as_saved
    ) -> None:
        self._fleet = fleet
        self._broker = broker
        # A template may have changed, and a grant may have expired, during the containment.
        self._rules_after = rules_after

    async def carry_out(self, effect: ContainmentEffect) -> Proof:
        """Carries out a device's effect."""
        client, case_id = Subject.client(effect.device_id), effect.case_id
        match effect:
            case RestrictClient():
                return await self.restrict(client, case_id, kick=effect.kick, violates=effect.by_policy)
            case IsolateClient():
                return await self.isolate(
                    client,
                    case_id,
                    reason=effect.reason,
                    until=effect.until,
                    clear_retained=effect.clear_retained,
                    violates=effect.by_policy,
                )
            case EndIsolation():
                return await self.end_isolation(client, case_id)
            case ReleaseClient():
                return await self.release(client, case_id)

    async def restrict(self, subject: Subject, case_id: str, *, kick: bool = False, violates: bool = False) -> Proof:
        save_rules, save_subscriptions = self._save_rules(subject, case_id), self._save_subscriptions(subject, case_id)
        return await self._broker.restrict(
            subject, save_rules, save_subscriptions=save_subscriptions, kick=kick, violates=violates
        )

    async def isolate(
        self,
        subject: Subject,
        case_id: str,
        *,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
        violates: bool = False,
    ) -> Proof:
        return await self._broker.isolate(
            subject,
            self._save_rules(subject, case_id),
            case=case_id,
            reason=reason,
            until=until,
            clear_retained=clear_retained,
            violates=violates,
        )

    async def end_isolation(self, subject: Subject, case_id: str) -> Proof:
        return await self._broker.end_isolation(subject, self._save_rules(subject, case_id))

    async def release(self, subject: Subject, case_id: str) -> Proof:
        """Restores what was saved, and forgets it once that is proven."""
        store, key = self._fleet.store, str(subject)
        rules = await self._rules_after(key, await store.kept_rules(key, case_id) or ())
        proof = await self._broker.release(subject, rules, await store.kept_subscriptions(key, case_id))
        if proof.holds:
            await store.forget_rules(key, case_id)
        return proof

    async def on_superseded(self, effect: Effect, device: Device | None) -> None:
        """Moves the rules saved for a release that a newer case superseded to that case."""
        if not isinstance(effect, ReleaseClient) or device is None or device.case is None:
            return
        store, device_id, now = self._fleet.store, effect.device_id, self._fleet.clock.now()
        rules = await store.kept_rules(device_id, effect.case_id)
        if rules is None or device.case.case_id == effect.case_id:
            return
        await store.keep_rules(device_id, device.case.case_id, rules, now)
        subscriptions = await store.kept_subscriptions(device_id, effect.case_id)
        await store.keep_subscriptions(device_id, device.case.case_id, subscriptions, now)
        await store.forget_rules(device_id, effect.case_id)

    def _save_rules(self, subject: Subject, case_id: str) -> SaveRules:
        async def save(rules: AccessRules) -> None:
            await self._fleet.store.keep_rules(str(subject), case_id, rules, self._fleet.clock.now())

        return save

    def _save_subscriptions(self, subject: Subject, case_id: str) -> SaveSubscriptions:
        async def save(cut: tuple[SavedSubscription, ...]) -> None:
            await self._fleet.store.keep_subscriptions(str(subject), case_id, cut, self._fleet.clock.now())

        return save


def level_of(effect: ContainmentEffect) -> ContainmentLevel:
    """How far a device is contained once the effect is carried out."""
    match effect:
        case IsolateClient():
            return ContainmentLevel.ISOLATED
        case ReleaseClient():
            return ContainmentLevel.NONE
        case _:
            return ContainmentLevel.RESTRICTED
