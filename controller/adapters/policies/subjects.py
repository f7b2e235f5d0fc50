"""Checks that a policy is for the expected subject: devices or the broker."""

from typing import Final

from controller.adapters.policies.document import YamlDocument
from controller.adapters.policies.models import PolicyModel
from controller.domain.policy.cel import CelEnvironment

_ELSEWHERE: Final = {
    "broker": "this policy judges the broker: `[emqx] audit` takes it for `cordon broker audit`, not `[policy] paths`",
    "device": "this policy judges devices: one for the broker says `subject: broker`",
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
            text = f"rule {rule.id}: nothing is done about a broker by itself: say in 'fix' what to do"
            document.complain_of(("rules", number, "on_fail"), text, key=True)
