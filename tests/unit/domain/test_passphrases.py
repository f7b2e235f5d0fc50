"""Strong passphrases pass, weak ones do not."""

import pytest

from controller.domain.passphrases import estimated_bits, passphrase_weakness, root_passphrase_weakness


@pytest.mark.parametrize(
    "passphrase",
    ["mizzen-Quark7-otter_Blue-84", "v9#Lm2!qWz8&Kp4xR", "gravel lantern orchid mosaic tundra piano"],
)
def test_strong_passphrase_of_an_update_key(passphrase: str) -> None:
    assert passphrase_weakness(passphrase) == ""


@pytest.mark.parametrize(
    ("passphrase", "reason"),
    [
        ("", "0 characters"),
        ("Tr0ub4dor&3", "11 characters"),
        ("aaaaaaaaaaaaaaaaaaaaaaa", "different characters"),
        ("abcdefghijklmnopqrstuvwxyz", "guessed too easily"),
        ("passwordpassword12345", "guessed too easily"),
        ("adminsecretrootlogin", "guessed too easily"),
        ("correct horse batter", "guessed too easily"),
        ("x" * 2000, "cannot be typed"),
        ("strong enough but\nwith a line break 7!", "cannot be typed"),
    ],
)
def test_weak_passphrase_of_an_update_key(passphrase: str, reason: str) -> None:
    assert reason in passphrase_weakness(passphrase)


def test_repetition_adds_no_entropy() -> None:
    assert estimated_bits("aB3$" + "z" * 50) < estimated_bits("aB3$zKq9")


@pytest.mark.parametrize("passphrase", ["short", "aaaaaaaaaaaaaaaaaaaaaaaaaaa", ""])
def test_weak_passphrase_of_the_root_key(passphrase: str) -> None:
    assert root_passphrase_weakness(passphrase)


def test_strong_passphrase_of_the_root_key() -> None:
    assert root_passphrase_weakness("k4c2-9d3f-7m1q-x8tz-5h6n-w2vb") == ""
