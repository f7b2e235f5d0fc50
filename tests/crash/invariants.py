"""What must be true of a controller that is killed again and again, as pure checks over what was seen and kept.

Each check returns complaints in words, none if all is well. `always` holds at every moment, also right after a kill;
`settled` holds once nothing is under way any more.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.cases import POLICY
from controller.domain.device import ContainmentCase, Device
from controller.domain.effects import Effect, SendCommand
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import BAN_MARK, AccessRules, Ban, restriction
from controller.ports.store import StoredAuditEntry
from schemas.commands import CommandState

BY_ITSELF: Final = "cordon"  # who the record names when nobody asked
RELEASE: Final = "release"
FAR: Final = 1e12  # Unix seconds, for what has no end
UNTIL_TOLERANCE: Final = 1.5  # seconds: the broker keeps a ban's end in whole ones


@dataclass(frozen=True, slots=True)
class Seen:
    """At the devices. Reports are `(seq, digest)`.

    `receipted`: the highest report with an accepting receipt. `sent`: the last full report that was sent.
    `taken`: `(device, command)` for each command that a device began. `failing`: the rules that a report of this digest
    breaks, as found by somebody else than the controller.
    """

    receipted: Mapping[str, tuple[int, str]]
    sent: Mapping[str, tuple[int, str]]
    taken: Sequence[tuple[str, str]] = ()
    failing: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """By operators, each with a reason of its own: every request, and those that were answered with a decision."""

    attempted: frozenset[str] = frozenset()
    confirmed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Kept:
    """In the store's file; `reports` are digests, `commands` states."""

    devices: Mapping[str, Device]
    reports: Mapping[str, str]
    audit: Sequence[StoredAuditEntry]
    effects: Sequence[Effect]
    commands: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Held:
    """At the broker, by client id."""

    rules: Mapping[str, AccessRules]
    bans: Mapping[str, Ban]


def always(kept: Kept, held: Held, seen: Seen, asked: Asked) -> list[str]:
    """What no kill may break, not even for a moment."""
    return [
        *receipts_are_kept(kept, seen),
        *nothing_is_done_undecided(kept, held, seen),
        *operators_are_heard(kept, asked),
        *record_is_whole(kept),
        *findings_are_true(kept, seen),
        *cases_make_sense(kept, asked),
    ]


def settled(kept: Kept, held: Held) -> list[str]:
    """What holds besides, once every decision had time to be carried out."""
    return [*everything_is_done(kept), *broker_holds_the_decisions(kept, held)]


def receipts_are_kept(kept: Kept, seen: Seen) -> Iterator[str]:
    """Every report whose receipt a device got is in the store, or a later one is."""
    for name, (seq, digest) in seen.receipted.items():
        device = kept.devices.get(name)
        if device is None:
            yield f"{name}: has a receipt for report {seq} and is not in the store"
        elif device.report_seq < seq:
            yield f"{name}: has a receipt for report {seq}, the store is at {device.report_seq}"
        elif device.report_seq == seq and device.digest != digest:
            yield f"{name}: report {seq} was receipted with digest {digest}, the store has {device.digest}"
    for name, device in kept.devices.items():
        if device.digest and kept.reports.get(name) != device.digest:
            yield f"{name}: the report kept is {kept.reports.get(name)}, the device's digest {device.digest}"


def nothing_is_owed(kept: Kept, seen: Seen) -> Iterator[str]:
    """The last full report of every device arrived, and its receipt too."""
    for name, (seq, digest) in seen.sent.items():
        device = kept.devices.get(name)
        if device is None or device.report_seq < seq:
            yield f"{name}: report {seq} never arrived"
        elif device.report_seq == seq and device.digest != digest:
            yield f"{name}: report {seq} has digest {digest}, the store has {device.digest}"
        if seen.receipted.get(name, (-1, ""))[0] < seq:
            yield f"{name}: still waits for the receipt of report {seq}"


def nothing_is_done_undecided(kept: Kept, held: Held, seen: Seen) -> Iterator[str]:
    """What was done at the broker or by a device was decided, and kept, before; and no device does anything twice."""
    cases = {
        line.entry.case_id
        for line in kept.audit
        if line.entry.kind in {AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_ESCALATED}
    }
    for name, ban in held.bans.items():
        if ban.is_ours and ban.by.removeprefix(BAN_MARK) not in cases:
            yield f"{name}: is banned for {ban.by}, which the record does not know"
    for name, rules in held.rules.items():
        if rules == restriction(name) and not any(line.entry.device_id == name for line in _decisions(kept)):
            yield f"{name}: is restricted, and the record knows of no decision"
    issued = {_detail(line).get("command_id") for line in kept.audit if line.entry.kind == AuditKind.COMMAND_ISSUED}
    for (name, command), times in Counter(seen.taken).items():
        if command not in issued:
            yield f"{name}: began {command}, which the record does not know"
        if times > 1:
            yield f"{name}: began {command} {times} times"


