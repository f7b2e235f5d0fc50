"""Finds errors and likely mistakes in access templates before any of their rules is written. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.broker.access import (
    MAX_GRANTS,
    MAX_RULES,
    AccessTemplate,
    AccessTemplates,
    TopicRule,
    compile_rules,
)
from controller.domain.broker.topic_filters import covers, overlaps, placeholders, validation_error
from schemas import topics

# Placeholders of EMQX that identify the client.
IDENTITY_PLACEHOLDERS: Final = ("${clientid}", "${cert_common_name}", "${username}")
_KNOWN: Final = frozenset({*IDENTITY_PLACEHOLDERS, "${peerhost}", "${zone}"})
_ATTRIBUTE: Final = "${client_attrs."
_SYS: Final = "$SYS/#"


class LintSeverity(StrEnum):
    """How much a finding matters; templates with an error are not applied."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class LintFinding:
    """A finding; `rule` counts from 1, 0 for the template itself."""

    severity: LintSeverity
    device_class: str
    rule: int
    text: str


def lint(templates: AccessTemplates) -> tuple[LintFinding, ...]:
    """Returns all findings in the order of the file."""
    findings: list[LintFinding] = []
    for template in templates.templates:
        findings += _lint_template(template)
        for number, rule in enumerate(template.rules, start=1):
            findings += [
                LintFinding(severity, template.device_class, number, f"{text}: {rule.text}")
                for severity, text in lint_rule(rule)
            ]
        findings += _shadows(template)
    order = {template.device_class: place for place, template in enumerate(templates.templates)}
    return tuple(sorted(findings, key=lambda finding: (order[finding.device_class], finding.rule)))


def _lint_template(template: AccessTemplate) -> Iterator[LintFinding]:
    count = len(compile_rules(template, ()) or ())
    room = MAX_RULES - MAX_GRANTS
    if count > MAX_RULES:
        text = f"{count} rules with Cordon's own: EMQX accepts at most {MAX_RULES} for one client"
        yield LintFinding(LintSeverity.ERROR, template.device_class, 0, text)
    elif count > room:
        text = f"{count} rules with Cordon's own leave no room for {MAX_GRANTS} grants within EMQX's {MAX_RULES}"
        yield LintFinding(LintSeverity.WARNING, template.device_class, 0, text)
    if template.otherwise == "allow":
        text = "`otherwise: allow` leaves what no rule matches to the rules for all clients and to `no_match`"
        yield LintFinding(LintSeverity.WARNING, template.device_class, 0, text)
    if not template.rules:
        text = "no rules: devices of this class reach their own Cordon branch and nothing else"
        yield LintFinding(LintSeverity.INFO, template.device_class, 0, text)


def lint_rule(rule: TopicRule) -> Iterator[tuple[LintSeverity, str]]:
    """Yields the findings of one rule by itself; used for grants too."""
    error = validation_error(rule.topic)
    if error:
        yield LintSeverity.ERROR, error
        return
    unknown = [name for name in placeholders(rule.topic) if name not in _KNOWN and not name.startswith(_ATTRIBUTE)]
    if unknown or rule.topic.count("${") != len(placeholders(rule.topic)):
        names = ", ".join(unknown) or "a placeholder without an end"
        yield LintSeverity.ERROR, f"EMQX does not know {names}, and would take it literally"
    if not rule.qos:
        yield LintSeverity.ERROR, "no QoS: the rule matches nothing"
    if rule.permission == "allow":
        yield from _lint_allow_rule(rule)


def _lint_allow_rule(rule: TopicRule) -> Iterator[tuple[LintSeverity, str]]:
    levels = rule.topic.split("/")
    if covers(rule.topic, "+/#"):
        yield LintSeverity.ERROR, "allows everything"
    elif levels[0] in {"+", "#"}:
        yield LintSeverity.WARNING, "a wildcard in the first level matches topics of every application"
    if overlaps(rule.topic, topics.ALL_TOPICS) and not covers(rule.topic, "+/#"):
        yield LintSeverity.ERROR, "overlaps the topics of Cordon, which are open for their own device only"
    if overlaps(rule.topic, _SYS):
        yield LintSeverity.WARNING, "allows $SYS topics, which have data of every client"
    if not any(name in rule.topic for name in IDENTITY_PLACEHOLDERS):
        if rule.action in ("publish", "all"):
            yield LintSeverity.INFO, "every device of the class may publish here in another's name"
    elif "${username}" in rule.topic and len(placeholders(rule.topic)) == 1:
        yield LintSeverity.INFO, "devices that share a user share this topic"


def _shadows(template: AccessTemplate) -> Iterator[LintFinding]:
    """Compares each rule with those before; what EMQX does not take in any case is not compared."""
    judged = template.rules[:MAX_RULES]
    hiding: list[TopicRule] = []
    for number, rule in enumerate(judged, start=1):
        earlier = next((other for other in hiding if _hides(other, rule)), None)
        if not validation_error(rule.topic):
            hiding.append(rule)
        if earlier is None:
            continue
        if earlier.permission == rule.permission:
            severity, text = LintSeverity.INFO, "is redundant after an earlier rule"
        else:
            severity, text = LintSeverity.ERROR, "is never reached: an earlier rule decides the opposite"
        yield LintFinding(severity, template.device_class, number, f"{text}: {rule.text}  (after {earlier.text})")


def _hides(earlier: TopicRule, later: TopicRule) -> bool:
    return (
        earlier.action in ("all", later.action)
        and set(later.qos) <= set(earlier.qos)
        and earlier.retain in ("all", later.retain)
        and covers(earlier.topic, later.topic)
    )


def lint_errors(findings: Sequence[LintFinding]) -> tuple[LintFinding, ...]:
    """Returns the findings that prevent the templates from being applied."""
    return tuple(finding for finding in findings if finding.severity is LintSeverity.ERROR)
