"""Assignment of devices to rings, and maintenance windows."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from controller.domain.rollout.model import RolloutError
from controller.domain.rollout.rings import RolloutCandidate, assign_rings, parse_ring
from controller.domain.rollout.window import opens_at, parse_window, zone_of

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


def timestamp(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "opening"),
    [
        ("02:00-05:00", "2026-11-23T02:00:00", "2026-11-23T02:00:00"),
        ("02:00-05:00", "2026-11-23T04:59:59", "2026-11-23T04:59:59"),
        ("02:00-05:00", "2026-11-23T05:00:00", "2026-11-24T02:00:00"),
        ("02:00-05:00", "2026-11-23T01:00:00", "2026-11-23T02:00:00"),
        ("22:00-01:00", "2026-11-23T00:30:00", "2026-11-23T00:30:00"),
        ("22:00-01:00", "2026-11-23T12:00:00", "2026-11-23T22:00:00"),
        # Start of daylight saving time: 02:30 does not exist.
        ("02:30-02:45", "2026-03-29T01:59:00", "2026-03-29T03:30:00"),
    ],
)
def test_window_is_in_the_local_time_of_the_device(window: str, now: str, opening: str) -> None:
    assert opens_at(parse_window(window), "Europe/Berlin", timestamp(now)) == timestamp(opening)


def test_time_zone_is_taken_from_the_tags() -> None:
    assert opens_at(None, "UTC", 5.0) == 5.0
    noon = datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp()
    assert opens_at(parse_window("21:00-22:00"), "Asia/Tokyo", noon) == noon
    assert zone_of(("x", "tz:Asia/Tokyo"), "UTC") == "Asia/Tokyo"
    assert zone_of(("tz:Nowhere/Town",), "UTC") == "UTC"
    assert zone_of(("tz:../../etc/passwd",), "UTC") == "UTC"


@pytest.mark.parametrize("text", ["2-5", "02:00-02:00", "24:00-01:00", "02:00", ""])
def test_invalid_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="window"):
        parse_window(text)
