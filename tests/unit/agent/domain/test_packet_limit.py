"""The largest packet a broker takes: announced, told by a reason, or learned from lost connections."""

from hypothesis import given
from hypothesis import strategies as st

from device_agent.domain.packet_limit import LOSSES, SUSPICIOUS_BYTES, PacketLimit, packet_bytes

LARGE = SUSPICIOUS_BYTES + 1000


def test_what_the_broker_announces_counts_until_the_next_connection() -> None:
    limit = PacketLimit().connected(5000)
    assert limit.most == 5000
    assert limit.connected(0).most == 0


def test_the_reason_of_a_disconnection_counts_at_once_and_stays() -> None:
    limit = PacketLimit().lost(LARGE, was_too_large=True, may_tell=True).connected(0)
    assert limit.most == LARGE - 1
    assert limit.connected(100).most == 100


def test_losses_without_a_reason_count_only_where_the_broker_cannot_tell() -> None:
    old, new = PacketLimit(), PacketLimit()
    for _ in range(LOSSES):
        assert old.most == 0
        old = old.lost(LARGE, was_too_large=False, may_tell=False)
        new = new.lost(LARGE, was_too_large=False, may_tell=True)
    assert (old.most, new.most) == (LARGE - 1, 0)


def test_a_confirmed_large_message_clears_the_suspicion() -> None:
    limit = PacketLimit()
    for _ in range(LOSSES - 1):
        limit = limit.lost(LARGE, was_too_large=False, may_tell=False)
    limit = limit.acknowledged(10).acknowledged(LARGE).lost(LARGE, was_too_large=False, may_tell=False)
    assert limit.most == 0


@given(st.lists(st.tuples(st.integers(0, SUSPICIOUS_BYTES - 1), st.just(False), st.booleans())))
def test_small_messages_are_never_suspected(losses: list[tuple[int, bool, bool]]) -> None:
    limit = PacketLimit()
    for largest, was_too_large, may_tell in losses:
        limit = limit.lost(largest, was_too_large=was_too_large, may_tell=may_tell)
    assert limit.most == 0


@given(st.text(max_size=80), st.binary(max_size=300_000))
def test_a_packet_is_at_least_as_large_as_its_parts(topic: str, payload: bytes) -> None:
    length = 2 + len(topic.encode()) + 2 + 1 + len(payload)
    header = 1 + (1 if length < 128 else 2 if length < 16_384 else 3)
    assert packet_bytes(topic, payload) >= header + length
