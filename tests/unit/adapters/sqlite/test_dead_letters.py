from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.sqlite.dead_letters import DeadLetterIndex


@given(
    devices=st.lists(st.sampled_from("abcd"), max_size=60),
    most=st.integers(1, 12),
    per_device=st.integers(1, 5),
)
def test_the_bounds_hold_and_only_older_ones_go(devices: list[str], most: int, per_device: int) -> None:
    book = DeadLetterIndex((), 1, most=most, most_per_device=per_device)
    table: dict[int, str] = {}
    for device_id in devices:
        seq, gone = book.add(device_id)
        table[seq] = device_id
        for number in gone:
            oldest_of_its_device = min(other for other, whose in table.items() if whose == table[number])
            assert number == oldest_of_its_device != seq
            del table[number]
        assert len(table) <= most
        assert list(table.values()).count(device_id) <= per_device
    if devices:
        assert table[len(devices)] == devices[-1]


def test_a_lower_bound_than_before_takes_effect_with_the_next_letter() -> None:
    kept = [(3, "a"), (5, "b"), (8, "a"), (9, "a")]
    book = DeadLetterIndex(kept, 10, most=3, most_per_device=2)
    assert book.add("c") == (10, [3, 5])
    assert book.add("c") == (11, [8])
