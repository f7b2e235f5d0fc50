import pytest

from controller.standin.options import StandInOptions
from controller.standin.settings import Settings
from controller.standin.zones import ZONE_DEFAULTS, InvalidSettingError, seconds


@pytest.mark.parametrize(("text", "value"), [("15s", 15.0), ("500ms", 0.5), ("1h30m", 5400.0), ("2d", 172_800.0)])
def test_durations_are_converted_to_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("bad", ["", "5", "s", "1x", "5 s", "99999999d", 5, None])
def test_invalid_durations_are_rejected(bad: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(bad)


def test_the_zone_is_replaced_as_a_whole() -> None:
    settings = Settings()
    whole = {**ZONE_DEFAULTS, "mqtt": {"max_inflight": 500}}
    assert settings.put_zone(whole).keys() == ZONE_DEFAULTS.keys()
    assert settings.limits().max_inflight == 500
    settings.put_zone({**whole, "mqtt": {"max_mqueue_len": "infinity"}})
    limits = settings.limits()
    assert (limits.max_inflight, limits.max_queue, limits.session_expiry) == (32, 0, 7200.0)
    with pytest.raises(InvalidSettingError, match="flapping_detect: required_field"):
        settings.put_zone({"mqtt": {}})


def test_a_named_zone_has_what_it_does_not_set_from_the_global_one() -> None:
    settings = Settings()
    settings.put_named_zones({"cordon": {"mqtt": {"max_mqueue_len": 9}, "force_shutdown": {"enable": False}}})
    settings.change_zone({"mqtt": {"max_inflight": 40}})
    own, other = settings.limits("cordon"), settings.limits("default")
    assert (own.max_queue, own.max_inflight, own.fatal_queue) == (9, 40, None)
    assert (other.max_queue, other.max_inflight) == (1000, 40)
    assert other.fatal_queue in range(17_000, 18_001)


@pytest.mark.parametrize(
    "change",
    [
        {"nosuch": {}},
        {"mqtt": 5},
        {"mqtt": {"nosuch": 1}},
        {"mqtt": {"max_inflight": 0}},
        {"mqtt": {"max_inflight": True}},
        {"mqtt": {"session_expiry_interval": "soon"}},
        {"force_shutdown": {"max_heap_size": "much"}},
    ],
)
def test_an_invalid_change_changes_nothing(change: dict[str, object]) -> None:
    settings = Settings()
    for put in (settings.change_zone, lambda part: settings.put_named_zones({"own": part})):
        with pytest.raises(InvalidSettingError):
            put(change)
    assert settings == Settings()


def test_authorization_settings_are_validated() -> None:
    settings = Settings()
    assert settings.put_authz({"no_match": "deny"})["cache"]["ttl"] == "1m"
    for bad in (
        {"no_match": "maybe"},
        {"cache": {"ttl": "x"}},
        {"cache": {"nosuch": 1}},
        {"cache": {"max_size": "x"}},
        {"cache": {"excludes": 5}},
    ):
        with pytest.raises(InvalidSettingError):
            settings.put_authz(bad)
    assert settings.authz["no_match"] == "deny"


def test_invalid_options_are_rejected() -> None:
    for bad in ({"nodes": 0}, {"nodes": 10}, {"tls_ports": (8883,)}):
        with pytest.raises(ValueError, match=r"nodes|tls"):
            StandInOptions(api_secret="x", **bad)
    with pytest.raises(ValueError, match="api_secret"):
        StandInOptions(api_secret="")
