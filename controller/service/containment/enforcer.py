"""Carries out one effect at the broker or towards the device, and says as an event what came of it."""

import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from controller.domain import events as ev
from controller.domain.device import Device, OpenCommand
from controller.domain.effects import (
    ContainmentEffect,
    Effect,
    EndIsolation,
    IsolateClient,
    ReleaseClient,
    RestrictClient,
    SendCommand,
)
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import AuthStrength, BrokerControl, Proof
from controller.ports.errors import BrokerError, MessagesError, NoSubscriberError
from controller.ports.messages import Messages
from controller.service.containment.broker_effects import (
    ContainmentExecutor,
    RulesAfterRelease,
    level_of,
    rules_as_saved,
)
from controller.service.containment.identity_check import IdentityCheck
from controller.service.fleet_state import FleetState
from schemas.commands import Command
from schemas.signing import countersign
from schemas.topics import DownChannel, down


def payload_of(device_id: str, order: SendCommand | OpenCommand) -> bytes:
    """The payload of the envelope."""
    command = Command(
        command_id=order.command_id,
        device_id=device_id,
        action=order.action,
        params=dict(order.params),
        dry_run=order.dry_run,
        issued_at=datetime.fromtimestamp(order.issued_at, UTC),
        expires_at=datetime.fromtimestamp(order.expires_at, UTC),
        counter=order.counter,
    )
    return command.model_dump_json().encode()


MIN_EXPIRY: Final = 1  # second

# What the broker's word on a live session is worth.
_EVIDENCE: Final = {AuthStrength.PROVEN: Evidence.MUTUAL_TLS, AuthStrength.KNOWN: Evidence.PASSWORD}
CommandSigner = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class EffectDone:
    """Carried out and seen; `event` tells the device's state about it, if there is something to tell."""

    event: ev.DomainEvent | None


@dataclass(frozen=True, slots=True)
class EffectRetry:
    """Not done yet: try again, for ever if it has to be. `event` is told only the first time."""

    trouble: str
    event: ev.DomainEvent | None


