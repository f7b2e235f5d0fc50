"""What judging a device yields: one finding for each rule, in the words of XCCDF plus `stale`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class RuleResult(StrEnum):
    """The result of a rule (XCCDF 1.2 rule results, and `stale` for a device that fell silent)."""

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
        """Whether it shows that the rule is kept, or does not concern the device. Unknown never does."""
        return self is _PASS or self in _SATISFYING  # asked for every rule of every report


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
    """The result of one rule for one device; `rule` is `policy/rule-id`, `detail` the reason in words."""

    rule: str
    result: RuleResult
    detail: str = ""
