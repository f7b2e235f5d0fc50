from hypothesis import given
from hypothesis import strategies as st

from controller.standin.messages import Delivery, Message
from controller.standin.session import OutgoingPacket, Session


def _delivery(
    number: int, *, qos: int = 1, expiry: int | None = None, sender: str = "s", shared: bool = False
) -> Delivery:
    message = Message(str(number), "t", str(number).encode(), qos, False, sender, None, 0.0, expiry)
    return Delivery(message, qos, False, None, ("g", "t") if shared else None)


def _ids(out: list[OutgoingPacket]) -> list[int]:
    return [int(item.delivery.message.id) for item in out]


def test_deliveries_beyond_the_window_are_queued_and_beyond_the_queue_dropped() -> None:
    session = Session(0.0, max_queue=3, window=2)
    sent = [session.deliver(_delivery(n)) for n in range(7)]
    assert [item.packet_id for item in sent if item is not None] == [1, 2]
    assert (len(session.queue), session.dropped) == (3, 2)
    assert session.acknowledge(1) is True
    assert _ids(session.refill(0.0)) == [4]
    assert session.acknowledge(1) is False


def test_qos_0_does_not_use_the_window() -> None:
    session = Session(0.0, window=1)
    session.deliver(_delivery(0))
    assert session.deliver(_delivery(1, qos=0)) == OutgoingPacket(None, _delivery(1, qos=0))


def test_a_session_may_drop_qos_0_instead_of_queueing_it() -> None:
    session = Session(0.0, store_qos0=False)
    session.enqueue(_delivery(0, qos=0))
    assert (len(session.queue), session.dropped) == (0, 1)


def test_resume_resends_unacknowledged_messages_before_the_queue() -> None:
    session = Session(0.0, window=2)
    for number in range(3):
        session.deliver(_delivery(number))
    session.acknowledge(1)
    out = session.resume(0.0, lambda _: True)
    assert [(int(i.delivery.message.id), i.dup) for i in out] == [(1, True), (2, False)]


def test_resume_drops_queued_messages_of_banned_senders() -> None:
    session = Session(0.0)
    session.enqueue(_delivery(0, sender="bad"))
    session.enqueue(_delivery(1))
    assert _ids(session.resume(0.0, lambda sender: sender != "bad")) == [1]


def test_expired_messages_are_removed_from_the_queue() -> None:
    session = Session(0.0)
    session.enqueue(_delivery(0, expiry=5))
    session.enqueue(_delivery(1, expiry=50))
    assert _ids(session.refill(10.0)) == [1]
    assert session.expired == 1


def test_qos_2_is_completed_in_two_steps() -> None:
    session = Session(0.0)
    session.deliver(_delivery(0, qos=2))
    assert session.acknowledge(1) is None
    assert session.completed(1) is False
    assert session.received(1) is True
    assert session.received(1) is False
    (resent,) = session.resume(0.0, lambda _: True)
    assert (resent.packet_id, resent.release) == (1, True)
    assert session.completed(1) is True
    assert session.completed(1) is False


def test_a_qos_2_answer_to_a_qos_1_message_is_a_protocol_error() -> None:
    session = Session(0.0)
    session.deliver(_delivery(0))
    assert session.received(1) is None
    assert session.completed(1) is None


def test_undelivered_messages_of_a_share_group_are_returned() -> None:
    session = Session(0.0, window=1)
    for number in range(2):
        session.deliver(_delivery(number, shared=True))
    session.deliver(_delivery(2))
    assert [int(d.message.id) for d in session.undelivered_shared()] == [0, 1]


def test_packet_ids_wrap_around_and_skip_ids_in_use() -> None:
    session = Session(0.0, window=10)
    session.next_id = 65_535
    first = session.deliver(_delivery(0))
    second = session.deliver(_delivery(1))
    session.next_id = 65_535
    third = session.deliver(_delivery(2))
    assert first is not None
    assert second is not None
    assert third is not None
    assert [first.packet_id, second.packet_id, third.packet_id] == [65_535, 1, 2]


@given(st.integers(1, 8), st.integers(0, 12), st.lists(st.booleans(), max_size=60))
def test_messages_keep_their_order_and_only_a_full_queue_drops_any(window: int, queue: int, steps: list[bool]) -> None:
    """A step is True for an arriving message, False for an acknowledgement of the oldest message in flight."""
    session = Session(0.0, max_queue=queue + 1, window=window)
    sent: list[int] = []
    arrived = 0
    for is_arrival in steps:
        if is_arrival:
            out = session.deliver(_delivery(arrived))
            sent += [] if out is None else _ids([out])
            arrived += 1
        elif session.inflight:
            session.acknowledge(next(iter(session.inflight)))
            sent += _ids(session.refill(0.0))
        assert len(session.inflight) <= window
    assert sent == sorted(set(sent))
    assert len(sent) + len(session.queue) + session.dropped == arrived
