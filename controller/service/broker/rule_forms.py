"""Compiled rules in the form of the broker."""

from typing import Final

from controller.domain.broker.access import CompiledRules
from controller.ports.access import as_broker_rules
from controller.ports.broker_tables import AccessRules

MAX_FORMS: Final = 5000


class RuleForms:
    """The broker's form, made once per set of rules: the devices of a class share it."""

    def __init__(self) -> None:
        self._forms: dict[int, tuple[CompiledRules, AccessRules]] = {}

    def of(self, rules: CompiledRules) -> AccessRules:
        known = self._forms.get(id(rules))
        if known is not None and known[0] is rules:
            return known[1]
        made = as_broker_rules(rules)
        if len(self._forms) > MAX_FORMS:
            self._forms.clear()
        self._forms[id(rules)] = (rules, made)
        return made
