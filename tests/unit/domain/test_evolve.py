"""Changed copies of immutable values."""

from dataclasses import FrozenInstanceError, replace

import pytest

from controller.domain.evolve import evolve
from tests.support.playbook import device


def test_evolve_equals_replace() -> None:
    before = device(tags=("a",), counter=3)
    after = evolve(before, counter=4, stale=True)
    assert after == replace(before, counter=4, stale=True)
    assert before.counter == 3
    with pytest.raises(FrozenInstanceError):
        after.counter = 5  # type: ignore[misc]  # it has to be refused


def test_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="'unknown_field'"):
        evolve(device(), unknown_field=1)
