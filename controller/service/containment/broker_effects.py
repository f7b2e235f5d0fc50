"""What an effect asks of the broker and what the store has to remember for it: rules and subscriptions written over."""

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
from controller.ports.broker import BrokerControl, Proof, SavedSubscription, SaveRules, SaveSubscriptions
from controller.ports.broker_tables import AccessRules
from controller.service.fleet_state import FleetState

# The device and the rules that were kept for it in; the rules it gets back out.
RulesAfterRelease = Callable[[str, AccessRules], Awaitable[AccessRules]]


async def rules_as_saved(_device_id: str, saved: AccessRules) -> AccessRules:
    """Gives a device the rules back that it had before its containment."""
    return saved


class ContainmentExecutor:
    """Carries one device's containing effects out at the broker; what is kept is in the store before it is cut."""

    def __init__(self, keeper: FleetState, broker: BrokerControl, rules_after: RulesAfterRelease) -> None:
        self._keeper = keeper
        self._broker = broker
        # A template may have changed, and a grant may have expired, during the containment.
        self._rules_after = rules_after

    async def carry_out(self, effect: ContainmentEffect) -> Proof:
        """Ask the broker, and forget what was kept once it is given back.

        Raises:
            BrokerError: nothing is known to have changed.
        """
        client = Subject.client(effect.device_id)
        match effect:
            case RestrictClient():
                return await self._broker.restrict(
                    client,
                    self._keep_rules(effect),
                    save_subscriptions=self._keep_subscriptions(effect),
                    kick=effect.kick,
                )
            case IsolateClient():
                return await self._broker.isolate(
                    client,
                    self._keep_rules(effect),
                    case=effect.case_id,
                    reason=effect.reason,
                    until=effect.until,
                    clear_retained=effect.clear_retained,
                )
            case EndIsolation():
                return await self._broker.end_isolation(client, self._keep_rules(effect))
            case ReleaseClient():
                return await self._release(effect)

    async def _release(self, effect: ReleaseClient) -> Proof:
        store, device_id, case_id = self._keeper.store, effect.device_id, effect.case_id
        kept = await store.kept_rules(device_id, case_id)
        back = await self._rules_after(device_id, kept or ())
        subscriptions = await store.kept_subscriptions(device_id, case_id)
        proof = await self._broker.release(Subject.client(device_id), back, subscriptions)
        if proof.holds:
            await store.forget_rules(device_id, case_id)
        return proof

    async def overtaken(self, effect: Effect, device: Device | None) -> None:
        """A release that a newer case overtook: the rules kept for the old case belong to the newer one."""
        if not isinstance(effect, ReleaseClient) or device is None or device.case is None:
            return
        store, device_id, now = self._keeper.store, effect.device_id, self._keeper.clock.now()
        kept = await store.kept_rules(device_id, effect.case_id)
        if kept is None or device.case.case_id == effect.case_id:
            return
        await store.keep_rules(device_id, device.case.case_id, kept, now)
        cut = await store.kept_subscriptions(device_id, effect.case_id)
        await store.keep_subscriptions(device_id, device.case.case_id, cut, now)
        await store.forget_rules(device_id, effect.case_id)

    def _keep_rules(self, effect: RestrictClient | IsolateClient | EndIsolation) -> SaveRules:
        async def keep(rules: AccessRules) -> None:
            await self._keeper.store.keep_rules(effect.device_id, effect.case_id, rules, self._keeper.clock.now())

        return keep

    def _keep_subscriptions(self, effect: RestrictClient) -> SaveSubscriptions:
        async def keep(cut: tuple[SavedSubscription, ...]) -> None:
            await self._keeper.store.keep_subscriptions(effect.device_id, effect.case_id, cut, self._keeper.clock.now())

        return keep


def level_of(effect: ContainmentEffect) -> ContainmentLevel:
    """How far a device is contained once the effect is carried out."""
    match effect:
        case IsolateClient():
            return ContainmentLevel.ISOLATED
        case ReleaseClient():
            return ContainmentLevel.NONE
        case _:
            return ContainmentLevel.RESTRICTED
