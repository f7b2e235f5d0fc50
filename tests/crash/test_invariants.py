"""The checks complain about what they are for: each bad history here is a good one with one thing wrong."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import ContainmentCase, Device, OpenCommand
from controller.domain.effects import AuditEntry, ReleaseClient
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import BAN_MARK, Ban, restriction
from controller.ports.store import StoredAuditEntry
from schemas.commands import CommandState
from tests.crash import invariants
from tests.crash.invariants import Asked, Held, Kept, Seen

NAME: Final = "d1"
RULE: Final = "demo/no-telnet"
BAD, GOOD = "sha256:bad", "sha256:good"
UNTIL: Final = 4000.0
RELEASED: Final = AuditKind.CONTAINMENT_RELEASE_DECIDED
STEPPED_DOWN: Final = AuditKind.CONTAINMENT_STEPPED_DOWN
OTHER: Final = AuditKind.COMMAND_SENT  # a line that decides and proves nothing


def _line(seq: int, kind: AuditKind, actor: str = "cordon", case: str = "", **detail: Any) -> StoredAuditEntry:
    return StoredAuditEntry(AuditId(1, seq), 1000.0 + seq, AuditEntry(kind, NAME, actor, case, detail))


def _failed(seq: int) -> StoredAuditEntry:
    return _line(seq, AuditKind.REPORT_POSTURE_CHANGED, NAME, digest=BAD, worse={RULE: "fail"}, better=[])


def _passed(seq: int) -> StoredAuditEntry:
    return _line(seq, AuditKind.REPORT_POSTURE_CHANGED, NAME, digest=GOOD, worse={}, better=[RULE])


def _contained(
    seq: int, case: str, level: str = "restricted", actor: str = "cordon", **changes: Any
) -> StoredAuditEntry:
    causes = [RULE] if actor == "cordon" else []
    return _line(
        seq,
        AuditKind.CONTAINMENT_DECIDED,
        actor,
        case,
        **{"level": level, "causes": causes, "reason": "r", "until": None, **changes},
    )


def _proven(seq: int, case: str, level: str = "restricted") -> StoredAuditEntry:
    return _line(seq, AuditKind.CONTAINMENT_PROVEN, case=case, level=level)


# A device is restricted, repaired by a command, released, isolated later by an operator, and is so at the end.
AUDIT: Final = (
    _failed(1),
    _contained(2, "c1"),
    _line(3, AuditKind.COMMAND_ISSUED, case="c1", command_id="k1"),
    _proven(4, "c1"),
    _line(5, AuditKind.COMMAND_SUCCEEDED, NAME, "c1", command_id="k1"),
    _passed(6),
    _line(7, AuditKind.CONTAINMENT_RELEASE_DECIDED, "policy", "c1", reason="a fresh report passes"),
    _line(8, AuditKind.CONTAINMENT_RELEASE_PROVEN, case="c1"),
    _contained(9, "c2", "isolated", "ada", reason="asked 1", until=UNTIL),
    _proven(10, "c2", "isolated"),
)
CASE: Final = ContainmentCase(
    "c2",
    ContainmentLevel.ISOLATED,
    (),
    "ada",
    "asked 1",
    0.0,
    0.0,
    isolate_until=UNTIL,
    proven_level=ContainmentLevel.ISOLATED,
)
DEVICE: Final = Device(NAME, 0.0, 0.0, report_seq=6, digest=GOOD, case=CASE)
KEPT: Final = Kept({NAME: DEVICE}, {NAME: GOOD}, AUDIT, (), {"k1": "succeeded"})
BAN: Final = Ban("clientid", NAME, f"{BAN_MARK}c2", "asked 1", 0.0, UNTIL)
HELD: Final = Held({NAME: restriction(NAME)}, {NAME: BAN})
SEEN: Final = Seen({NAME: (6, GOOD)}, {NAME: (6, GOOD)}, ((NAME, "k1"),), {BAD: frozenset({RULE}), GOOD: frozenset()})
ASKED: Final = Asked(frozenset({"asked 1", "asked 2"}), frozenset({"asked 1"}))


def _found(kept: Kept = KEPT, held: Held = HELD, seen: Seen = SEEN, asked: Asked = ASKED) -> list[str]:
    return [
        *invariants.always(kept, held, seen, asked),
        *invariants.settled(kept, held),
        *invariants.nothing_is_owed(kept, seen),
    ]


def _told(*lines: StoredAuditEntry) -> Kept:
    """The good record with these lines in the place of others, or after them."""
    by_id = {line.id: line for line in (*AUDIT, *lines)}
    return replace(KEPT, audit=[by_id[one] for one in sorted(by_id)])


def _with(**changes: Any) -> Kept:
    return replace(KEPT, devices={NAME: replace(DEVICE, **changes)})


def _case(**changes: Any) -> Kept:
    return _with(case=replace(CASE, **changes))


def test_a_good_history_is_left_in_peace() -> None:
    assert _found() == []


COMMAND: Final = OpenCommand("k1", "rescan", (), 1, CommandState.SCHEDULED, 0.0, 1.0, "cordon")
BAD_KEPT: Final[Mapping[str, tuple[Kept, str]]] = {
    "receipt lost": (_with(report_seq=5), "has a receipt for report 6"),
    "other report": (_with(digest=BAD), "was receipted with digest"),
    "device lost": (replace(KEPT, devices={}), "is not in the store"),
    "report body lost": (replace(KEPT, reports={}), "the report kept is None"),
    "lines lost": (replace(KEPT, audit=[*AUDIT[:3], *AUDIT[4:]]), "jumps from line 1-3 to 1-5"),
    "end of the record lost": (replace(KEPT, audit=AUDIT[:8]), "the record ends in case none"),
    "operator forgotten": (_told(_contained(9, "c2", "isolated", "ada", reason="other", until=UNTIL)), "has no 'asked"),
    "contained twice": (_told(_failed(8), _contained(9, "c2"), _failed(10), _contained(11, "c3")), "contained again"),
    "contained without cause": (_told(_contained(9, "c2", "isolated", until=UNTIL)), "failing were []"),
    "released while it fails": (_told(_failed(6)), "released while"),
    "released by nobody": (_told(_line(7, RELEASED, "bob", "c1", reason="mine")), "none asked for it"),
    "released from another case": (_told(_line(7, RELEASED, "policy", "c9")), "released from c9"),
    "stepped down too early": (_told(_line(11, STEPPED_DOWN, case="c2")), "it was to hold until"),
    "stepped down by nobody": (_told(_line(11, STEPPED_DOWN, "bob", "c2", reason="x")), "none asked for it"),
    "escalated elsewhere": (
        _told(_line(11, AuditKind.CONTAINMENT_ESCALATED, case="c7", level="isolated", until=UNTIL)), "in case c7"),
    "never proven": (_told(_line(10, OTHER)), "not proven, and nothing is left"),
    "proven for less": (_told(_proven(10, "c2", "restricted")), "not proven, and nothing is left"),
    "release never proven": (
        replace(_told(_line(8, OTHER), _line(9, OTHER), _line(10, OTHER)), devices={NAME: DEVICE}),
        "decided release for c1",
    ),
    "record is wrong about a report": (_told(replace(_passed(6), entry=replace(_passed(6).entry, detail={
        "digest": BAD, "worse": {}, "better": [RULE]}))), "is wrong about"),
    "command without an end": (_told(_line(5, OTHER)), "k1 is succeeded, which the record contradicts"),
    "command lost": (replace(KEPT, commands={}), "is not among the commands"),
    "command open and ended": (_with(commands=(COMMAND,)), "which the record contradicts"),
    "effect left over": (replace(KEPT, effects=(ReleaseClient("e", NAME, "c1"),)), "e is not carried out"),
    "not read back": (_case(proven_level=ContainmentLevel.RESTRICTED), "is not proven"),
    "in another case": (_case(case_id="c8"), "is banned for cordon/c2, in force is c8"),
    "for longer": (_case(isolate_until=UNTIL + 60), "is banned until"),
    "for ever": (_case(isolate_until=None), "is banned until"),
    "free in the store": (_with(case=None), "is restricted at the broker, in force is nothing"),
    "only restricted in the store": (
        _case(level=ContainmentLevel.RESTRICTED, proven_level=ContainmentLevel.RESTRICTED), "is banned for"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_KEPT)
def test_a_bad_store_is_told(name: str) -> None:
    kept, words = BAD_KEPT[name]
    assert any(words in text for text in _found(kept)), _found(kept)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Held({}, {NAME: BAN}), "is not restricted at the broker"),
        (Held({NAME: restriction("other")}, {NAME: BAN}), "is not restricted at the broker"),
        (Held(HELD.rules, {}), "is isolated and not banned"),
        (Held(HELD.rules, {NAME: replace(BAN, by="somebody")}), "is isolated and not banned"),
        (Held(HELD.rules, {NAME: replace(BAN, by=f"{BAN_MARK}c1")}), "is banned for cordon/c1"),
        (Held(HELD.rules, {NAME: BAN, "x": replace(BAN, who="x", by="cordon/c5")}), "which the record does not know"),
        (Held({**HELD.rules, "x": restriction("x")}, HELD.bans), "x: is restricted, and the record knows of no"),
    ],
)
def test_a_broker_that_holds_something_else_is_told(held: Held, words: str) -> None:
    assert any(words in text for text in _found(held=held)), _found(held=held)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(SEEN, sent={NAME: (9, GOOD)}), "report 9 never arrived"),
        (replace(SEEN, sent={NAME: (6, BAD)}), "report 6 has digest"),
        (replace(SEEN, receipted={NAME: (5, BAD)}), "still waits for the receipt of report 6"),
        (replace(SEEN, taken=((NAME, "k1"), (NAME, "k1"))), "began k1 2 times"),
        (replace(SEEN, taken=((NAME, "k9"),)), "began k9, which the record does not know"),
    ],
)
def test_devices_that_saw_something_else_are_told(seen: Seen, words: str) -> None:
    assert any(words in text for text in _found(seen=seen)), _found(seen=seen)


def test_what_was_overtaken_or_waits_is_no_complaint() -> None:
    """A decision that a later one replaced needs no proof; one that still waits in the outbox neither."""
    again = _told(_line(8, OTHER))  # contained again before the release was proven
    assert _found(again) == []
    waiting = replace(_told(_line(10, OTHER)), effects=(ReleaseClient("e", NAME, "c2"),))
    assert invariants.always(waiting, HELD, SEEN, ASKED) == []
