"""What is wrong with several controllers on one store, or with one: compared and checked on request."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter

from controller.api.auth import scope
from controller.api.context import ServicesDep
from controller.api.errors import problems
from controller.api.fields import View
from controller.api.health import all_warnings, not_ready_reasons
from controller.domain.policy.explain import RuleExplanation
from controller.domain.policy.findings import RuleResult
from controller.ports.errors import ControllerError
from controller.service.controllers import key_differences

_BROKER_RULES = ("no-version-that-loses-routes-of-controllers", "a-device-stays-with-a-controller")

router = APIRouter(tags=["health"], responses=problems(401, 429, 503))


class CheckView(View):
    """One check. `unknown`: what it needs cannot be read, `detail` says why."""

    check: str
    result: Literal["ok", "problem", "unknown"]
    detail: str


class CheckupView(View):
    """`controller`: which one answered; `ok`: no check found a problem or remained unknown."""

    controller: str
    ok: bool
    items: tuple[CheckView, ...]


@router.get("/doctor", dependencies=[scope("policy")])
async def doctor(services: ServicesDep) -> CheckupView:
    """Checks this controller, compares the controllers' keys and policies, and how the broker shares messages."""
    items = [*await _own(services), *_keys(services), *_policies(services), *await _broker(services)]
    return CheckupView(
        controller=services.controllers.name, ok=all(one.result == "ok" for one in items), items=tuple(items)
    )


def _found(check: str, troubles: list[str], ok: str) -> list[CheckView]:
    if not troubles:
        return [CheckView(check=check, result="ok", detail=ok)]
    return [CheckView(check=check, result="problem", detail=trouble) for trouble in troubles]


async def _own(services: ServicesDep) -> list[CheckView]:
    reasons = not_ready_reasons(services, services.fleet.clock.now())
    told = {*services.controllers.warnings(), services.policies.activation.warning}
    warnings = [one for one in await all_warnings(services) if one not in told]
    return _found("this controller", [*reasons, *warnings], "it is ready")


def _keys(services: ServicesDep) -> list[CheckView]:
    live = services.controllers.live
    names = ", ".join(one.name for one in live)
    return _found("keys", [str(one) for one in key_differences(live)], f"the same on every controller ({names})")


def _policies(services: ServicesDep) -> list[CheckView]:
    activation = services.policies.activation
    version = activation.in_force.version
    troubles = [activation.warning] if activation.warning else []
    if version:
        own = services.controllers.name
        troubles += [
            f"the policy files of {one.name} are version {one.policy_files}, and in force is {version}"
            for one in services.controllers.live
            if one.name != own and one.policy_files != version
        ]
    return _found("policies", troubles, "those in force are those of every controller's files")


async def _broker(services: ServicesDep) -> list[CheckView]:
    """What an audit of the broker says of several controllers; nothing where there is one."""
    if not services.settings.has_peers:
        return []
    try:
        audit = await services.auditor.audit()
    except ControllerError as e:
        return [CheckView(check="broker", result="unknown", detail=str(e))]
    return broker_checks(audit.items)


def broker_checks(rules: Sequence[RuleExplanation]) -> list[CheckView]:
    """The rules of an audit that concern several controllers, as checks."""
    wanted = {one.rule.partition("/")[2]: one for one in rules}
    items = []
    for name in _BROKER_RULES:
        found = wanted.get(name)
        if found is None:
            detail = "the configured broker policies ([emqx] audit) have no such rule"
            items.append(CheckView(check=name, result="unknown", detail=detail))
            continue
        result = {RuleResult.PASS: "ok", RuleResult.FAIL: "problem"}.get(found.result, "unknown")
        detail = found.title if result == "ok" else found.fix if result == "problem" else found.detail
        items.append(CheckView.model_validate({"check": name, "result": result, "detail": detail}))
    return items
