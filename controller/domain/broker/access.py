"""What devices of a class may publish and subscribe: templates, grants that lapse, and the rules they compile to. Pure.

Whatever a template says, a device keeps its own Cordon branch and gets into nobody else's: three rules come first.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from controller.domain.broker.topic_filters import matches, real_topic
from schemas import topics

MAX_RULES: Final = 100  # of one identity, EMQX's `max_rules`
MAX_GRANTS: Final = 20  # open ones of one device
ANY_CLASS: Final = "*"
_OWN: Final = "${clientid}"
_ALL_QOS: Final = (0, 1, 2)

TopicAction = Literal["publish", "subscribe", "all"]
TopicPermission = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class TopicRule:
    """One rule; the first that matches decides."""

    permission: TopicPermission
    action: TopicAction
    topic: str
    qos: tuple[int, ...] = _ALL_QOS
    retain: Literal["all", "true", "false"] = "all"

    @property
    def text(self) -> str:
        """As people read it: `allow publish fleet/${clientid}/#`."""
        text = f"{self.permission} {self.action} {self.topic}"
        if self.qos != _ALL_QOS:
            text += f" qos {','.join(str(level) for level in self.qos)}"
        return text if self.retain == "all" else f"{text} retain {self.retain}"


@dataclass(frozen=True, slots=True)
class AccessTemplate:
    """The rules of a class; `otherwise` is what happens to everything that no rule of it names."""

    device_class: str
    title: str
    rules: tuple[TopicRule, ...]
    otherwise: TopicPermission = "deny"


@dataclass(frozen=True, slots=True)
class AccessTemplates:
    """A whole file: one template for each class, `*` for devices whose class has none."""

    name: str
    version: int
    templates: tuple[AccessTemplate, ...]

    def for_class(self, device_class: str) -> AccessTemplate | None:
        """The template of a device of this class; `None` if Cordon gives it no rules."""
        found = {one.device_class: one for one in self.templates}
        return found.get(device_class) or found.get(ANY_CLASS)


NO_TEMPLATES: Final = AccessTemplates("", 0, ())


@dataclass(frozen=True, slots=True)
class AccessGrant:
    """Something that a device may do for a time besides its template. Times are Unix seconds."""

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
        """What it compiles to."""
        return TopicRule("allow", self.action, self.topic)


CompiledRules = tuple[TopicRule, ...]


def first_rules() -> CompiledRules:
    """A device's own branch, and nobody else's: in front of everything, so that no template can change it."""
    return (
        TopicRule("allow", "publish", topics.up_branch(_OWN)),
        TopicRule("allow", "subscribe", topics.down_branch(_OWN)),
        TopicRule("deny", "all", topics.everything()),
    )


def compile_rules(template: AccessTemplate | None, grants: Iterable[AccessGrant]) -> CompiledRules | None:
    """The rules of a device; `None` if Cordon gives it none, and leaves to others what it has."""
    granted = tuple(grant.rule for grant in grants)
    if template is None:
        return (*first_rules(), *granted) if granted else None
    rest = (TopicRule("deny", "all", "#"),) if template.otherwise == "deny" else ()
    return (*first_rules(), *granted, *template.rules, *rest)


def digest_of(rules: CompiledRules | None) -> str:
    """What names a set of rules; empty for none."""
    if rules is None:
        return ""
    plain = [[one.permission, one.action, one.topic, list(one.qos), one.retain] for one in rules]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:32]


class AccessRuleCompiler:
    """Compiles for one device after the other; the devices of a class share one set of rules, the same object."""

    def __init__(self, templates: AccessTemplates) -> None:
        """Nothing is compiled yet."""
        self.templates = templates
        self._by_class: dict[str, CompiledRules | None] = {}

    def rules(self, device_class: str, grants: Sequence[AccessGrant], now: float) -> CompiledRules | None:
        """The rules of a device of this class with these grants, of which those that are over do not count."""
        open_ = [one for one in grants if one.expires_at > now]
        if open_:
            return compile_rules(self.templates.for_class(device_class), open_)
        if device_class not in self._by_class:
            self._by_class[device_class] = compile_rules(self.templates.for_class(device_class), ())
        return self._by_class[device_class]


def revoked_topics(rules: CompiledRules, device_id: str, subscriptions: Sequence[str]) -> tuple[str, ...]:
    """Those subscriptions that the rules refuse: EMQX asks them at SUBSCRIBE only, so what exists goes on.

    The common name is the device's id; a user name is not known here, so a rule with one is given the benefit of the
    doubt.
    """
    return tuple(one for one in subscriptions if _is_refused(rules, device_id, real_topic(one)))


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
