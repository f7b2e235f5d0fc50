"""Models of a policy file; the loader converts them to domain values."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from schemas.base import MAX_NAME, MAX_TEXT
from schemas.commands import MAX_PARAMS, ActionName, ParamName, ParamValue
from schemas.durations import parse_duration

MAX_RULES: Final = 500  # of one file, and of all together
MAX_REFERENCES: Final = 32  # entries of one rule
MAX_CONSECUTIVE: Final = 1000  # reports in a row
MAX_REPEAT_FACTOR: Final = 100
MAX_EVENT_COUNT: Final = 1_000_000  # events
MAX_VERSION: Final = 1_000_000_000


_TARGET: Final = r"^[a-z0-9][a-z0-9+._-]{0,63}/[0-9A-Za-z][0-9A-Za-z.+:~_-]{0,63}(/[A-Za-z0-9][A-Za-z0-9.+~_-]{0,95})?$"


def _duration(text: str) -> str:
    parse_duration(text)
    return text


PolicyIdentifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
SingleLineText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
]
MultilineText = Annotated[str, StringConstraints(max_length=MAX_TEXT, strip_whitespace=True)]
CelSource = Annotated[str, StringConstraints(min_length=1)]
EnforcementModeField = Literal["enforce", "shadow"]
PolicyDuration = Annotated[str, AfterValidator(_duration)]


class StrictModel(BaseModel):
    """Refuses unknown keys, which may be typing errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AfterModel(StrictModel):
    """How often and how long a rule has to fail before its response."""

    consecutive: Annotated[int, Field(ge=1, le=MAX_CONSECUTIVE)] = 1
    grace: PolicyDuration = "0s"


class UntilModel(StrictModel):
    """How often and how long a contained device has to pass before it is released."""

    passing: Annotated[int, Field(ge=1, le=MAX_CONSECUTIVE)] = 1
    cool_down: PolicyDuration = "0s"


class RepeatModel(StrictModel):
    """The extension of a containment for each earlier one."""

    within: PolicyDuration = "24h"
    factor: Annotated[int, Field(ge=2, le=MAX_REPEAT_FACTOR)] = 2
    most: PolicyDuration = "24h"


class RemediateModel(StrictModel):
    """The command that repairs the cause."""

    action: ActionName
    params: Annotated[dict[ParamName, ParamValue], Field(max_length=MAX_PARAMS, default_factory=dict)]


class OnFailModel(StrictModel):
    """The response to a failing rule."""

    contain: Literal["none", "restricted", "isolated"] = "none"
    isolate_for: Annotated[PolicyDuration | None, Field(alias="for")] = None
    remediate: RemediateModel | None = None
    after: AfterModel = AfterModel()
    until: UntilModel | None = None
    repeat: RepeatModel | None = None
    rollout: Annotated[str, StringConstraints(pattern=_TARGET)] = ""

    @model_validator(mode="after")
    def _belongs_to_a_containment(self) -> "OnFailModel":
        for name in ("until", "repeat"):
            if self.contain == "none" and getattr(self, name) is not None:
                raise PydanticCustomError(
                    "without_containment", f"'{name}' belongs to a 'contain': nothing is contained that could end"
                )
        return self

    @model_validator(mode="after")
    def _only_isolation_ends_by_time(self) -> "OnFailModel":
        if self.isolate_for is None:
            return self
        if self.contain != "isolated":
            raise PydanticCustomError(
                "for_without_isolation",
                "'for' belongs to 'contain: isolated': only an isolation ends by time, everything else ends when a "
                "fresh report passes",
            )
        if parse_duration(self.isolate_for) == 0:
            raise PydanticCustomError("for_nothing", "'for' has to be longer than nothing")
        return self


class RuleModel(StrictModel):
    """One check."""

    id: PolicyIdentifier
    title: SingleLineText
    why: MultilineText = ""
    check: CelSource
    mode: EnforcementModeField | None = None
    applies_if: CelSource | None = None
    severity: Literal["info", "low", "medium", "high", "critical"]
    on_fail: OnFailModel = OnFailModel()
    fix: MultilineText = ""
    references: Annotated[list[SingleLineText], Field(max_length=MAX_REFERENCES)] = []


class AfterEventsModel(StrictModel):
    """How many events, within what time, before the response."""

    count: Annotated[int, Field(ge=1, le=MAX_EVENT_COUNT)] = 1
    within: PolicyDuration = "10m"


class OnEventModel(StrictModel):
    """The response to events, and for how long."""

    contain: Literal["none", "restricted", "isolated"] = "none"
    hold: Annotated[PolicyDuration, Field(alias="for")] = "1h"
    remediate: RemediateModel | None = None
    after: AfterEventsModel = AfterEventsModel()

    @model_validator(mode="after")
    def _times_are_some(self) -> "OnEventModel":
        if parse_duration(self.hold) == 0:
            raise PydanticCustomError("for_nothing", "'for' has to be longer than nothing")
        if parse_duration(self.after.within) == 0:
            raise PydanticCustomError("within_nothing", "'within' has to be longer than nothing")
        return self


class EventRuleModel(StrictModel):
    """One rule about events."""

    id: PolicyIdentifier
    title: SingleLineText
    why: MultilineText = ""
    when: CelSource
    mode: EnforcementModeField | None = None
    severity: Literal["info", "low", "medium", "high", "critical"]
    on_event: OnEventModel = OnEventModel()
    fix: MultilineText = ""
    references: Annotated[list[SingleLineText], Field(max_length=MAX_REFERENCES)] = []


class PolicyModel(StrictModel):
    """A policy file."""

    policy: PolicyIdentifier
    subject: Literal["device", "broker"] = "device"
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    title: SingleLineText
    mode: EnforcementModeField = "enforce"
    applies_to: CelSource | None = None
    rules: Annotated[list[RuleModel], Field(max_length=MAX_RULES)] = []
    events: Annotated[list[EventRuleModel], Field(max_length=MAX_RULES)] = []

    @model_validator(mode="after")
    def _asks_something(self) -> "PolicyModel":
        if not self.rules and not self.events:
            raise PydanticCustomError("no_rules", "a policy without rules would pass every device")
        return self


_AT: Final[dict[str, type[StrictModel]]] = {
    "rules": RuleModel,
    "on_fail": OnFailModel,
    "after": AfterModel,
    "until": UntilModel,
    "repeat": RepeatModel,
    "events": EventRuleModel,
    "on_event": OnEventModel,
    "remediate": RemediateModel,
}


def keys_at(path: tuple[Any, ...]) -> list[str]:
    """Returns the allowed keys of the mapping at `path`, for suggestions."""
    names = [part for part in path if isinstance(part, str)]
    model = _AT.get(names[-1], PolicyModel) if names else PolicyModel
    if names[-2:] == ["on_event", "after"]:
        model = AfterEventsModel
    return [info.alias or name for name, info in model.model_fields.items()]
