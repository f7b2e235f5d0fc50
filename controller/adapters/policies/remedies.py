"""Checks the remedies of a policy file against the known actions and parameters."""

from collections.abc import Mapping
from typing import Any

from controller.adapters.policies.diagnostics import rule_prefix
from controller.adapters.policies.document import DocumentPath, YamlDocument
from schemas.actions import ACTIONS, param_problems, unknown_action_problem


def check_remedies(document: YamlDocument) -> None:
    """Adds problems for unknown actions and parameters."""
    for place in [place for place in document.values if place[-1:] == ("remediate",)]:
        remedy = _at(document.data, place)
        if not isinstance(remedy, Mapping) or not isinstance(remedy.get("action"), str):
            continue  # told already
        prefix = rule_prefix(document, place) + "remediate: "
        name = remedy["action"]
        if name not in ACTIONS:
            document.complain_of((*place, "action"), prefix + unknown_action_problem(name))
            continue
        params = remedy.get("params", {})
        if not isinstance(params, Mapping):
            continue
        for param, problem in param_problems(name, params):
            told = (*place, "params", param) if param else (*place, "action")
            document.complain_of(told, prefix + problem, key=bool(param) and param not in ACTIONS[name].params)


def _at(data: Any, place: DocumentPath) -> Any:
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
