"""Hostile messages of devices: a seed gives the same ones every time."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from schemas.posture import digest_of
from schemas.topics import UpChannel, up
from tests.attack.fuzz.mutations import DAMAGES, dump
from tests.support.reports import SENT_AT, sections

_WORDS: Final = ("full", "heartbeat", "delta", "whole", "FULL", "", 1, None)
_VERSIONS: Final = (0, 2, 99, "1", True, None, 1.0, 1.5)
_LONG_TOPIC: Final = "t" * 60_000


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message; `kind` names what was done to it, `device_id` is whom its topic names (empty: nobody)."""

    kind: str
    device_id: str
    topic: str
    payload: bytes
    retain: bool = False


def report(device_id: str, seq: int) -> dict[str, Any]:
    """A valid full report."""
    body = sections(
        22, 8883, services={"state": "ok", "units": [{"name": "ssh.service", "enabled": True, "active": True}]}
    )
    return {
        "v": 1, "kind": "full", "device_id": device_id, "seq": seq, "sent_at": SENT_AT, "boot_id": "b",
        "agent": "1.0.0", "digest": digest_of(body), "sections": body,
    }  # fmt: skip


def beat(device_id: str, seq: int) -> dict[str, Any]:
    """A valid heartbeat of a report that was never sent."""
    digest = "sha256:" + "0" * 64
    return {"v": 1, "kind": "heartbeat", "device_id": device_id, "seq": seq, "sent_at": SENT_AT, "digest": digest}


def delta(device_id: str, seq: int) -> dict[str, Any]:
    """A valid delta against the full report above."""
    now = sections(22)
    return {
        "v": 1, "kind": "delta", "device_id": device_id, "seq": seq, "sent_at": SENT_AT, "digest": digest_of(now),
        "base": report(device_id, seq)["digest"], "sections": {"sockets": now["sockets"]},
    }  # fmt: skip


def status(_device_id: str, seq: int) -> dict[str, Any]:
    """A valid status."""
    return {"v": 1, "state": ("online", "offline")[seq % 2], "boot_id": "b", "at": SENT_AT}


def event(device_id: str, _seq: int) -> dict[str, Any]:
    """A valid event."""
    return {
        "v": 1, "device_id": device_id, "kind": "login_failed", "severity": "low", "count": 3, "summary": "ssh",
        "at": SENT_AT, "detail": {"user": "root"},
    }  # fmt: skip


def result(_device_id: str, _seq: int) -> dict[str, Any]:
    """A valid result of a command that was never sent."""
    detail = {"was": "enabled", "is": "disabled"}
    return {"v": 1, "command_id": "01JD", "state": "succeeded", "reason": "", "detail": detail, "at": SENT_AT}


def renewal(device_id: str, _seq: int) -> dict[str, Any]:
    """A request for a certificate that has the shape of one."""
    csr = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    return {"v": 1, "device_id": device_id, "serial": "1f", "csr": csr, "proof": "AAAA"}


_BODIES: Final[tuple[tuple[UpChannel, Callable[[str, int], dict[str, Any]]], ...]] = (
    (UpChannel.POSTURE, report), (UpChannel.POSTURE, report), (UpChannel.POSTURE, beat), (UpChannel.POSTURE, delta),
    (UpChannel.STATUS, status),
    (UpChannel.EVENT, event),
    (UpChannel.RESULT, result),
    (UpChannel.RENEW, renewal),
)  # fmt: skip
_SHAPES: Final[tuple[Callable[[str, int], dict[str, Any]], ...]] = (report, beat, delta, status, event, result, renewal)


def _damaged(rand: random.Random, device_id: str) -> Hostile:
    channel, make = rand.choice(_BODIES)
    damage = rand.choice(DAMAGES)
    payload = damage(rand, make(device_id, rand.randrange(1000)))
    return Hostile(f"{channel} {damage.__name__}", device_id, up(device_id, channel), payload)


def _other_device(rand: random.Random, device_id: str) -> Hostile:
    channel, make = rand.choice(((UpChannel.POSTURE, report), (UpChannel.POSTURE, beat), (UpChannel.EVENT, event)))
    other = rand.choice(("honest-0", "", ".", "..", "a/b", "é", f"{device_id}x", device_id.upper(), "x" * 65))
    return Hostile("other device", device_id, up(device_id, channel), dump(make(other, 1)))


def _other_shape(rand: random.Random, device_id: str) -> Hostile:
    channel = rand.choice(tuple(UpChannel))
    return Hostile(
        f"{channel} other shape", device_id, up(device_id, channel), dump(rand.choice(_SHAPES)(device_id, 1))
    )


def _other_version(rand: random.Random, device_id: str) -> Hostile:
    channel, make = rand.choice(_BODIES)
    body = {**make(device_id, 1), "v": rand.choice(_VERSIONS)}
    return Hostile("other version", device_id, up(device_id, channel), dump(body))


def _other_kind(rand: random.Random, device_id: str) -> Hostile:
    body = {**report(device_id, 1), "kind": rand.choice(_WORDS)}
    return Hostile("other kind", device_id, up(device_id, UpChannel.POSTURE), dump(body))


def _order(rand: random.Random, device_id: str) -> Hostile:
    seq = rand.choice((0, 1, 5, 999, 2**53 - 1))
    return Hostile(
        "replayed or out of order", device_id, up(device_id, UpChannel.POSTURE), dump(report(device_id, seq))
    )


def _retained(rand: random.Random, device_id: str) -> Hostile:
    channel, make = rand.choice(_BODIES)
    return Hostile("retained", device_id, up(device_id, channel), dump(make(device_id, 1)), retain=True)


def _outside(rand: random.Random, device_id: str) -> Hostile:
    good = up(device_id, UpChannel.POSTURE)
    topics = (
        "", "/", "cordon", good + "/more", good.replace("v1", "v2"), good.replace("posture", "secrets"),
        good.replace(device_id, ""), good.replace(device_id, ".."), good.replace(device_id, "a b"),
        good.replace("/up/", "/down/"), good.replace(device_id, "é\x00"), good.replace(device_id, "x" * 65),
        _LONG_TOPIC, f"$SYS/{good}", good.upper(),
    )  # fmt: skip
    return Hostile("topic outside", "", rand.choice(topics), dump(report(device_id, 1)))


_MAKERS: Final = (
    *((_damaged,) * 12), _other_device, _other_shape, _other_version, _other_kind, _order, _order, _retained, _outside,
)  # fmt: skip


def hostile(seed: int, devices: int) -> Iterator[Hostile]:
    """Without end; `devices` names take turns, so that none sends twice among any `devices` messages."""
    rand = random.Random(seed)
    number = 0
    while True:
        yield rand.choice(_MAKERS)(rand, f"hostile-{number % devices:05d}")
        number += 1
