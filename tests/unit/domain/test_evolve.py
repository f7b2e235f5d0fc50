"""Changed copies."""

from dataclasses import FrozenInstanceError, replace

import pytest

from controller.domain.evolve import evolve
from tests.support.playbook import device


def test_it_does_what_replace_does() -> None:
    before = device(tags=("a",), counter=3)
    after = evolve(before, counter=4, stale=True)
    assert after == replace(before, counter=4, stale=True)
    assert before.counter == 3
    with pytest.raises(FrozenInstanceError):
        after.counter = 5  # type: ignore[misc]  # that it is refused is the point


def test_a_field_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="'nosuch'"):
        evolve(device(), nosuch=1)
