import pytest

from controller.standin.options import StandInOptions
from controller.standin.settings import InvalidSettingError, Settings, seconds


@pytest.mark.parametrize(("text", "value"), [("15s", 15.0), ("500ms", 0.5), ("1h30m", 5400.0), ("2d", 172_800.0)])
def test_durations_are_converted_to_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("bad", ["", "5", "s", "1x", "5 s", "99999999d", 5, None])
def test_invalid_durations_are_rejected(bad: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(bad)


def test_a_section_is_replaced_as_a_whole() -> None:
    settings = Settings()
    settings.put_zone({"mqtt": {"max_inflight": 500}})
    assert settings.limits().max_inflight == 500
    changed = settings.put_zone({"mqtt": {"max_mqueue_len": "infinity"}})
    assert list(changed) == ["mqtt"]
    limits = settings.limits()
    assert (limits.max_inflight, limits.max_queue, limits.session_expiry) == (32, 0, 7200.0)


@pytest.mark.parametrize(
    "change",
    [
        {"nosuch": {}},
        {"mqtt": 5},
        {"mqtt": {"nosuch": 1}},
        {"mqtt": {"max_inflight": 0}},
        {"mqtt": {"max_inflight": True}},
        {"mqtt": {"session_expiry_interval": "soon"}},
    ],
)
def test_an_invalid_change_changes_nothing(change: dict[str, object]) -> None:
    settings = Settings()
    with pytest.raises(InvalidSettingError):
        settings.put_zone(change)
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
