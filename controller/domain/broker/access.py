"""Access rules of devices: templates by class, temporary grants, and the rules that both compile to. Pure.

Three rules come first, whatever a template contains: a device keeps its own Cordon topics and reaches no other
device's.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from controller.domain.broker.topic_filters import matches, real_topic
from schemas import topics

MAX_RULES: Final = 100  # of one identity, EMQX's `max_rules`
MAX_GRANTS: Final = 20  # open grants of one device
ANY_CLASS: Final = "*"
_OWN: Final = "${clientid}"
_ALL_QOS: Final = (0, 1, 2)

TopicAction = Literal["publish", "subscribe", "all"]
TopicPermission = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class TopicRule:
    """One rule; the first matching rule decides."""

    permission: TopicPermission
    action: TopicAction
    topic: str
    qos: tuple[int, ...] = _ALL_QOS
    retain: Literal["all", "true", "false"] = "all"

    @property
    def text(self) -> str:
        """The rule as people read it: `allow publish fleet/${clientid}/#`."""
        text = f"{self.permission} {self.action} {self.topic}"
        if self.qos != _ALL_QOS:
            text += f" qos {','.join(str(level) for level in self.qos)}"
        return text if self.retain == "all" else f"{text} retain {self.retain}"


@dataclass(frozen=True, slots=True)
class AccessTemplate:
    """The rules of a device class; `otherwise` decides everything that no rule matches."""

    device_class: str
    title: str
    rules: tuple[TopicRule, ...]
    otherwise: TopicPermission = "deny"


@dataclass(frozen=True, slots=True)
class AccessTemplates:
    """The templates of a file: one for each class, `*` for devices whose class has none."""

    name: str
    version: int
    templates: tuple[AccessTemplate, ...]

    def for_class(self, device_class: str) -> AccessTemplate | None:
        """Returns the template of a class; `None` if Cordon sets no rules for it."""
        by_class = {template.device_class: template for template in self.templates}
        return by_class.get(device_class) or by_class.get(ANY_CLASS)


NO_TEMPLATES: Final = AccessTemplates("", 0, ())


@dataclass(frozen=True, slots=True)
class AccessGrant:
    """A temporary permission besides the template. Times are Unix seconds."""

    grant_id: str
    device_id: str
    action: TopicAction
    topic: str
    reason: str
    by: str
    granted_at: float
    expires_at: float

    @property
    def rule(self) -> TopicRule:
        return TopicRule("allow", self.action, self.topic)


CompiledRules = tuple[TopicRule, ...]


def first_rules() -> CompiledRules:
    """Returns the rules that come first: the device's own Cordon topics, and no other device's."""
    return (
        TopicRule("allow", "publish", topics.up_branch(_OWN)),
        TopicRule("allow", "subscribe", topics.down_branch(_OWN)),
        TopicRule("deny", "all", topics.ALL_TOPICS),
    )


def compile_rules(template: AccessTemplate | None, grants: Iterable[AccessGrant]) -> CompiledRules | None:
    """Returns the rules of a device; `None` if Cordon sets none and leaves existing ones alone."""
    grant_rules = tuple(grant.rule for grant in grants)
    if template is None:
        return (*first_rules(), *grant_rules) if grant_rules else None
    rest = (TopicRule("deny", "all", "#"),) if template.otherwise == "deny" else ()
    return (*first_rules(), *grant_rules, *template.rules, *rest)


def digest_of(rules: CompiledRules | None) -> str:
    """Returns the digest of a set of rules, empty for none."""
    if rules is None:
        return ""
    plain = [[rule.permission, rule.action, rule.topic, list(rule.qos), rule.retain] for rule in rules]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:32]


class AccessRuleCompiler:
    """Compiles the rules of devices; devices of one class share one object."""

    def __init__(self, templates: AccessTemplates) -> None:
        self.templates = templates
        self._by_class: dict[str, CompiledRules | None] = {}

    def rules(self, device_class: str, grants: Sequence[AccessGrant], now: float) -> CompiledRules | None:
        """Returns the rules of a device of this class with its grants; expired grants do not count."""
        open_grants = [grant for grant in grants if grant.expires_at > now]
        if open_grants:
            return compile_rules(self.templates.for_class(device_class), open_grants)
        if device_class not in self._by_class:
            self._by_class[device_class] = compile_rules(self.templates.for_class(device_class), ())
        return self._by_class[device_class]


def revoked_topics(rules: CompiledRules, device_id: str, subscriptions: Sequence[str]) -> tuple[str, ...]:
    """Returns the subscriptions that the rules no longer allow; EMQX checks rules only at SUBSCRIBE.

    The common name is the device's id. The user name is unknown here, so a rule with `${username}` counts as matching.
    """
    return tuple(each for each in subscriptions if _is_refused(rules, device_id, real_topic(each)))


def _is_refused(rules: CompiledRules, device_id: str, topic: str) -> bool:
    for rule in rules:
        if rule.action == "publish":
            continue
        filter_ = rule.topic.replace("${clientid}", device_id).replace("${cert_common_name}", device_id)
        if "${" in filter_:
            if rule.permission == "allow" and matches(topic, _generalised(filter_)):
                return False
            continue
        if matches(topic, filter_):
            return rule.permission == "deny"
    return False


def _generalised(filter_: str) -> str:
    return "/".join("+" if "${" in level else level for level in filter_.split("/"))