def operators_are_heard(kept: Kept, asked: Asked) -> Iterator[str]:
    """Whatever an operator was told is decided, is in the record."""
    found = {_detail(line).get("reason") for line in kept.audit}
    for reason in sorted(asked.confirmed):
        if reason not in found and not any(isinstance(one, str) and one.endswith(reason) for one in found):
            yield f"an operator was answered, and the record has no {reason!r}"


def record_is_whole(kept: Kept) -> Iterator[str]:
    """No line is missing between two others, and time does not run backwards in it."""
    for before, after in zip(kept.audit, kept.audit[1:], strict=False):
        if after.id != AuditId(before.id.writer, before.id.seq + 1):
            yield f"the record jumps from line {before.id} to {after.id}"
    ends = {state.value for state in CommandState if state.is_end}
    kinds_of_ends = {AuditKind(f"command.{end}") for end in ends}
    still_open = {one.command_id for device in kept.devices.values() for one in device.commands}
    told = {_detail(line).get("command_id") for line in kept.audit if line.entry.kind in kinds_of_ends}
    for line in kept.audit:
        if line.entry.kind != AuditKind.COMMAND_ISSUED:
            continue
        command = str(_detail(line)["command_id"])
        if command not in kept.commands:
            yield f"{line.entry.device_id}: {command} was issued and is not among the commands"
        elif (command in still_open) == (command in told) or (kept.commands[command] in ends) != (command in told):
            yield f"{line.entry.device_id}: {command} is {kept.commands[command]}, which the record contradicts"


def findings_are_true(kept: Kept, seen: Seen) -> Iterator[str]:
    """What the record says of a report is what the report says."""
    for line in kept.audit:
        detail = _detail(line)
        truth = seen.failing.get(str(detail.get("digest")))
        if line.entry.kind != AuditKind.REPORT_POSTURE_CHANGED or truth is None:
            continue
        wrongly_better = truth & set(detail.get("better", ()))
        wrongly_worse = {rule for rule, result in detail.get("worse", {}).items() if result == "fail"} - truth
        for rule in sorted(wrongly_better | wrongly_worse):
            yield f"{line.entry.device_id}: line {line.id} is wrong about {rule}"


@dataclass(slots=True)
class _Story:
    """One device's record, told line by line."""

    case_id: str = ""
    until: float | None = None
    causes: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    is_refused: bool = False
    # The decision not proven yet: its case, what has to be proven, and its line.
    pending: tuple[str, str, AuditId] | None = None


def cases_make_sense(kept: Kept, asked: Asked) -> Iterator[str]:
    """Nobody is contained twice or released by mistake; each decision is proven, overtaken or still to be done."""
    stories: dict[str, _Story] = {}
    for line in kept.audit:
        story = stories.setdefault(line.entry.device_id, _Story())
        for complaint in _tell(story, line, asked):
            yield f"{line.entry.device_id}: line {line.id}: {complaint}"
    waiting = {(one.device_id, one.case_id) for one in kept.effects if not isinstance(one, SendCommand)}
    for name, story in stories.items():
        if story.pending is not None and (name, story.pending[0]) not in waiting:
            case_id, what, decided = story.pending
            yield f"{name}: line {decided} decided {what} for {case_id}: not proven, and nothing is left to be done"
        device = kept.devices.get(name)
        case = None if device is None else device.case
        if (case.case_id if case else "") != story.case_id and not story.is_refused:
            yield f"{name}: the record ends in case {story.case_id or 'none'}, the device is in {case and case.case_id}"


def _tell(story: _Story, line: StoredAuditEntry, asked: Asked) -> Iterator[str]:
    entry, detail = line.entry, _detail(line)
    match entry.kind:
        case AuditKind.REPORT_POSTURE_CHANGED:
            story.failing |= set(detail["worse"])
            story.failing -= set(detail["better"])
        case AuditKind.CONTAINMENT_DECIDED:
            yield from _contained(story, line)
        case AuditKind.CONTAINMENT_ESCALATED | AuditKind.CONTAINMENT_STEPPED_DOWN:
            if entry.case_id != story.case_id:
                yield f"{entry.kind} in case {entry.case_id}, in force is {story.case_id or 'none'}"
            if entry.kind == AuditKind.CONTAINMENT_STEPPED_DOWN:
                yield from _stepped_down(story, line, asked)
            story.causes |= set(detail.get("causes", ()))
            story.until = detail.get("until")
            story.pending = (entry.case_id, str(detail.get("level", ContainmentLevel.RESTRICTED.value)), line.id)
        case AuditKind.CONTAINMENT_RELEASE_DECIDED:
            yield from _released(story, line, asked)
        case AuditKind.CONTAINMENT_REFUSED:
            story.is_refused = True
            story.pending = None
        case AuditKind.CONTAINMENT_PROVEN:
            if story.pending is not None and story.pending[:2] == (entry.case_id, detail["level"]):
                story.pending = None
        case AuditKind.CONTAINMENT_RELEASE_PROVEN:
            if story.pending is not None and story.pending[:2] == (entry.case_id, RELEASE):
                story.pending = None


