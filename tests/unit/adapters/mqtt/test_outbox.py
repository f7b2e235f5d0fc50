"""Window, bound and carry-over of what goes out."""

import asyncio

import pytest

from controller.adapters.mqtt.outbox import OutgoingMessage, PublishQueue
from controller.ports.errors import MessagesError, NoSubscriberError


class Sender:
    """Takes letters as a connection would; packet ids count from 1."""

    def __init__(self, *, taking: bool = True) -> None:
        self.taking = taking
        self.sent: list[str] = []

    def __call__(self, letter: OutgoingMessage) -> int | None:
        if letter.topic == "bad":
            raise ValueError("cannot")
        if not self.taking:
            return None
        self.sent.append(letter.topic)
        return len(self.sent)


def letter(topic: str, *, waiter: asyncio.Future[None] | None = None, deadline: float | None = None) -> OutgoingMessage:
    return OutgoingMessage(topic, b"", deadline, waiter)


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def test_nothing_is_taken_without_a_connection() -> None:
    outbox = PublishQueue(10)
    assert not outbox.enqueue(letter("a"), 0)
    assert len(outbox) == 0


def test_window_and_bound_hold() -> None:
    outbox, sender = PublishQueue(3), Sender()
    outbox.attach(sender, 2, 0)
    assert [outbox.enqueue(letter(topic), 0) for topic in "abcd"] == [True, True, True, False]
    assert sender.sent == ["a", "b"]
    outbox.on_acknowledged(1, 0, "", 0)
    assert sender.sent == ["a", "b", "c"]
    assert len(outbox) == 2


def test_unacknowledged_goes_first_on_the_next_connection() -> None:
    outbox, sender = PublishQueue(10), Sender()
    outbox.attach(sender, 2, 0)
    for topic in "abc":
        outbox.enqueue(letter(topic), 0)
    outbox.detach("cut")
    again = Sender()
    outbox.attach(again, 10, 0)
    assert again.sent == ["a", "b", "c"]


async def test_who_waits_is_told_and_nothing_is_sent_twice_for_them() -> None:
    outbox, waiter = PublishQueue(10), future()
    outbox.attach(Sender(), 2, 0)
    outbox.enqueue(letter("a", waiter=waiter), 0)
    outbox.detach("the cable was cut")
    with pytest.raises(MessagesError, match="the cable was cut"):
        await waiter
    again = Sender()
    outbox.attach(again, 2, 0)
    assert again.sent == []


@pytest.mark.parametrize(("code", "error"), [(0, None), (16, NoSubscriberError), (128, MessagesError)])
async def test_reason_codes_reach_who_waits(code: int, error: type[Exception] | None) -> None:
    outbox, waiter = PublishQueue(10), future()
    outbox.attach(Sender(), 2, 0)
    outbox.enqueue(letter("a", waiter=waiter), 0)
    outbox.on_acknowledged(1, code, "words", 0)
    if error is None:
        assert waiter.result() is None
    else:
        assert type(waiter.exception()) is error


async def test_given_up_expired_and_impossible_letters_are_passed_over() -> None:
    outbox, sender = PublishQueue(10), Sender()
    outbox.attach(sender, 1, 0)
    given_up, expired, impossible = future(), future(), future()
    outbox.enqueue(letter("first"), 0)
    outbox.enqueue(letter("given up", waiter=given_up), 0)
    outbox.enqueue(letter("late", waiter=expired, deadline=5), 0)
    outbox.enqueue(letter("bad", waiter=impossible), 0)
    outbox.enqueue(letter("bad"), 0)
    outbox.enqueue(letter("last"), 0)
    given_up.cancel()
    outbox.on_acknowledged(1, 0, "", 10)
    assert sender.sent == ["first", "last"]
    assert "expired" in str(expired.exception())
    assert "cannot" in str(impossible.exception())


def test_waits_while_the_connection_takes_nothing() -> None:
    outbox, sender = PublishQueue(10), Sender(taking=False)
    outbox.attach(sender, 5, 0)
    assert outbox.enqueue(letter("a"), 0)
    sender.taking = True
    outbox.flush(0)
    assert sender.sent == ["a"]


def test_unknown_puback_is_ignored() -> None:
    outbox = PublishQueue(10)
    outbox.on_acknowledged(9, 0, "", 0)
    assert len(outbox) == 0
