"""Turns a device's audit lines into a timeline: reports, decisions, each call to the broker, each read-back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from controller.cli.output import exact, parse_time, safe
from controller.domain.audit_kinds import AuditKind
from controller.domain.principal import is_operator

_STYLES: Final = {
    AuditKind.CONTAINMENT_DECIDED: "bold yellow",
    AuditKind.CONTAINMENT_ESCALATED: "bold red",
    AuditKind.CONTAINMENT_STEPPED_DOWN: "yellow",
    AuditKind.CONTAINMENT_PROVEN: "bold green",
    AuditKind.CONTAINMENT_RELEASE_DECIDED: "green",
    AuditKind.CONTAINMENT_RELEASE_PROVEN: "bold green",
    AuditKind.DEVICE_STALE: "yellow",
    AuditKind.COMMAND_SUCCEEDED: "green",
    AuditKind.COMMAND_FAILED: "red",
    AuditKind.COMMAND_EXPIRED: "yellow",
    AuditKind.COMMAND_REJECTED: "red",
}
_COMMAND_ENDS: Final = frozenset(
    {AuditKind.COMMAND_SUCCEEDED, AuditKind.COMMAND_FAILED, AuditKind.COMMAND_EXPIRED, AuditKind.COMMAND_REJECTED}
)
_DATABASE: Final = "/authorization/sources/built_in_database"  # the same in every call, so it is abbreviated
_MEASURABLE: Final = 0.0001  # seconds; below that nothing was called
_MAX_TEXT: Final = 300  # characters of a detail


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A line of the timeline; `indent` 1: a call that belongs to the line above."""

    text: str
    more: str = ""
    day: str = ""
    clock: str = ""
    indent: int = 0
    alert: bool = False
    style: str = ""


def timeline(entries: Sequence[dict[str, Any]]) -> Iterator[TimelineEntry]:
    """Yields the timeline of audit lines, which come oldest first."""
    by_operator = False
    for entry in entries:
        if entry["kind"] in (AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_ESCALATED):
            by_operator = is_operator(entry["actor"])
        when = parse_time(entry["at"])
        text, more = _described(entry, "the decision" if by_operator else "the report")
        yield TimelineEntry(
            safe(text),
            safe(more),
            day=when.date().isoformat(),
            clock=when.strftime("%H:%M:%S.%f")[:12],
            alert=entry["alert"],
            style=_STYLES.get(entry["kind"], ""),
        )
        yield from _calls(entry["detail"].get("steps") or ())


def _calls(steps: Sequence[dict[str, Any]]) -> Iterator[TimelineEntry]:
    """Yields each call to the broker and its answer; equal calls to several nodes are one line."""
    for (what, call, answer), group in groupby(steps, _step_key):
        nodes = " ".join(_node(step) for step in group).strip()
        yield TimelineEntry(safe(f"{what:<19} {call + ' -> ' if call else ''}{answer}"), safe(nodes), indent=1)


def _step_key(step: dict[str, Any]) -> tuple[str, str, str]:
    call = str(step.get("call", ""))
    answer = str(step.get("answer", ""))
    # The text of an error repeats node and call.
    answer = answer.rpartition(f"{call}: ")[2] if call else answer
    return str(step.get("what", "")), call.replace(_DATABASE, "..."), answer


def _node(step: dict[str, Any]) -> str:
    seconds = step.get("seconds")
    name = str(step.get("node", "")).rpartition("://")[2]
    took = f" {exact(seconds)}" if isinstance(seconds, int | float) and seconds >= _MEASURABLE else ""
    return f"[{name}{took}]" if name else ""


def _described(entry: dict[str, Any], since: str) -> tuple[str, str]:  # noqa: C901, PLR0912 - one flat table
    """Returns the text of an audit line and additional information; `since`: what the seconds to the cut count from."""
    detail, kind, actor = entry["detail"], entry["kind"], entry["actor"]
    by = "" if actor in ("cordon", entry["device_id"]) else f"by {actor}"
    match kind:
        case AuditKind.REPORT_FIRST_ACCEPTED:
            return "first report arrived", f"agent {detail.get('agent') or '?'}"
        case AuditKind.REPORT_POSTURE_CHANGED:
            worse = ", ".join(f"{key} {result}" for key, result in (detail.get("worse") or {}).items())
            better = ", ".join(detail.get("better") or ())
            changes = "; ".join(part for part in (worse, f"satisfied again: {better}" if better else "") if part)
            return f"report {detail.get('seq')}: {changes}", ""
        case AuditKind.CONTAINMENT_DECIDED:
            until = detail.get("until")
            return f"{detail.get('level')}: {detail.get('reason')}", _join(by, f"until {until}" if until else "")
        case AuditKind.CONTAINMENT_ESCALATED:
            causes = ", ".join(detail.get("causes") or ())
            return f"escalated to {detail.get('level')}: {causes}", f"until {detail.get('until')}"
        case AuditKind.CONTAINMENT_PROVEN | AuditKind.CONTAINMENT_PARTLY_PROVEN:
            seconds = detail.get("seconds")
            took = f"{exact(seconds)} from {since} to the cut" if isinstance(seconds, int | float) else ""
            return f"{detail.get('level')}, read back at {_where_read(detail)}", took
        case AuditKind.CONTAINMENT_FAILED:
            return f"not proven yet ({detail.get('what')}): {detail.get('trouble')}", "will be retried"
        case AuditKind.CONTAINMENT_STEPPED_DOWN:
            return f"stepped down to restricted: {detail.get('reason')}", by
        case AuditKind.CONTAINMENT_RELEASE_DECIDED:
            seconds = detail.get("contained_seconds")
            duration = f"contained for {exact(seconds)}" if seconds else ""
            return f"released: {detail.get('reason')}", _join(by, duration)
        case AuditKind.CONTAINMENT_RELEASE_PROVEN:
            return "free again, read back at the broker", ""
        case AuditKind.BROKER_DRIFT_FOUND:
            return f"the broker differed: {detail.get('what')}", "is being repaired"
        case AuditKind.DEVICE_STALE:
            return f"stale: no message for {exact(detail.get('after_seconds', 0.0))}", ""
        case AuditKind.COMMAND_ISSUED:
            params = " ".join(f"{key}={value}" for key, value in (detail.get("params") or {}).items())
            rule = f"repairs {detail['rule']}" if detail.get("rule") else by
            return f"command {detail.get('action')} {params}".rstrip(), _join(rule, str(detail.get("command_id")))
        case _ if kind in _COMMAND_ENDS:
            result = ", ".join(f"{key}: {value}" for key, value in (detail.get("result") or {}).items())
            reason = f" ({detail['reason']})" if detail.get("reason") else ""
            return f"{kind.replace('.', ' ')}: {detail.get('action')}{reason}", result[:_MAX_TEXT]
        case _:
            rest = ", ".join(
                f"{key} {value}" for key, value in detail.items() if key != "steps" and value not in ("", None)
            )
            return entry["text"], _join(by, rest[:_MAX_TEXT])


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _where_read(detail: dict[str, Any]) -> str:
    nodes = ", ".join(one.get("node") or "a node" for one in detail.get("unread") or ())
    return f"every node but {nodes}" if nodes else "the broker"
