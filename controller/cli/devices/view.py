"""Prints one device: its state, the rules it does not satisfy, and a timeline of its audit lines."""

import sys
from typing import Any, Final

from controller.cli.devices.timeline import TimelineEntry, timeline
from controller.cli.output import STYLES, ago, safe, say
from controller.cli.quarantine.results import until

_MARKS: Final = {"alert": "!", "step": "·", "line": "•"}


def print_device(device: dict[str, Any]) -> None:
    """Prints in colours at a terminal, the same text without them in a pipe."""
    _heading(device)
    _findings(device["findings"])
    _commands(device["commands"])
    if device["timeline"]:
        say()
        _title("Timeline (UTC)")
        day = ""
        for line in timeline(device["timeline"]):
            if line.day and line.day != day:
                day = line.day
                _paint([(f"  {day}", "bold")])
            _print_entry(line)


def _heading(device: dict[str, Any]) -> None:
    case = device["case"]
    _paint([(safe(device["device_id"]), "bold"), ("  ", ""), (device["level"], STYLES.get(device["level"], "green"))])
    if case is not None:
        _field("why", case["reason"])
        _field("decided by", f"{case['by']}, {ago(case['opened_at'])} (case {case['case_id']})")
        proven = "yes, read back at the broker " + ago(case["proven_at"]) if case["proven"] else "not yet"
        if case.get("unread", ()):
            proven = "partial"
        for one in case.get("unread", ()):
            proven += f"; not read back from {one['node'] or 'every node'}: {one['reason']}"
        for text in case.get("left_open", ()):
            proven += f"; left open: {text}"
        _field("proven", proven + (f": {case['trouble']}" if case["trouble"] else ""))
        _field("until", until(case))
    pending = device["pending"]
    if pending is not None:
        deferred = f"{pending['level']} for {', '.join(pending['causes'])}, {ago(pending['since'])}"
        _field("waits", f"{deferred}: {pending['why']}{' by ' + pending['by'] if pending['by'] else ''}")
    presence = {True: "online", False: "offline", None: "presence unknown"}[device["online"]]
    stale = "stale: " if device["stale"] else ""
    _field("seen", f"{stale}{ago(device['last_seen'])}, {presence}, known since {device['first_seen'][:10]}")
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
        _field("labels", ", ".join(label for label in labels if label))


def _findings(findings: list[dict[str, Any]]) -> None:
    if not findings:
        return
    say()
    _title("Rules that are not satisfied")
    for finding in findings:
        severity = finding["severity"] or ""
        _paint(
            [
                (f"  {finding['result']:<8}", STYLES.get(finding["result"], "")),
                (f"{severity:<9}", STYLES.get(severity, "")),
                (safe(finding["rule"]), "bold"),
                (f"  {safe(finding['title'])}", ""),
            ]
        )
        detail = f": {safe(finding['detail'])}" if finding["detail"] else ""
        _paint([(f"           since {ago(finding['since'])}, {finding['streak']} in a row{detail}", "dim")])
        if finding["waived"] is not None:
            waived = finding["waived"]
            text = f"waived until {waived['expires_at']} by {safe(waived['owner'])}: {safe(waived['reason'])}"
            _paint([(f"           {text}", "yellow")])
        if finding["mode"] == "shadow":
            _paint([("           shadow mode: no response", "yellow")])
        if finding["result"] == "fail" and finding["fix"]:
            _paint([(f"           {safe(finding['fix'])}", "dim")])


def _commands(commands: list[dict[str, Any]]) -> None:
    if not commands:
        return
    say()
    _title("Open commands")
    for command in commands:
        params = " ".join(f"{key}={value}" for key, value in command["params"].items())
        name = f"{safe(command['action'])} {safe(params)}".strip()
        origin = f"  by {safe(command['by'])}, {command['command_id']}"
        _paint([(f"  {command['state']:<10}", ""), (name, "bold"), (origin, "dim")])


def _print_entry(line: TimelineEntry) -> None:
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
    """Prints a line of styled parts; with `hang` it wraps under the second part."""
    if not sys.stdout.isatty():
        say("".join(text for text, _ in parts).rstrip())
        return
    from rich.console import Console  # only at a terminal
    from rich.table import Table
    from rich.text import Text

    line: Table | Text = Text.assemble(*parts)
    if hang:
        line = Table.grid()
        line.add_column(no_wrap=True)
        line.add_column()
        line.add_row(Text.assemble(parts[0]), Text.assemble(*parts[1:]))
    Console(highlight=False).print(line)