class Enforcer:
    """The only one that touches the broker on behalf of a decision."""

    def __init__(
        self,
        keeper: FleetState,
        broker: BrokerControl,
        messages: Messages,
        sign: CommandSigner,
        rules_after: RulesAfterRelease = rules_as_saved,
        *,
        accept_claimed: bool = False,
    ) -> None:
        self._keeper = keeper
        self._broker = broker
        self._containment = ContainmentExecutor(keeper, broker, rules_after)
        self._messages = messages
        self._vouching = IdentityCheck(broker, messages, keeper.clock)
        self._sign = sign
        self._accept_claimed = accept_claimed

    async def carry_out(self, effect: Effect) -> EffectDone | EffectRetry:
        """Do what `effect` says, unless a later decision has overtaken it."""
        device = self._keeper.get(effect.device_id)
        if device is None or not is_current(effect, device):
            await self._containment.overtaken(effect, device)
            return EffectDone(None)
        if isinstance(effect, SendCommand):
            return await self._send(effect)
        try:
            return await self._contain(effect, device)
        except BrokerError as e:
            return self._troubled(effect, str(e), ())

    async def _contain(self, effect: ContainmentEffect, device: Device) -> EffectDone | EffectRetry:
        evidence = await self._vouch(effect, device)
        if not isinstance(evidence, Evidence):
            return evidence
        proof = await self._containment.carry_out(effect)
        steps = steps_of(proof)
        if not proof.holds:
            return self._troubled(effect, proof.missing, steps)
        event_id, level = self._keeper.new_id(), level_of(effect)
        if level is ContainmentLevel.NONE:
            return EffectDone(ev.ReleaseProven(event_id, effect.case_id, steps))
        return EffectDone(ev.ContainmentProven(event_id, effect.case_id, level, proof.cut_at, steps, evidence))

    async def _vouch(self, effect: ContainmentEffect, device: Device) -> EffectDone | EffectRetry | Evidence:
        """Refuse to let a policy contain a device on the word of somebody who may not be that device.

        What the signal itself proved needs no word of the broker's, and what was vouched for once needs no other: an
        attempt that did not hold may have cut the session that reported off.
        """
        case = device.case
        if not isinstance(effect, (RestrictClient, IsolateClient)) or not effect.by_policy or case is None:
            return Evidence.UNASKED
        if effect.evidence.may_contain or self._accept_claimed:
            return effect.evidence
        if case.evidence.may_contain:
            return case.evidence
        grade = await self._vouching.grade(effect.device_id, heard_at=case.evidence_since)
        if grade in _EVIDENCE:
            return await self._vouched(effect, _EVIDENCE[grade], case.evidence_since)
        if grade is AuthStrength.LATER:
            reason = "the session that is there now may have come after the one that reported"
            event = ev.ContainmentRefused(
                self._keeper.new_id(), effect.case_id, reason, Evidence.UNASKED, by_a_later=True
            )
            return EffectDone(event)
        if grade is AuthStrength.UNSEEN:
            if await self._is_out_by_our_hand(effect):
                return Evidence.UNASKED
            return self._troubled(effect, "the session that reported is gone, and the broker asks for no proof", ())
        reason = "the broker lets this client in without any proof of who it is"
        return EffectDone(ev.ContainmentRefused(self._keeper.new_id(), effect.case_id, reason))

    async def _vouched(self, effect: ContainmentEffect, evidence: Evidence, heard_at: float) -> Evidence:
        """Have it on disk before anything is done, where a session after the cut could not be vouched for."""
        if await self._broker.allows_unauthenticated():
            event = ev.ReporterAuthenticated(self._keeper.new_id(), effect.case_id, evidence, heard_at)
            await self._keeper.handle(effect.device_id, event)
        return evidence

    async def _is_out_by_our_hand(self, effect: ContainmentEffect) -> bool:
        """Whether a ban of ours is why the device has no session.

        An earlier attempt, or an earlier case, was vouched for and ended it. Nobody is shut out by going on who is not
        shut out already.
        """
        async for ban in self._broker.bans():
            if ban.kind == "clientid" and ban.who == effect.device_id and ban.is_ours:
                return True
        return False

    async def _send(self, effect: SendCommand) -> EffectDone | EffectRetry:
        now = self._keeper.clock.now()
        envelope = self._sign(payload_of(effect.device_id, effect))
        if effect.signatures:
            more = {name: base64.b64decode(signature) for name, signature in effect.signatures}
            envelope = countersign(envelope, more)
        expiry = max(MIN_EXPIRY, int(effect.expires_at - now))
        topic = down(effect.device_id, DownChannel.COMMAND)
        try:
            await self._messages.publish_confirmed(topic, envelope, expiry_seconds=expiry)
        except NoSubscriberError:
            return EffectDone(None)  # the device is away; it is sent again when it says online
        except MessagesError as e:
            return EffectRetry(str(e), None)
        return EffectDone(ev.CommandDelivered(self._keeper.new_id(), effect.command_id))

    def _troubled(self, effect: ContainmentEffect, trouble: str, steps: tuple[dict[str, object], ...]) -> EffectRetry:
        event = ev.ContainmentFailed(self._keeper.new_id(), effect.case_id, type(effect).__name__, trouble, steps)
        return EffectRetry(trouble, event)


def steps_of(proof: Proof) -> tuple[dict[str, object], ...]:
    """The steps as plain data for the record."""
    return tuple(asdict(one) for one in proof.steps)


def is_current(effect: Effect, device: Device) -> bool:
    """Whether the device's state still asks for this effect."""
    case = device.case
    match effect:
        case SendCommand():
            return any(command.command_id == effect.command_id for command in device.commands)
        case ReleaseClient():
            return case is None
        case RestrictClient() | EndIsolation():
            return case is not None and case.case_id == effect.case_id and case.level is ContainmentLevel.RESTRICTED
        case IsolateClient():
            return (
                case is not None
                and case.case_id == effect.case_id
                and case.level is ContainmentLevel.ISOLATED
                and case.isolate_until == effect.until
            )
