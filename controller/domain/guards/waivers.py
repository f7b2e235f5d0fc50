"""Exceptions with an owner, a reason and an end: a waived rule goes on failing, and nothing follows from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from controller.domain.device import Device

ANY_RULE: Final = "*"  # after the slash: every rule of the policy
PREDICATE_PREFIX: Final = "waiver:"  # before the id of a waiver in the marks of a device


@dataclass(frozen=True, slots=True)
class Waiver:
    """For one rule (`policy/rule`, or `policy/*`) and the devices that exactly one of the next three selects.

    `expression` is asked of a device's facts; whether it holds is among the device's marks. `owner` answers for it,
    `granted_by` typed it in. Times are Unix seconds.
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
        """What a device carries for which the expression holds."""
        return PREDICATE_PREFIX + self.waiver_id

    def selects(self, device: Device) -> bool:
        """Whether it is about this device."""
        if self.expression:
            return self.predicate in device.predicates
        return self.tag in device.tags if self.tag else self.device == device.device_id

    def covers_rule(self, rule: str) -> bool:
        """Whether it is about this rule (`policy/rule`)."""
        policy, _, name = self.rule.rpartition("/")
        return self.rule == rule or (name == ANY_RULE and rule.rpartition("/")[0] == policy)


class Waivers:
    """All waivers by the rules they speak of; a value: adding one makes another."""

    def __init__(self, waivers: Iterable[Waiver] = ()) -> None:
        self.all: Mapping[str, Waiver] = MappingProxyType({one.waiver_id: one for one in waivers})
        by_rule: dict[str, list[Waiver]] = {}
        for one in self.all.values():
            by_rule.setdefault(one.rule, []).append(one)
        self._by_rule = by_rule

    def __bool__(self) -> bool:
        return bool(self.all)

    def covering(self, rule: str, device: Device, now: float) -> Waiver | None:
        """The waiver in force that lasts longest for this rule on this device."""
        if not self._by_rule:
            return None
        policy = rule.rpartition("/")[0]
        found: Waiver | None = None
        for key in (rule, f"{policy}/{ANY_RULE}"):
            for one in self._by_rule.get(key, ()):
                lasts = now < one.expires_at and (found is None or one.expires_at > found.expires_at)
                if lasts and one.selects(device):
                    found = one
        return found

    def with_waiver(self, waiver: Waiver) -> "Waivers":
        """With one more."""
        return Waivers((*self.all.values(), waiver))

    def without_waivers(self, *waiver_ids: str) -> "Waivers":
        """Without these."""
        return Waivers(one for one in self.all.values() if one.waiver_id not in waiver_ids)


NO_WAIVERS: Final = Waivers()
