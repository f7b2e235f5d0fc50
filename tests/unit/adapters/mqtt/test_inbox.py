"""Order and bounds of what arrived."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.mqtt.inbox import NO_TICKET, Inbox
from controller.adapters.mqtt.packets import InboundPublish


def message(packet_id: int, payload: bytes = b"", qos: int = 1) -> InboundPublish:
    return InboundPublish(b"t", payload, qos, retain=False, dup=False, packet_id=packet_id)


def filled(count: int, most: int = 1000) -> Inbox:
    inbox = Inbox(most, 1 << 20)
    for n in range(count):
        inbox.put("t", message(n + 1), 0.0)
    return inbox


def ids(packets: bytes) -> list[int]:
    assert all(packets[at : at + 2] == b"\x40\x02" for at in range(0, len(packets), 4))
    return [int.from_bytes(packets[at + 2 : at + 4]) for at in range(0, len(packets), 4)]


async def test_takes_in_order_and_at_most() -> None:
    inbox = filled(5)
    assert [taken.ticket for taken in await inbox.take(2)] == [0, 1]
    assert [taken.ticket for taken in await inbox.take(9)] == [2, 3, 4]


async def test_taking_waits_for_the_first() -> None:
    inbox = Inbox(10, 100)
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(inbox.take(5))
        await asyncio.sleep(0)
        assert not taking.done()
        inbox.put("t", message(1), 0.0)
    assert len(taking.result()) == 1


@given(st.permutations(range(8)), st.lists(st.integers(1, 7), max_size=7))
def test_whatever_the_order_told_the_order_sent_is_that_received(order: list[int], cuts: list[int]) -> None:
    inbox = filled(8)
    taken = asyncio.run(inbox.take(8))
    sent: list[int] = []
    edges = sorted({0, 8, *cuts})
    for begin, end in pairwise(edges):
        sent += ids(inbox.settle([taken[n] for n in order[begin:end]]))
        told = set(order[:end])
        # Everything up to the first gap, and nothing behind it.
        assert sent == list(range(1, 1 + next((n for n in range(8) if n not in told), 8)))
    assert inbox.settle(taken) == b""


async def test_packet_ids_used_again_are_not_confused() -> None:
    inbox = Inbox(10, 100)
    inbox.put("t", message(1), 0.0)
    first = await inbox.take(1)
    assert ids(inbox.settle(first)) == [1]
    inbox.put("t", message(1), 0.0)
    assert inbox.settle(first) == b""
    assert ids(inbox.settle(await inbox.take(1))) == [1]


async def test_tickets_are_void_after_a_new_connection() -> None:
    inbox = filled(4)
    taken = await inbox.take(2)
    inbox.begin(session_present=True)
    assert inbox.settle(taken) == b""
    for n in range(4):
        inbox.put("t", message(n + 1), 0.0)
    again = await inbox.take(9)
    assert len(again) == 4  # the two that waited come again from the broker
    assert ids(inbox.settle([*taken, *again])) == [1, 2, 3, 4]


async def test_what_a_lost_session_will_not_deliver_again_is_kept() -> None:
    inbox = filled(3)
    inbox.begin(session_present=False)
    assert len(await inbox.take(9)) == 3


async def test_qos_0_has_no_ticket_and_outlives_a_reconnect() -> None:
    inbox = filled(1)
    inbox.put("t", message(0, b"x", qos=0), 0.0)
    inbox.begin(session_present=True)
    (kept,) = await inbox.take(9)
    assert (kept.ticket, kept.payload) == (NO_TICKET, b"x")
    assert inbox.settle([kept]) == b""


async def test_qos_2_is_completed() -> None:
    inbox = Inbox(10, 100)
    inbox.put("t", message(258, qos=2), 0.0)
    assert inbox.settle(await inbox.take(1)) == b"\x70\x02\x01\x02"


@pytest.mark.parametrize(("most", "most_bytes"), [(4, 1000), (1000, 40)])
async def test_is_full_at_either_bound_and_roomy_at_half(most: int, most_bytes: int) -> None:
    inbox = Inbox(most, most_bytes)
    for n in range(4):
        assert not inbox.full
        inbox.put("t", message(n + 1, bytes(10)), 0.0)
    seen = [(inbox.full, inbox.has_room)]
    for _ in range(4):
        await inbox.take(1)
        seen.append((inbox.full, inbox.has_room))
    assert seen == [(True, False), (False, False), (False, True), (False, True), (False, True)]
