"""One device on one page: what it is, what it fails, and the timeline of why it is contained."""

import sys
from typing import Any, Final

from controller.cli.output import STYLES, ago, safe, say
from controller.cli.timeline import TimelineEntry, lines_of

_MARKS: Final = {"alert": "!", "step": "·", "line": "•"}


def print_portrait(device: dict[str, Any]) -> None:
    """Print the page: in colours at a terminal, the same text without them in a pipe."""
    _heading(device)
    _findings(device["findings"])
    _commands(device["commands"])
    if device["timeline"]:
        say()
        _title("Timeline (UTC)")
        day = ""
        for line in lines_of(device["timeline"]):
            if line.day and line.day != day:
                day = line.day
                _paint([(f"  {day}", "bold")])
            _timeline(line)


def _heading(device: dict[str, Any]) -> None:
    case = device["case"]
    _paint([(safe(device["device_id"]), "bold"), ("  ", ""), (device["level"], STYLES.get(device["level"], "green"))])
    if case is not None:
        _field("why", case["reason"])
        _field("decided by", f"{case['by']}, {ago(case['opened_at'])} (case {case['case_id']})")
        proven = "yes, read back at the broker " + ago(case["proven_at"]) if case["proven"] else "not yet"
        _field("proven", proven + (f": {case['trouble']}" if case["trouble"] else ""))
        _field("ends", _end(case))
    pending = device["pending"]
    if pending is not None:
        waits = f"{pending['level']} for {', '.join(pending['causes'])}, {ago(pending['since'])}"
        _field("waits", f"{waits}: {pending['why']}{' by ' + pending['by'] if pending['by'] else ''}")
    presence = {True: "online", False: "offline", None: "never said"}[device["online"]]
    silence = "stale: " if device["stale"] else ""
    _field("seen", f"{silence}{ago(device['last_seen'])}, {presence}, known since {device['first_seen'][:10]}")
    report = device["report"]
    if report is None:
        _field("report", "none yet")
    else:
        text = f"{report['seq']}, {ago(report['received_at'])}, by agent {device['agent'] or '?'}"
        _field("report", f"{text}, judged by policies {report['judged_by']}")
        if device["signs"]:
            _field("signed", "yes" + (f"; numbers were missing {device['gaps']} times" if device["gaps"] else ""))
    counts = ", ".join(f"{count} {result}" for result, count in sorted(device["not_satisfied"].items()))
    _field("rules", f"{device['satisfied']} satisfied" + (f", {counts}" if counts else ""))
    labels = [device["device_class"] and f"class {device['device_class']}", *device["tags"]]
    if any(labels):
        _field("labels", ", ".join(one for one in labels if one))


def _end(case: dict[str, Any]) -> str:
    if case["isolate_until"] is not None:
        return f"steps down to restricted {ago(case['isolate_until'])} ({case['isolate_until']})"
    if case["until_released"]:
        return "when an operator releases it"
    if case["hold_until"] is not None:
        return f"with a report that passes, not before {case['hold_until']}"
    return "with a fresh report that passes"


def _findings(findings: list[dict[str, Any]]) -> None:
    if not findings:
        return
    say()
    _title("Rules that are not satisfied")
    for one in findings:
        severity = one["severity"] or ""
        _paint(
            [
                (f"  {one['result']:<8}", STYLES.get(one["result"], "")),
                (f"{severity:<9}", STYLES.get(severity, "")),
                (safe(one["rule"]), "bold"),
                (f"  {safe(one['title'])}", ""),
            ]
        )
        detail = f": {safe(one['detail'])}" if one["detail"] else ""
        _paint([(f"           since {ago(one['since'])}, {one['streak']} in a row{detail}", "dim")])
        if one["waived"] is not None:
            waived = one["waived"]
            text = f"waived until {waived['expires_at']} by {safe(waived['owner'])}: {safe(waived['reason'])}"
            _paint([(f"           {text}", "yellow")])
        if one["mode"] == "shadow":
            _paint([("           shadow mode: nothing follows", "yellow")])
        if one["result"] == "fail" and one["fix"]:
            _paint([(f"           {safe(one['fix'])}", "dim")])


def _commands(commands: list[dict[str, Any]]) -> None:
    if not commands:
        return
    say()
    _title("Commands under way")
    for one in commands:
        params = " ".join(f"{key}={value}" for key, value in one["params"].items())
        name = f"{safe(one['action'])} {safe(params)}".strip()
        _paint([(f"  {one['state']:<10}", ""), (name, "bold"), (f"  by {safe(one['by'])}, {one['command_id']}", "dim")])


def _timeline(line: TimelineEntry) -> None:
    mark = _MARKS["alert"] if line.alert else _MARKS["step"] if line.indent else _MARKS["line"]
    style = "red" if line.alert else line.style
    parts = [(f"  {line.clock:<12} {'  ' * line.indent}{mark} ", style or "dim"), (line.text, style)]
    if line.more:
        parts.append((f"  {line.more}", "dim"))
    _paint(parts, hang=True)


def _field(name: str, text: object) -> None:
    _paint([(f"  {name:<11}", "dim"), (safe(text), "")], hang=True)


def _title(text: str) -> None:
    _paint([(text, "bold underline")])


def _paint(parts: list[tuple[str, str]], *, hang: bool = False) -> None:
    """A line; with `hang` what does not fit goes on under the second part."""
    if not sys.stdout.isatty():
        say("".join(text for text, _ in parts).rstrip())
        return
    from rich.console import Console  # a terminal only
    from rich.table import Table
    from rich.text import Text

    line: Table | Text = Text.assemble(*parts)
    if hang:
        line = Table.grid()
        line.add_column(no_wrap=True)
        line.add_column()
        line.add_row(Text.assemble(parts[0]), Text.assemble(*parts[1:]))
    Console(highlight=False).print(line)
