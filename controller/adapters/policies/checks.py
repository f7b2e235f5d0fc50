"""Checks of a parsed policy file: its subject, and the actions and parameters of its remedies."""

from collections.abc import Mapping
from typing import Any, Final

from controller.adapters.policies.diagnostics import rule_prefix
from controller.adapters.policies.document import DocumentPath, YamlDocument
from controller.adapters.policies.models import PolicyModel
from controller.domain.policy.cel import CelEnvironment
from schemas.actions import ACTIONS, param_problems, unknown_action_problem


def check_remedies(document: YamlDocument) -> None:
    """Adds problems for unknown actions and parameters."""
    for place in [place for place in document.values if place[-1:] == ("remediate",)]:
        remedy = _at(document.data, place)
        if not isinstance(remedy, Mapping) or not isinstance(remedy.get("action"), str):
            continue  # reported already
        prefix = rule_prefix(document, place) + "remediate: "
        name = remedy["action"]
        if name not in ACTIONS:
            document.complain_of((*place, "action"), prefix + unknown_action_problem(name))
            continue
        params = remedy.get("params", {})
        if not isinstance(params, Mapping):
            continue
        for param, problem in param_problems(name, params):
            path = (*place, "params", param) if param else (*place, "action")
            document.complain_of(path, prefix + problem, key=bool(param) and param not in ACTIONS[name].params)


def _at(data: Any, place: DocumentPath) -> Any:
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


_ELSEWHERE: Final = {
    "broker": "this policy evaluates the broker: name it in `[emqx] audit`, not in `[policy] paths`",
    "device": "this policy evaluates devices: a policy for the broker has `subject: broker`",
}


def check_subject(document: YamlDocument, model: PolicyModel, language: CelEnvironment) -> None:
    """Adds problems for a policy with another subject than `language`, and for responses that a broker cannot have."""
    if model.subject != language.subject:
        document.problems.clear()  # every fact of it is unknown here, which is no mistake of its author
        document.complain_of(("subject",) if ("subject",) in document.values else (), _ELSEWHERE[model.subject])
        return
    if model.subject != "broker":
        return
    if model.events:
        document.complain_of(("events",), "a broker sends no events: rules of a broker stand under 'rules'", key=True)
    for number, rule in enumerate(model.rules):
        if rule.on_fail.contain != "none" or rule.on_fail.remediate is not None:
            text = f"rule {rule.id}: a broker is never changed by a policy: say in 'fix' what to do"
            document.complain_of(("rules", number, "on_fail"), text, key=True)
