"""Carries out one effect at the broker or towards the device; the result becomes an event."""

import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
    """The bytes that are signed."""
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

# The evidence that the authentication of a live session gives.
_EVIDENCE: Final = {AuthStrength.PROVEN: Evidence.MUTUAL_TLS, AuthStrength.KNOWN: Evidence.PASSWORD}
CommandSigner = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class EffectDone:
    """Carried out and proven; `event` is the result for the device's state, if there is one."""

    event: ev.DomainEvent | None


@dataclass(frozen=True, slots=True)
class EffectRetry:
    """Not done yet: it is retried without end. `event` is applied after the first failure only.

    `unread`: the running nodes that could not be read, if nothing else is lacking; then `event` is applied for each
    other set of nodes.
    """

    trouble: str
    event: ev.DomainEvent | None
    unread: tuple[tuple[str, str], ...] = ()


class Enforcer:
    """Carries decisions out at the broker: no other service does."""

    def __init__(
        self,
        fleet: FleetState,
        broker: BrokerControl,
        messages: Messages,
        sign: CommandSigner,
        rules_after: RulesAfterRelease = rules_as_saved,
        *,
        accept_claimed: bool = False,
    ) -> None:
        self._fleet = fleet
        self._broker = broker
        self._containment = ContainmentExecutor(fleet, broker, rules_after)
        self._messages = messages
        self._identity = IdentityCheck(broker, messages, fleet.clock)
        self._sign = sign
        self._accept_claimed = accept_claimed

    async def carry_out(self, effect: Effect) -> EffectDone | EffectRetry:
        """Carries the effect out, unless a later decision has superseded it."""
        device = await self._fleet.find(effect.device_id)
        if device is None or not is_current(effect, device):
            await self._containment.on_superseded(effect, device)
            return EffectDone(None)
        if isinstance(effect, SendCommand):
            return await self._send(effect)
        try:
            return await self._contain(effect, device)
        except BrokerError as e:
            return self._failed(effect, str(e), ())

    async def _contain(self, effect: ContainmentEffect, device: Device) -> EffectDone | EffectRetry:
        evidence = await self._check_reporter(effect, device)
        if not isinstance(evidence, Evidence):
            return evidence
        proof = await self._containment.carry_out(effect)
        steps, level = steps_of(proof), level_of(effect)
        if proof.is_partial:
            return self._partly_done(effect, proof, evidence)
        if not proof.holds:
            return self._failed(effect, proof.trouble, steps)
        event_id = self._fleet.new_id()
        if level is ContainmentLevel.NONE:
            return EffectDone(ev.ReleaseProven(event_id, effect.case_id, steps))
        return EffectDone(
            ev.ContainmentProven(event_id, effect.case_id, level, proof.cut_at, steps, evidence, proof.left_open)
        )

    async def _check_reporter(self, effect: ContainmentEffect, device: Device) -> EffectDone | EffectRetry | Evidence:
        """Refuses a containment by policy unless the broker authenticated the session that reported.

        Evidence in the report itself needs no session, and evidence of an earlier attempt stays valid: that attempt may
        have disconnected the session that reported.
        """
        case = device.case
        if not isinstance(effect, (RestrictClient, IsolateClient)) or not effect.by_policy or case is None:
            return Evidence.UNASKED
        if effect.evidence.may_contain or self._accept_claimed:
            return effect.evidence
        if case.evidence.may_contain:
            return case.evidence
        strength = await self._identity.auth_strength(effect.device_id, heard_at=case.evidence_since)
        if strength in _EVIDENCE:
            return await self._record_reporter(effect, _EVIDENCE[strength], case.evidence_since)
        if strength is AuthStrength.LATER:
            reason = "the present session may have connected after the one that reported"
            event = ev.ContainmentRefused(
                self._fleet.new_id(), effect.case_id, reason, Evidence.UNASKED, by_a_later=True
            )
            return EffectDone(event)
        if strength is AuthStrength.UNSEEN:
            if await self._is_banned_by_cordon(effect):
                return Evidence.UNASKED
            return self._failed(effect, "the session that reported has ended, and the broker authenticates nobody", ())
        reason = "the broker accepts this client without authentication"
        if strength is AuthStrength.ADMITTED:
            reason = "the broker authenticated this client, and lets clients choose their id: it may be another's"
        return EffectDone(ev.ContainmentRefused(self._fleet.new_id(), effect.case_id, reason))

    async def _record_reporter(self, effect: ContainmentEffect, evidence: Evidence, heard_at: float) -> Evidence:
        """Makes the evidence durable first, where no later session could be authenticated."""
        if await self._broker.allows_unauthenticated():
            event = ev.ReporterAuthenticated(self._fleet.new_id(), effect.case_id, evidence, heard_at)
            await self._fleet.apply_and_commit(effect.device_id, event)
        return evidence

    async def _is_banned_by_cordon(self, effect: ContainmentEffect) -> bool:
        """Whether the device has no session because of Cordon's ban.

        The reporter of an earlier attempt or case was authenticated; going on bans nobody who is not banned already.
        """
        async for ban in self._broker.bans():
            if ban.kind == "clientid" and ban.who == effect.device_id and ban.is_ours:
                return True
        return False

    async def _send(self, effect: SendCommand) -> EffectDone | EffectRetry:
        now = self._fleet.clock.now()
        envelope = self._sign(payload_of(effect.device_id, effect))
        if effect.signatures:
            more = {name: base64.b64decode(signature) for name, signature in effect.signatures}
            envelope = countersign(envelope, more)
        expiry = max(MIN_EXPIRY, int(effect.expires_at - now))
        topic = down(effect.device_id, DownChannel.COMMAND)
        try:
            await self._messages.publish_confirmed(topic, envelope, expiry_seconds=expiry)
        except NoSubscriberError:
            return EffectDone(None)  # the device is offline; the command is sent again when it comes online
        except MessagesError as e:
            return EffectRetry(str(e), None)
        return EffectDone(ev.CommandDelivered(self._fleet.new_id(), effect.command_id))

    def _partly_done(self, effect: ContainmentEffect, proof: Proof, evidence: Evidence) -> EffectRetry:
        level, nodes = level_of(effect), tuple((one.node, one.reason) for one in proof.unread)
        if level is ContainmentLevel.NONE:
            return replace(self._failed(effect, proof.trouble, steps_of(proof)), unread=nodes)
        event = ev.ContainmentPartlyProven(
            self._fleet.new_id(), effect.case_id, level, proof.cut_at, nodes, steps_of(proof), evidence, proof.left_open
        )
        return EffectRetry(proof.trouble, event, nodes)

    def _failed(self, effect: ContainmentEffect, trouble: str, steps: tuple[dict[str, object], ...]) -> EffectRetry:
        event = ev.ContainmentFailed(self._fleet.new_id(), effect.case_id, type(effect).__name__, trouble, steps)
        return EffectRetry(trouble, event)


def steps_of(proof: Proof) -> tuple[dict[str, object], ...]:
    """The steps as plain data for the audit log."""
    return tuple(asdict(step) for step in proof.steps)


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
