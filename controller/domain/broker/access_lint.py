"""What is wrong, or looks wrong, with access templates: found before a rule of them is written. Pure."""

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

# What EMQX fills in that says who the client is.
IDENTITY_PLACEHOLDERS: Final = ("${clientid}", "${cert_common_name}", "${username}")
_KNOWN: Final = frozenset({*IDENTITY_PLACEHOLDERS, "${peerhost}", "${zone}"})
_ATTRIBUTE: Final = "${client_attrs."
_SYS: Final = "$SYS/#"


class LintSeverity(StrEnum):
    """How much it matters: nothing with an error is applied."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One thing that was found; `rule` counts from 1, 0 for the template as a whole."""

    severity: LintSeverity
    device_class: str
    rule: int
    text: str


def lint(templates: AccessTemplates) -> tuple[LintFinding, ...]:
    """Everything that was found, in the order of the file."""
    found: list[LintFinding] = []
    for template in templates.templates:
        found += _lint_template(template)
        for number, rule in enumerate(template.rules, start=1):
            found += [
                LintFinding(gravity, template.device_class, number, f"{text}: {rule.text}")
                for gravity, text in lint_rule(rule)
            ]
        found += _shadows(template)
    return tuple(sorted(found, key=lambda one: (_order(templates, one.device_class), one.rule)))


def _order(templates: AccessTemplates, device_class: str) -> int:
    return [one.device_class for one in templates.templates].index(device_class)


def _lint_template(template: AccessTemplate) -> Iterator[LintFinding]:
    count = len(compile_rules(template, ()) or ())
    room = MAX_RULES - MAX_GRANTS
    if count > MAX_RULES:
        text = f"{count} rules with Cordon's own: EMQX takes at most {MAX_RULES} of one client"
        yield LintFinding(LintSeverity.ERROR, template.device_class, 0, text)
    elif count > room:
        text = f"{count} rules with Cordon's own leave no room for {MAX_GRANTS} grants within EMQX's {MAX_RULES}"
        yield LintFinding(LintSeverity.WARNING, template.device_class, 0, text)
    if template.otherwise == "allow":
        text = "`otherwise: allow` leaves what no rule names to the rules for all and to `no_match`"
        yield LintFinding(LintSeverity.WARNING, template.device_class, 0, text)
    if not template.rules:
        text = "no rules: devices of this class reach their own Cordon branch and nothing else"
        yield LintFinding(LintSeverity.INFO, template.device_class, 0, text)


def lint_rule(rule: TopicRule) -> Iterator[tuple[LintSeverity, str]]:
    """What one rule by itself has; grants are asked the same."""
    wrong = validation_error(rule.topic)
    if wrong:
        yield LintSeverity.ERROR, wrong
        return
    unknown = [one for one in placeholders(rule.topic) if one not in _KNOWN and not one.startswith(_ATTRIBUTE)]
    if unknown or rule.topic.count("${") != len(placeholders(rule.topic)):
        what = ", ".join(unknown) or "a placeholder without an end"
        yield LintSeverity.ERROR, f"EMQX does not know {what}, and would take it for text"
    if not rule.qos:
        yield LintSeverity.ERROR, "no QoS: the rule matches nothing"
    if rule.permission == "allow":
        yield from _lint_allow_rule(rule)


def _lint_allow_rule(rule: TopicRule) -> Iterator[tuple[LintSeverity, str]]:
    levels = rule.topic.split("/")
    if covers(rule.topic, "+/#"):
        yield LintSeverity.ERROR, "allows everything"
    elif levels[0] in {"+", "#"}:
        yield LintSeverity.WARNING, "a wildcard in the first level reaches branches that nobody has thought of"
    if overlaps(rule.topic, topics.everything()) and not covers(rule.topic, "+/#"):
        yield LintSeverity.ERROR, "reaches into the branches of Cordon, which are opened for their own device only"
    if overlaps(rule.topic, _SYS):
        yield LintSeverity.WARNING, "reaches what the broker tells of every client"
    if not any(one in rule.topic for one in IDENTITY_PLACEHOLDERS):
        if rule.action in ("publish", "all"):
            yield LintSeverity.INFO, "every device of the class may publish here in another's name"
    elif "${username}" in rule.topic and len(placeholders(rule.topic)) == 1:
        yield LintSeverity.INFO, "devices that share a user share this topic"


def _shadows(template: AccessTemplate) -> Iterator[LintFinding]:
    for number, rule in enumerate(template.rules, start=1):
        before = next((other for other in template.rules[: number - 1] if _hides(other, rule)), None)
        if before is None:
            continue
        if before.permission == rule.permission:
            gravity, text = LintSeverity.INFO, "says nothing that an earlier rule does not say"
        else:
            gravity, text = LintSeverity.ERROR, "is never reached: an earlier rule decides the opposite"
        yield LintFinding(gravity, template.device_class, number, f"{text}: {rule.text}  (after {before.text})")


def _hides(earlier: TopicRule, later: TopicRule) -> bool:
    return (
        earlier.action in ("all", later.action)
        and set(later.qos) <= set(earlier.qos)
        and earlier.retain in ("all", later.retain)
        and not validation_error(earlier.topic)
        and covers(earlier.topic, later.topic)
    )


def lint_errors(remarks: Sequence[LintFinding]) -> tuple[LintFinding, ...]:
    """Those that keep a file from being applied."""
    return tuple(one for one in remarks if one.severity is LintSeverity.ERROR)
