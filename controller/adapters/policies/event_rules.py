"""Rules about events of a policy file, converted to the domain."""

from collections.abc import Mapping

from controller.adapters.policies.diagnostics import compile_at
from controller.adapters.policies.document import DocumentPath, YamlDocument
from controller.adapters.policies.models import EventRuleModel, PolicyModel, RemediateModel
from controller.domain.policy.cel import CelExpression
from controller.domain.policy.event_rules import DEVICE_FACTS, event_language
from controller.domain.policy.findings import Severity
from controller.domain.policy.model import ContainmentLevel, EventTerms, PolicyRule, Remedy, RuleResponse
from schemas.durations import parse_duration

_SCOPE: DocumentPath = ("events", "applies_to")  # the policy's `applies_to` once more, in the language of events


def remedy_of(model: RemediateModel | None) -> Remedy | None:
    """Returns the command of a rule."""
    return None if model is None else Remedy(model.action, tuple(model.params.items()))


def compile_events(document: YamlDocument, scope: CelExpression | None) -> dict[DocumentPath, CelExpression]:
    """Compiles the rules about events; an event has no report, so the policy may not select by one.

    `scope` is the policy's `applies_to`, as it is asked of reports.
    """
    compiled: dict[DocumentPath, CelExpression] = {}
    places = [place for place in document.values if len(place) == 3 and place[0] == "events" and place[2] == "when"]
    for place in places:
        expression = compile_at(document, place, event_language())
        if expression is not None:
            compiled[place] = expression
    if ("events", 0) not in document.values or scope is None:
        return compiled
    foreign = sorted(scope.uses - DEVICE_FACTS)
    if foreign:
        known = ", ".join(sorted(DEVICE_FACTS))
        message = f"applies_to: a policy with events may select by {known} only, not by {', '.join(foreign)}: "
        document.complain_of(("applies_to",), message + "an event comes without a report")
    else:
        compiled[_SCOPE] = event_language().compile(scope.text)
    return compiled


def event_rule(
    policy: PolicyModel, number: int, rule: EventRuleModel, compiled: Mapping[DocumentPath, CelExpression]
) -> PolicyRule:
    """Returns a rule about events."""
    answer = rule.on_event
    hold = parse_duration(answer.hold)
    return PolicyRule(
        key=f"{policy.policy}/{rule.id}",
        title=rule.title,
        check=compiled["events", number, "when"],
        severity=Severity(rule.severity),
        applies_if=compiled.get(_SCOPE),
        response=RuleResponse(
            contain=ContainmentLevel(answer.contain),
            remedy=remedy_of(answer.remediate),
            consecutive=answer.after.count,
            isolate_for=hold,
        ),
        why=rule.why,
        fix=rule.fix,
        references=tuple(rule.references),
        shadow=(rule.mode or policy.mode) == "shadow",
        event=EventTerms(parse_duration(answer.after.within), hold),
    )
