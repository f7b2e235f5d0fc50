from typing import Any

import pytest

from controller.adapters.sql.options import StoreOptions


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_group_rows": 0}, "at least 1"),
        ({"readers": 0}, "at least 1"),
        ({"checkpoint_pages": 0}, "at least 1"),
        ({"max_dead_letters": 5, "max_dead_letters_per_device": 6}, "not more than all"),
        ({"retry_floor_seconds": 0.0}, "floor above zero"),
        ({"retry_floor_seconds": 2.0, "retry_ceiling_seconds": 1.0}, "floor above zero"),
        ({"audit_days": 0.0}, "above zero"),
        ({"close_seconds": -1.0}, "not negative"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        StoreOptions(**wrong)
