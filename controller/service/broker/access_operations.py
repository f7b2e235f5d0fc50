"""Operations on access rules: lint, plan, apply, differences, grants."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.broker.access import (
    MAX_GRANTS,
    MAX_RULES,
    NO_TEMPLATES,
    AccessGrant,
    AccessRuleCompiler,
    AccessTemplates,
    CompiledRules,
    TopicAction,
    TopicRule,
)
from controller.domain.broker.access_lint import LintFinding, LintSeverity, lint, lint_errors, lint_rule
from controller.domain.effects import AuditEntry
from controller.ports.access import GrantRecord, StoredTemplates, as_broker_rules
from controller.ports.broker_tables import AccessRule, AccessRules, is_restriction
from controller.ports.errors import ControllerError
from controller.service.broker.access import AccessRuleManager
from controller.service.fleet_state import FleetState

SHOWN: Final = 200  # devices listed in a plan
MAX_GRANT: Final = 30 * 86_400.0  # seconds; longer permissions belong in a template


class AccessRefusedError(ControllerError):
    """The operation was refused; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class AccessChange:
    """A device whose rules differ from the desired ones; `state` says what applying does."""

    device_id: str
    device_class: str
    state: str  # "new", "changed", "taken away", "contained", "foreign", "altered"
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccessPlan:
    """The result of applying. `counts` by state; `shown`: the first changes."""

    remarks: tuple[LintFinding, ...]
    devices: int
    counts: dict[str, int]
    shown: tuple[AccessChange, ...]

    @property
    def is_valid(self) -> bool:
        return not self.errors

    @property
    def errors(self) -> tuple[LintFinding, ...]:
        """The findings that prevent applying."""
        return lint_errors(self.remarks)


@dataclass(frozen=True, slots=True)
class _Concerned:
    """What is compared of a device that has rules, or is to have some."""

    device_id: str
    device_class: str
    is_contained: bool
    wanted: CompiledRules | None