def _contained(story: _Story, line: StoredAuditEntry) -> Iterator[str]:
    entry, detail = line.entry, _detail(line)
    is_taken_over = entry.actor != BY_ITSELF and entry.case_id == story.case_id
    if story.case_id and not is_taken_over and not story.is_refused:
        yield f"contained again while {story.case_id} is in force"
    if entry.case_id != story.case_id:
        story.causes = set()
    story.case_id, story.is_refused = entry.case_id, False
    story.causes |= set(detail["causes"])
    story.until = detail["until"]
    story.pending = (entry.case_id, str(detail["level"]), line.id)
    if entry.actor == BY_ITSELF and not set(detail["causes"]) <= story.failing:
        yield f"contained for {detail['causes']}, failing were {sorted(story.failing)}"


def _stepped_down(story: _Story, line: StoredAuditEntry, asked: Asked) -> Iterator[str]:
    if line.entry.actor == BY_ITSELF:
        if story.until is None or line.at < story.until:
            yield f"stepped down at {line.at} by itself, it was to hold until {story.until}"
    elif _detail(line).get("reason") not in asked.attempted:
        yield "stepped down by an operator, and none asked for it"


def _released(story: _Story, line: StoredAuditEntry, asked: Asked) -> Iterator[str]:
    entry = line.entry
    if entry.case_id != story.case_id:
        yield f"released from {entry.case_id}, in force is {story.case_id or 'none'}"
    if entry.actor == POLICY:
        if story.causes & story.failing:
            yield f"released while {sorted(story.causes & story.failing)} fails"
    elif _detail(line).get("reason") not in asked.attempted:
        yield "released by an operator, and none asked for it"
    story.case_id, story.causes, story.until, story.is_refused = "", set(), None, False
    story.pending = (entry.case_id, RELEASE, line.id)


def everything_is_done(kept: Kept) -> Iterator[str]:
    """No effect and no command waits, and each containment in force was read back."""
    for effect in kept.effects:
        yield f"{effect.device_id}: {type(effect).__name__} {effect.effect_id} is not carried out"
    for name, device in kept.devices.items():
        if device.case is not None and device.case.proven_level is not device.case.level:
            yield f"{name}: {device.case.level} is not proven ({device.case.trouble or 'no trouble is known'})"
        if device.level is not ContainmentLevel.ISOLATED:
            yield from (f"{name}: {one.command_id} has not ended" for one in device.commands)


def broker_holds_the_decisions(kept: Kept, held: Held) -> Iterator[str]:
    """Rules and bans of every contained device, and of no other."""
    for name in sorted({*kept.devices, *held.rules, *held.bans}):
        device = kept.devices.get(name)
        case = None if device is None else device.case
        is_restricted = held.rules.get(name) == restriction(name)
        if is_restricted != (case is not None):
            yield f"{name}: {'is' if is_restricted else 'is not'} restricted at the broker, in force is {_level(case)}"
        ban = held.bans.get(name)
        ours = ban if ban is not None and ban.is_ours else None
        yield from (f"{name}: {text}" for text in _ban_trouble(case, ours))


def _ban_trouble(case: ContainmentCase | None, ban: Ban | None) -> Iterator[str]:
    if case is None or case.level is not ContainmentLevel.ISOLATED:
        if ban is not None:
            yield f"is banned for {ban.by}, in force is {_level(case)}"
    elif ban is None:
        yield "is isolated and not banned"
    elif ban.by != f"{BAN_MARK}{case.case_id}":
        yield f"is banned for {ban.by}, in force is {case.case_id}"
    elif abs(_end(ban.until) - _end(case.isolate_until)) > UNTIL_TOLERANCE:
        yield f"is banned until {ban.until}, decided was {case.isolate_until}"


def _end(until: float | None) -> float:
    return FAR if until is None else until


def _level(case: ContainmentCase | None) -> str:
    return "nothing" if case is None else f"{case.level} in case {case.case_id}"


def _decisions(kept: Kept) -> Iterator[StoredAuditEntry]:
    return (
        line
        for line in kept.audit
        if line.entry.kind in {AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_ESCALATED}
    )


def _detail(line: StoredAuditEntry) -> Mapping[str, Any]:
    return line.entry.detail or {}
