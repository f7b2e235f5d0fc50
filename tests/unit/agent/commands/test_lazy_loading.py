from typing import Any

from device_agent.commands.lazy_loading import LazyActions


def test_actions_are_created_once_at_the_first_lookup() -> None:
    created = []

    def create() -> dict[str, Any]:
        created.append(1)
        return {"rescan": object()}

    lazy = LazyActions(create)
    assert created == []
    assert (list(lazy), len(lazy), lazy.get("nothing")) == (["rescan"], 1, None)
    combined = LazyActions(create, eager={"update.install": lazy["rescan"]})
    assert combined["update.install"] is lazy["rescan"]
    assert created == [1]
    assert sorted(combined) == ["rescan", "update.install"]
    created.pop()
    assert lazy["rescan"] is lazy["rescan"]
    assert created == [1]
