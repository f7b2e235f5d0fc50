"""The result of evaluating a device: one finding for each rule, in the terms of XCCDF plus `stale`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class RuleResult(StrEnum):
    """The result of a rule (XCCDF 1.2 rule results, and `stale` for a silent device)."""

    PASS = "pass"  # noqa: S105 - a verdict, not a secret
    FAIL = "fail"
    ERROR = "error"
    UNKNOWN = "unknown"
    NOTAPPLICABLE = "notapplicable"
    NOTCHECKED = "notchecked"
    NOTSELECTED = "notselected"
    INFORMATIONAL = "informational"
    FIXED = "fixed"
    STALE = "stale"

    @property
    def is_satisfied(self) -> bool:
        """Whether the rule passes or does not concern the device; `unknown` never satisfies a rule."""
        return self is _PASS or self in _SATISFYING  # fast path: called for every rule of every report


_PASS: Final = RuleResult.PASS
_SATISFYING: Final = frozenset({RuleResult.PASS, RuleResult.NOTAPPLICABLE, RuleResult.INFORMATIONAL, RuleResult.FIXED})


class Severity(StrEnum):
    """How much a failing rule matters, least first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one rule for one device; `rule` is `policy/rule-id`, `detail` the reason."""

    rule: str
    result: RuleResult
    detail: str = ""