class AccessOperations:
    """Over the fleet of access rules, which does the writing."""

    def __init__(self, access: AccessRuleManager, fleet: FleetState) -> None:
        self.access = access
        self._fleet = fleet
        self._judging = asyncio.Lock()

    async def plan(self, text: str) -> AccessPlan:
        """What applying these templates would change; nothing is written.

        Raises:
            PolicyError: the text is not valid.
        """
        templates, findings = await self._judge(text)
        return await self._compare(findings, AccessRuleCompiler(templates))

    async def _judge(self, text: str) -> tuple[AccessTemplates, tuple[LintFinding, ...]]:
        """Parses and checks templates in a thread, one file at a time: large ones take seconds."""

        def judge() -> tuple[AccessTemplates, tuple[LintFinding, ...]]:
            templates = self.access.parse(text)
            return templates, lint(templates)

        async with self._judging:
            return await asyncio.to_thread(judge)

    async def diff(self) -> AccessPlan:
        """The differences between the broker and the templates in force."""
        return await self._compare(await asyncio.to_thread(lint, self.access.templates))

    async def apply(self, text: str, actor: str, *, overwrite: bool) -> AccessPlan:
        """Puts the templates in force and writes what differs; `overwrite` also replaces rules of others.

        Raises:
            PolicyError: the text is not valid.
            AccessRefusedError: lint found errors.
            BrokerError: not all rules are written; the rest is written once the broker answers.
        """
        plan = await self.plan(text)
        if plan.errors:
            raise AccessRefusedError("not applied: " + "; ".join(one.text for one in plan.errors))
        access, now = self.access, self._fleet.clock.now()
        kept = StoredTemplates(text, now, actor)
        await access.store.put_templates(kept)
        access.state.kept = kept
        access.set_templates(await asyncio.to_thread(access.parse, text))
        taken = {"altered", "foreign"} if overwrite else {"altered"}
        access.state.foreign.clear()
        whole = await self._compare((), most=None)
        access.state.overwrite = {one.device_id for one in whole.shown if one.state in taken}
        access.note(*access.state.overwrite)
        detail: dict[str, object] = {"templates": access.templates.name, "counts": plan.counts}
        entry = AuditEntry(
            AuditKind.ACCESS_TEMPLATES_APPLIED, "", actor, detail={**detail, "version": access.templates.version}
        )
        await self._fleet.record(entry)
        await access.tick()
        return plan

    async def plan_withdrawal(self) -> AccessPlan:
        """What withdrawing the templates in force would change; nothing is written.

        Raises:
            AccessRefusedError: no templates are in force.
        """
        self._require_templates()
        return await self._compare((), AccessRuleCompiler(NO_TEMPLATES))

    async def withdraw(self, actor: str) -> AccessPlan:
        """Ends the templates in force: their rules are removed from the broker, grants stay.

        Rules of Cordon's that others changed since stay at the broker, and are no longer Cordon's.

        Raises:
            AccessRefusedError: no templates are in force.
            BrokerError: not all rules are removed; the rest is removed once the broker answers.
        """
        name, version = self._require_templates()
        access = self.access
        plan = await self.plan_withdrawal()
        await access.store.drop_templates()
        access.state.kept = None
        access.set_templates(NO_TEMPLATES)
        access.state.overwrite.clear()
        detail: dict[str, object] = {"templates": name, "version": version, "counts": plan.counts}
        await self._fleet.record(AuditEntry(AuditKind.ACCESS_TEMPLATES_WITHDRAWN, "", actor, detail=detail))
        whole = await self._compare((), most=None)
        await access.disown([one.device_id for one in whole.shown if one.state == "altered" and not one.after])
        await access.tick()
        return plan

    def _require_templates(self) -> tuple[str, int]:
        templates = self.access.templates
        if self.access.state.kept is None:
            raise AccessRefusedError("no templates are in force")
        return templates.name, templates.version

    async def grant(
        self, device_id: str, action: TopicAction, topic: str, *, seconds: float, reason: str, actor: str
    ) -> AccessGrant:
        """Permits a device something for a time, which also runs while the device is contained.

        Raises:
            AccessRefusedError: the topic may not be granted, or there are too many grants.
        """
        refusals = [
            text for gravity, text in lint_rule(TopicRule("allow", action, topic)) if gravity is LintSeverity.ERROR
        ]
        if refusals:
            raise AccessRefusedError(f"{topic}: {'; '.join(refusals)}")
        if not 0 < seconds <= MAX_GRANT:
            raise AccessRefusedError(
                "a grant lasts between a second and 30 days: what lasts longer belongs in a template"
            )
        access, now = self.access, self._fleet.clock.now()
        held = access.state.grants.get(device_id, [])
        device = await self._fleet.find(device_id)
        rules = 0 if device is None else len(access.desired_rules(device) or ())
        if len(held) >= MAX_GRANTS or rules >= MAX_RULES:
            raise AccessRefusedError(f"{device_id} has {len(held)} grants and {rules} rules: EMQX takes no more")
        grant = AccessGrant(self._fleet.new_id(), device_id, action, topic, reason, actor, now, now + seconds)
        await access.store.put_grant(grant)
        detail: dict[str, object] = {"grant": grant.grant_id, "rule": grant.rule.text, "until": grant.expires_at}
        entry = AuditEntry(AuditKind.ACCESS_GRANTED, device_id, actor, detail={**detail, "reason": reason})
        await self._fleet.record(entry)
        access.state.grants.setdefault(device_id, []).append(grant)
        access.note(device_id)
        return grant

    async def revoke(self, grant_id: str, actor: str) -> AccessGrant:
        """Ends a grant early.

        Raises:
            AccessRefusedError: there is no such grant in force.
        """
        for grants in self.access.state.grants.values():
            for one in grants:
                if one.grant_id == grant_id:
                    await self.access.end([one], actor, "revoked")
                    return one
        raise AccessRefusedError(f"there is no grant {grant_id} in force")

    async def grants(self, device_id: str | None, limit: int) -> Sequence[GrantRecord]:
        """Grants, newest first, with ended ones."""
        return await self.access.store.grants(device_id=device_id, limit=limit)

    async def _compare(
        self, remarks: Sequence[LintFinding], compiler: AccessRuleCompiler | None = None, *, most: int | None = SHOWN
    ) -> AccessPlan:
        """Compares every device's rules at the broker with the desired ones."""
        access = self.access
        total, concerned = 0, list[_Concerned]()
        async for page in self._fleet.pages():
            total += len(page)
            for device in page:
                wanted = access.desired_rules(device, compiler)
                if wanted or device.device_id in access.state.written:
                    concerned.append(_Concerned(device.device_id, device.device_class, device.case is not None, wanted))
        actual = await access.broker.rules_of_all({one.device_id for one in concerned})
        counts: Counter[str] = Counter()
        shown: list[AccessChange] = []
        for one in concerned:
            state = self._state(one, actual.get(one.device_id))
            counts[state] += 1
            if state != "as it should be" and (most is None or len(shown) < most):
                before = texts(actual.get(one.device_id, ()))
                after = texts(one.wanted or ())
                shown.append(AccessChange(one.device_id, one.device_class, state, before, after))
        return AccessPlan(tuple(remarks), total, dict(counts), tuple(shown))

    def _state(self, one: _Concerned, actual: AccessRules | None) -> str:
        known, wanted = self.access.state.written.get(one.device_id), one.wanted
        if one.is_contained or is_restriction(actual, one.device_id):
            return "contained"
        if actual is None:
            return "new" if wanted is not None else "as it should be"
        if wanted is not None and actual == as_broker_rules(wanted):
            return "as it should be"
        if known is None:
            return "foreign"
        ours = [known.rules, *([] if known.previous is None else [known.previous])]
        if all(actual != as_broker_rules(rules) for rules in ours):
            return "altered"
        return "changed" if wanted is not None else "taken away"


def texts(rules: Iterable[TopicRule | AccessRule]) -> tuple[str, ...]:
    """Rules as text for operators."""
    return tuple(one.text if isinstance(one, TopicRule) else _text(one) for one in rules)


def _text(rule: AccessRule) -> str:
    plain = TopicRule(rule.permission, rule.action, rule.topic, rule.qos)
    if rule.retain == "true":
        plain = replace(plain, retain="true")
    elif rule.retain == "false":
        plain = replace(plain, retain="false")
    return f"{plain.text} {rule.limits}".rstrip()
