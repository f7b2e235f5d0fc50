"""Passphrases that keep the keys of updates: strong ones pass, and what people choose otherwise does not."""

import pytest

from controller.domain.passphrases import estimated_bits, passphrase_weakness


@pytest.mark.parametrize(
    "passphrase",
    ["mizzen-Quark7-otter_Blue-84", "v9#Lm2!qWz8&Kp4xR", "gravel lantern orchid mosaic tundra piano"],
)
def test_strong(passphrase: str) -> None:
    assert passphrase_weakness(passphrase) == ""


@pytest.mark.parametrize(
    ("passphrase", "why"),
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
def test_weak(passphrase: str, why: str) -> None:
    assert why in passphrase_weakness(passphrase)


def test_repetition_adds_nothing() -> None:
    assert estimated_bits("aB3$" + "z" * 50) < estimated_bits("aB3$zKq9")
