"""Waivers: exceptions with an owner, a reason and an end. A waived rule still fails, but has no response."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from controller.domain.device import Device

ANY_RULE: Final = "*"  # in place of the rule id: every rule of the policy
PREDICATE_PREFIX: Final = "waiver:"  # followed by the id of the waiver


@dataclass(frozen=True, slots=True)
class Waiver:
    """An exception for one rule (`policy/rule` or `policy/*`) and the devices that `device`, `tag` or `expression`
    selects.

    Exactly one of the three is set. `expression` is a device predicate. `owner` is responsible for the waiver,
    `granted_by` created it. Times are Unix seconds.
    """

    waiver_id: str
    rule: str
    owner: str
    reason: str
    granted_by: str
    granted_at: float
    expires_at: float
    device: str = ""
    tag: str = ""
    expression: str = ""

    @property
    def predicate(self) -> str:
        """The name of the device predicate that holds where `expression` is true."""
        return PREDICATE_PREFIX + self.waiver_id

    def selects(self, device: Device) -> bool:
        """Whether the waiver is for this device."""
        if self.expression:
            return self.predicate in device.predicates
        return self.tag in device.tags if self.tag else self.device == device.device_id

    def covers_rule(self, rule: str) -> bool:
        """Whether the waiver is for this rule (`policy/rule`)."""
        policy, _, name = self.rule.rpartition("/")
        return self.rule == rule or (name == ANY_RULE and rule.rpartition("/")[0] == policy)


class Waivers:
    """All waivers, indexed by rule. Immutable: adding one returns another value."""

    def __init__(self, waivers: Iterable[Waiver] = ()) -> None:
        self.all: Mapping[str, Waiver] = MappingProxyType({waiver.waiver_id: waiver for waiver in waivers})
        by_rule: dict[str, list[Waiver]] = {}
        for waiver in self.all.values():
            by_rule.setdefault(waiver.rule, []).append(waiver)
        self._by_rule = by_rule

    def __bool__(self) -> bool:
        return bool(self.all)

    def covering(self, rule: str, device: Device, now: float) -> Waiver | None:
        """Returns the waiver in force for this rule and device that ends last."""
        if not self._by_rule:
            return None
        policy = rule.rpartition("/")[0]
        found: Waiver | None = None
        for key in (rule, f"{policy}/{ANY_RULE}"):
            for waiver in self._by_rule.get(key, ()):
                ends_later = found is None or waiver.expires_at > found.expires_at
                if now < waiver.expires_at and ends_later and waiver.selects(device):
                    found = waiver
        return found

    def with_waiver(self, waiver: Waiver) -> "Waivers":
        return Waivers((*self.all.values(), waiver))

    def without_waivers(self, *waiver_ids: str) -> "Waivers":
        return Waivers(waiver for waiver in self.all.values() if waiver.waiver_id not in waiver_ids)


NO_WAIVERS: Final = Waivers()
