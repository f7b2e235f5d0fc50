"""Assignment of devices to rings."""

import pytest

from controller.domain.rollout.model import RolloutError
from controller.domain.rollout.rings import RolloutCandidate, assign_rings, parse_ring

FLEET = [
    RolloutCandidate(f"edge-{number:02d}", "gateway" if number % 2 else "sensor", ("lab",) if number < 3 else ())
    for number in range(20)
]


def rings(*pairs: tuple[str, str]) -> list[set[str]]:
    parsed = [parse_ring(name, select) for name, select in pairs]
    return [set(members) for members in assign_rings(FLEET, parsed, "app")]


def test_device_belongs_to_the_first_ring_that_selects_it() -> None:
    lab, gateways, rest = rings(("lab", "tag:lab"), ("gateways", "class:gateway"), ("rest", "rest"))
    assert lab == {"edge-00", "edge-01", "edge-02"}
    assert all(int(device_id[-2:]) % 2 for device_id in gateways)
    assert "edge-01" not in gateways
    assert lab | gateways | rest == {device.device_id for device in FLEET}


def test_share_is_of_the_remaining_devices_and_at_least_one() -> None:
    first, second, rest = rings(("one", "1%"), ("half", "50%"), ("rest", "rest"))
    assert (len(first), len(second), len(rest)) == (1, 10, 9)
    assert rings(("one", "1%")) == [first], "the same devices each time"


def test_cel_expression_and_id_pattern_select_devices() -> None:
    (sensors,) = rings(("some", 'cel:device.class == "sensor" && !("lab" in device.tags)'))
    assert sensors == {device.device_id for device in FLEET if device.device_class == "sensor" and not device.tags}
    assert rings(("some", "id:edge-0[0-2]")) == [{"edge-00", "edge-01", "edge-02"}]


@pytest.mark.parametrize("text", ["", "moon:1", "tag:", "0%", "101%", "cel:1", "cel:nothing", "x" * 600])
def test_invalid_selection_is_refused(text: str) -> None:
    with pytest.raises(RolloutError):
        parse_ring("ring", text)


@pytest.mark.parametrize("names", [[], ["a", "a"], [f"r{number}" for number in range(17)]])
def test_no_rings_duplicate_rings_and_too_many_rings_are_refused(names: list[str]) -> None:
    with pytest.raises(RolloutError):
        assign_rings(FLEET, [parse_ring(name, "rest") for name in names], "app")


def test_invalid_ring_name_is_refused() -> None:
    with pytest.raises(RolloutError, match="lower-case"):
        parse_ring("Test Ring", "rest")
