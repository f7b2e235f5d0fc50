"""Runs hostile messages through the real ingest on a real store and checks, batch by batch, what must always hold."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.domain.policy.model import ContainmentLevel
from controller.ports.messages import IncomingMessage
from schemas.events import RejectReason
from schemas.posture import digest_of
from schemas.topics import PRESENCE_PREFIX, DownChannel, UpChannel, down, up
from tests.attack.fuzz.messages import Hostile, hostile
from tests.support import reports
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.memory import resident_bytes

BATCH: Final = 500  # messages
DEVICES: Final = 5000  # names that the hostile messages use
HONEST: Final = 5  # devices that report properly in every batch
PAUSE: Final = 4.0  # seconds of the test's clock between batches: no device comes near its share
MAX_LETTERS: Final = 1000
WARM_UP: Final = 0.3  # of the inputs; by then every table and every cache is as full as it gets
MAX_GROWTH: Final = 40 * 1024 * 1024  # bytes of RSS from then on
_REASONS: Final = frozenset(RejectReason)


class BreachError(AssertionError):
    """Something that must always hold did not."""


@dataclass(slots=True)
class Tally:
    """What became of the inputs."""

    inputs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    growth: int = 0  # bytes of RSS after the warm-up
    letters: int = 0  # dead letters kept in the end
    devices: int = 0  # devices known in the end


async def run(path: Path, inputs: int, seed: int, told: Iterator[None] | None = None) -> Tally:
    """Send `inputs` hostile messages, honest reports among them; `told` is advanced after each batch.

    Raises:
        BreachError: an exception, a missing acknowledgement or answer, a bound passed, another device harmed.
    """
    tally = Tally()
    stream = hostile(seed, DEVICES)
    warm = 0
    async with open_harness(path) as harness:
        while tally.inputs < inputs:
            batch = [next(stream) for _ in range(min(BATCH, inputs - tally.inputs))]
            await _one(harness, batch, tally)
            if not warm and tally.inputs >= inputs * WARM_UP:
                warm = resident_bytes()
            if told is not None:
                next(told)
        tally.growth = resident_bytes() - warm
        tally.letters = (await harness.store.counts())["dead_letters"]
        tally.devices = len(devices_of(harness.fleet))
        _bounds(harness, tally)
    return tally


async def _one(harness: ControllerHarness, batch: list[Hostile], tally: Tally) -> None:
    harness.clock.at += PAUSE
    now = harness.clock.monotonic()
    number = int(now)
    honest = [
        IncomingMessage(
            up(name, UpChannel.POSTURE), reports.full(name, number, 22, 80 + number % 7), 1, False, False, 1, now
        )
        for name in _names()
    ]
    bad = [IncomingMessage(one.topic, one.payload, 1, one.retain, False, 1, now) for one in batch]
    middle = len(bad) // 2
    messages = [*bad[:middle], *honest, *bad[middle:]]
    harness.link.sent.clear()
    harness.link.acknowledged.clear()
    harness.broker.calls.clear()
    try:
        await harness.ingest.process_batch(messages)
        await harness.drain()
    except Exception as e:
        raise BreachError(f"after {tally.inputs} inputs: {e!r}") from e
    if harness.link.acknowledged != messages:
        raise BreachError("not every message was acknowledged, in order")
    _answers(harness, batch, number, tally)
    tally.inputs += len(batch)


def _names() -> list[str]:
    return [f"honest-{number}" for number in range(HONEST)]


def _answers(harness: ControllerHarness, batch: list[Hostile], number: int, tally: Tally) -> None:
    said: dict[str, list[dict[str, object]]] = {}
    for topic, payload in harness.link.sent:
        device_id, _, channel = topic.removeprefix("cordon/v1/").partition("/")
        if channel == "down/receipt":
            said.setdefault(device_id, []).append(json.loads(payload))
    digest = digest_of(reports.sections(22, 80 + number % 7))
    for name in _names():
        expected = {"v": 1, "seq": number, "verdict": "accepted", "digest": digest}
        if said.pop(name, None) != [expected]:
            raise BreachError(f"{name} was not answered as it should be: {down(name, DownChannel.RECEIPT)}")
        if devices_of(harness.fleet)[name].level is not ContainmentLevel.NONE:
            raise BreachError(f"{name} was contained by what others sent")
    for one in batch:
        verdict = check_answer(one, said.pop(one.device_id, []))
        tally.verdicts[verdict] += 1
        tally.kinds[f"{one.kind}: {verdict}"] += 1
    if said:
        raise BreachError(f"somebody was answered who said nothing: {sorted(said)}")


def check_answer(one: Hostile, answers: list[dict[str, object]]) -> str:
    """Returns `taken` without a receipt, `nobody` if the topic names no device, `presence` for topics of the broker."""
    if not one.device_id:
        verdict = "presence" if one.topic.startswith(PRESENCE_PREFIX) else "nobody"
        return verdict if not answers else "?"
    if not answers:
        return "taken"
    if len(answers) > 1:
        raise BreachError(f"{one.kind}: {len(answers)} answers to one message")
    (answer,) = answers
    if answer["verdict"] != "rejected":
        return str(answer["verdict"])
    if answer["reason"] not in _REASONS or answer["reason"] == RejectReason.OTHER or not answer["detail"]:
        raise BreachError(f"{one.kind} {one.payload[:200]!r}: {answer}")
    return f"rejected: {answer['reason']}"


def _bounds(harness: ControllerHarness, tally: Tally) -> None:
    counts = harness.ingest.counts
    failed = [fields for event, fields in harness.logged if event == "message failed"]
    if failed:
        raise BreachError(f"the controller could not work with {len(failed)} messages: {failed[0]}")
    refused = sum(count for name, count in counts.items() if name.startswith("refused:"))
    # A stale report is the domain's refusal: it is answered, and nothing is wrong with the message.
    answered = sum(count for name, count in tally.verdicts.items() if name.startswith("rejected"))
    stale = tally.verdicts["rejected: stale_sequence"]
    if refused != answered - stale + tally.verdicts["nobody"]:
        raise BreachError(f"counted {refused} refusals, answered {answered} of which {stale} stale")
    if tally.letters > MAX_LETTERS:
        raise BreachError(f"{tally.letters} dead letters are kept")
    if tally.devices > DEVICES + HONEST:
        raise BreachError(f"{tally.devices} devices are known")
    if tally.growth > MAX_GROWTH:
        raise BreachError(f"memory grew by {tally.growth} bytes after the warm-up")
