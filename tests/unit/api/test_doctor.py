"""The doctor compares the controllers of a store, and says what it cannot know."""

from controller.api.doctor import broker_checks
from controller.domain.policy.explain import RuleExplanation
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import RuleResponse
from controller.ports.controllers import ControllerRecord
from tests.support.api import Api


async def checks(api: Api) -> dict[str, list[tuple[str, str]]]:
    found = await api.json("GET", "/api/v1/doctor")
    assert found["ok"] is all(one["result"] == "ok" for one in found["items"])
    by_name: dict[str, list[tuple[str, str]]] = {}
    for one in found["items"]:
        by_name.setdefault(one["check"], []).append((one["result"], one["detail"]))
    return by_name


async def test_a_controller_alone_has_nothing_to_compare(api: Api) -> None:
    found = await checks(api)
    assert [result for result, _ in found["keys"]] == ["ok"]
    assert [result for result, _ in found["policies"]] == ["ok"]
    assert found["this controller"][0][0] == "problem", "its link is not connected here"
    assert found.keys() == {"keys", "policies", "this controller"}


async def test_keys_that_differ_are_named(api: Api) -> None:
    now = api.harness.clock.now()
    records = [ControllerRecord(name, f"cordon-{name}", now, keys={"commands": name}) for name in ("a", "b")]
    api.harness.services.controllers._records = records
    found = await checks(api)
    text = "the key of commands is not the same on every controller: a has a, b has b"
    assert found["keys"] == [("problem", text)]
    assert all(text != detail for _, detail in found["this controller"]), "it is said once"


def explained(name: str, result: RuleResult, detail: str = "") -> RuleExplanation:
    return RuleExplanation(
        rule=f"emqx/{name}", title="as it should be", mode="enforce", result=result, detail=detail, check="",
        applies_if="", applies_to="", facts=(), severity=Severity.HIGH, why="", fix="mend it",
        response=RuleResponse(), references=(),
    )  # fmt: skip


def test_what_the_broker_does_not_show_is_unknown() -> None:
    first, second = "no-version-that-loses-routes-of-controllers", "a-device-stays-with-a-controller"
    found = broker_checks([explained(first, RuleResult.FAIL), explained(second, RuleResult.UNKNOWN, "403")])
    assert [(one.check, one.result, one.detail) for one in found] == [
        (first, "problem", "mend it"),
        (second, "unknown", "403"),
    ]
    found = broker_checks([explained(first, RuleResult.PASS)])
    assert [one.result for one in found] == ["ok", "unknown"]
    assert "no such rule" in found[1].detail
