"""The fleet in numbers."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from controller.api.auth import scope
from controller.api.context import FleetDep, QueriesDep
from controller.api.errors import problems
from controller.api.fields import View
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel, EnforcementMode, PolicySet
from controller.ports.fleet_queries import FleetSummary

router = APIRouter(prefix="/fleet", tags=["fleet"], responses=problems(401, 422, 429, 503))


class GroupView(View):
    """How many devices have something in common."""

    name: str
    devices: int


class PresenceView(View):
    """What was last known of the devices' connections."""

    online: int
    offline: int
    unknown: int


class RuleCountView(View):
    """How many devices do not satisfy a rule; `severity` is null for a rule that is no longer in force."""

    rule: str
    title: str
    severity: Severity | None
    mode: EnforcementMode | None
    failing: int
    unknown: int
    errors: int


class FleetSummaryView(View):
    """Counts of devices. `rules`: those that any device does not satisfy, the most failed first.

    `unknown_reasons`, `classes` and `tags` name at most 100, those with the most devices. A device counts for each of
    its tags and reasons.
    """

    devices: int
    levels: dict[ContainmentLevel, int]
    stale: int
    presence: PresenceView
    pending: Annotated[int, Field(description="containments that a guard holds back")]
    not_read: Annotated[int, Field(description="containments not proven only because nodes cannot be read")]
    classes: tuple[GroupView, ...]
    tags: tuple[GroupView, ...]
    rules: tuple[RuleCountView, ...]
    unknown_reasons: tuple[GroupView, ...]


@router.get("", dependencies=[scope("read")])
async def show_fleet(fleet: FleetDep, queries: QueriesDep) -> FleetSummaryView:
    """Returns counts of devices by level, presence, class, tag and rule."""
    return _view(await queries.summary(), fleet.policies)


def _view(summary: FleetSummary, policies: PolicySet) -> FleetSummaryView:
    presence, levels = summary.online, dict.fromkeys(ContainmentLevel, 0)
    for (level, _), count in summary.levels.items():
        levels[level] += count
    return FleetSummaryView(
        devices=summary.devices,
        levels={
            level: sum(summary.levels.get((level, stale), 0) for stale in (False, True)) for level in ContainmentLevel
        },
        stale=sum(count for (_, stale), count in summary.levels.items() if stale),
        presence=PresenceView(
            online=presence.get(True, 0), offline=presence.get(False, 0), unknown=presence.get(None, 0)
        ),
        pending=summary.pending,
        not_read=summary.unread,
        classes=_groups(summary.classes),
        tags=_groups(summary.tags),
        rules=_rules(summary, policies),
        unknown_reasons=_groups(summary.reasons),
    )


def _groups(counts: Mapping[str, int]) -> tuple[GroupView, ...]:
    return tuple(GroupView(name=name, devices=count) for name, count in counts.items())


def _rules(summary: FleetSummary, policies: PolicySet) -> tuple[RuleCountView, ...]:
    views = []
    for key in dict.fromkeys(rule for rule, _ in summary.rules):
        rule = policies.rules.get(key)
        views.append(
            RuleCountView(
                rule=key,
                title="" if rule is None else rule.title,
                severity=None if rule is None else rule.severity,
                mode=None if rule is None else rule.mode,
                failing=summary.rules.get((key, RuleResult.FAIL), 0),
                unknown=summary.rules.get((key, RuleResult.UNKNOWN), 0),
                errors=summary.rules.get((key, RuleResult.ERROR), 0),
            )
        )
    return tuple(sorted(views, key=lambda view: (-view.failing, view.rule)))
