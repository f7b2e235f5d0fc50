"""Parses access templates, or reports all their problems with positions."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from controller.adapters.policies.document import read_document
from controller.adapters.policies.models import PolicyIdentifier, SingleLineText
from controller.domain.broker.access import ANY_CLASS, AccessTemplate, AccessTemplates, TopicRule
from controller.ports.policies import PolicyError, PolicyProblem

MAX_BYTES: Final = 1024 * 1024
MAX_TEMPLATES: Final = 100
MAX_RULES_WRITTEN: Final = 200  # of one template; more than EMQX takes, so that lint can report the excess


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TopicRuleModel(_Strict):
    """`allow: publish` or `deny: all`, with a topic."""

    allow: Literal["publish", "subscribe", "all"] | None = None
    deny: Literal["publish", "subscribe", "all"] | None = None
    topic: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    qos: list[Literal[0, 1, 2]] | None = None
    retain: bool | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "TopicRuleModel":
        if (self.allow is None) == (self.deny is None):
            raise ValueError("a rule has one of `allow` and `deny`: publish, subscribe or all")
        return self

    def rule(self) -> TopicRule:
        """The value."""
        retain: Literal["all", "true", "false"] = "all"
        if self.retain is not None:
            retain = "true" if self.retain else "false"
        qos = (0, 1, 2) if self.qos is None else tuple(sorted(set(self.qos)))
        if self.allow is not None:
            return TopicRule("allow", self.allow, self.topic, qos, retain)
        assert self.deny is not None
        return TopicRule("deny", self.deny, self.topic, qos, retain)


class AccessTemplateModel(_Strict):
    """The rules of a device class; `*` for every class without a template."""

    device_class: Annotated[str, Field(alias="class", pattern=r"^(\*|[^\x00-\x1f\x7f]{0,64})$")]
    title: SingleLineText
    rules: Annotated[list[TopicRuleModel], Field(max_length=MAX_RULES_WRITTEN)] = []
    otherwise: Literal["allow", "deny"] = "deny"


class AccessFileModel(_Strict):
    """One file."""

    access: PolicyIdentifier
    version: Annotated[int, Field(ge=1, le=1_000_000_000)]
    templates: Annotated[list[AccessTemplateModel], Field(min_length=1, max_length=MAX_TEMPLATES)]


def parse_templates(text: str, source: str) -> AccessTemplates:
    """Returns the templates of a file; `source` names it in problems.

    Raises:
        PolicyError: it is invalid; has all problems.
    """
    if len(text.encode()) > MAX_BYTES:
        raise PolicyError([PolicyProblem(source, 0, 0, f"larger than {MAX_BYTES} bytes")])
    document = read_document(text.replace("\r\n", "\n").replace("\r", "\n"), source)
    model: AccessFileModel | None = None
    if document.data is not None or not document.problems:
        try:
            model = AccessFileModel.model_validate(document.data)
        except ValidationError as e:
            for error in e.errors(include_url=False):
                place = error["loc"]
                while place and place not in document.values:
                    place = place[:-1]
                name = ".".join(str(part) for part in error["loc"])
                document.complain_of(place, f"{name}: {error['msg'].removeprefix('Value error, ')}".lstrip(": "))
    if model is not None:
        seen: set[str] = set()
        for number, one in enumerate(model.templates):
            if one.device_class in seen:
                shown = "every other class" if one.device_class == ANY_CLASS else f"class {one.device_class!r}"
                document.complain_of(("templates", number, "class"), f"{shown} has a template already")
            seen.add(one.device_class)
    if document.problems or model is None:
        raise PolicyError(document.problems)
    made = tuple(
        AccessTemplate(one.device_class, one.title, tuple(rule.rule() for rule in one.rules), one.otherwise)
        for one in model.templates
    )
    return AccessTemplates(model.access, model.version, made)
