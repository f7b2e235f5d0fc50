"""Explains results of rules: evaluates reports and events in files, and prints explanations of rules."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controller.cli.errors import CliError, ExitCode
from controller.cli.output import STYLES, safe, say

if TYPE_CHECKING:
    from pydantic import ValidationError

    from controller.domain.containment.explain_events import EventExplanation
    from controller.domain.policy.model import RepeatOffenderTerms, RuleResponse

STARTER: Final = "starter"
_ORDER: Final = ("fail", "error", "unknown", "pass", "notapplicable")
_SATISFIED: Final = ("pass", "notapplicable")
_MAX_REPORT: Final = 1024 * 1024  # bytes of a report file, which may be indented
_MAX_EVENT: Final = 64 * 1024  # bytes of a file with one event
_MAX_REASON: Final = 100  # characters next to a rule in the short list


def explain_report(
    report: Path,
    policies: list[Path],
    device_class: str = "",
    tags: tuple[str, ...] = (),
    knowledge: Path | None = None,
) -> dict[str, Any]:
    """Evaluates the report in a file; returns what the API returns for a device. `-` reads standard input.

    `device_class` and `tags` are those that an operator would have given the device; `knowledge` is a file in place of
    the knowledge that ships with Cordon.

    Raises:
        CliError: the report cannot be read or is invalid.
        ControllerError: a policy is invalid.
    """
    from controller.app.offline import load_policies, read_knowledge  # the rule language takes a while to load
    from controller.domain.policy.cel import CelEnvironment
    from controller.domain.policy.explain import explain
    from controller.domain.policy.facts import TYPES, gather_facts
    from controller.packs import pack_path

    device_id, sections = _read_report(report)
    language = CelEnvironment(TYPES)
    loaded = load_policies(policies or [pack_path(STARTER)], language)
    known = read_knowledge(knowledge).on(datetime.now(UTC).date())
    facts = gather_facts(sections, device_id, device_class, tags, knowledge=known)
    explanations = explain(loaded, language, facts)
    items = [{**asdict(one), "response": _response(one.response)} for one in explanations]
    return {"device_id": device_id, "policies": loaded.version, "items": items}


def explain_event(
    path: Path, policies: list[Path], device_class: str = "", tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Evaluates the rules about events for the event in a file; `-` reads standard input.

    Raises:
        CliError: the event cannot be read or is invalid, or no rule is about events.
        ControllerError: a policy is invalid.
    """
    from pydantic import ValidationError

    from controller.app.offline import read_policies  # the rule language takes a while to load
    from controller.domain.containment import explain_events
    from controller.domain.policy.cel import CelEnvironment
    from controller.domain.policy.event_rules import event_facts
    from controller.domain.policy.facts import TYPES
    from schemas.events import DeviceEvent

    content = _read(path, _MAX_EVENT)
    try:
        event = DeviceEvent.model_validate_json(content)
    except ValidationError as e:
        raise _invalid(path, "an event", e) from e
    loaded, version = read_policies(policies, CelEnvironment(TYPES))
    explanations = explain_events.explain_event(loaded, event_facts(event, event.device_id, device_class, tags))
    if not explanations:
        raise CliError("no rule of these policies is about events (a section `events:` has them)", ExitCode.USAGE)
    items = [_event_item(one) for one in explanations]
    return {"device_id": event.device_id, "policies": version, "kind": event.kind, "items": items}


def _read(path: Path, limit: int) -> bytes:
    name = _name(path)
    try:
        content = sys.stdin.buffer.read(limit + 1) if str(path) == "-" else path.read_bytes()
    except OSError as e:
        raise CliError(f"{name}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
    if len(content) > limit:
        raise CliError(f"{name}: larger than {limit} bytes", ExitCode.USAGE)
    return content


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def _invalid(path: Path, what: str, error: "ValidationError") -> CliError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return CliError(safe(f"{_name(path)}: not {what}: {field + ': ' if field else ''}{first['msg']}"), ExitCode.USAGE)


def _read_report(path: Path) -> tuple[str, Any]:
    from pydantic import ValidationError

    from schemas.posture import REPORT, FullReport

    content = _read(path, _MAX_REPORT)
    try:
        report = REPORT.validate_json(content)
    except ValidationError as e:
        raise _invalid(path, "a report", e) from e
    if not isinstance(report, FullReport):
        raise CliError(f"{_name(path)}: not a full report, so it cannot be evaluated", ExitCode.USAGE)
    return report.device_id, report.sections


def _response(response: "RuleResponse") -> dict[str, Any]:
    from schemas.durations import duration_text

    return {
        "contain": response.contain,
        "isolate_for": duration_text(response.isolate_for) if response.contain == "isolated" else None,
        "remediate": _remedy(response),
        "consecutive": response.consecutive,
        "grace": duration_text(response.grace),
        "passing": response.passing,
        "cool_down": duration_text(response.cool_down),
        "repeat": None if response.repeat is None else _repeat(response.repeat),
    }


def _remedy(response: "RuleResponse") -> dict[str, Any] | None:
    remedy = response.remedy
    return None if remedy is None else {"action": remedy.action, "params": dict(remedy.params)}


def _repeat(repeat: "RepeatOffenderTerms") -> dict[str, Any]:
    from schemas.durations import duration_text

    return {"within": duration_text(repeat.within), "factor": repeat.factor, "most": duration_text(repeat.most)}


def _event_item(explanation: "EventExplanation") -> dict[str, Any]:
    from schemas.durations import duration_text

    fields = asdict(explanation)
    return {
        **{name: value for name, value in fields.items() if name not in ("response", "terms", "until")},
        "response": {
            "contain": explanation.response.contain,
            "remediate": _remedy(explanation.response),
            "count": explanation.response.consecutive,
            "within": duration_text(explanation.terms.within),
            "for": duration_text(explanation.terms.hold),
        },
    }


def response_text(rule: Mapping[str, Any]) -> str:
    """What follows when a rule fails, in a few words; in shadow mode nothing does."""
    response = rule["response"]
    text = _event_response_text(response) if "count" in response else _report_response_text(response)
    return f"shadow: {text}" if rule["mode"] == "shadow" else text


def _report_response_text(response: Mapping[str, Any]) -> str:
    parts = _parts(response, response["isolate_for"])
    if not parts:
        return "finding"
    after = []
    if response["consecutive"] > 1:
        after.append(f"{response['consecutive']} reports in a row")
    if response["grace"] != "0s":
        after.append(response["grace"])
    until = []
    if response["passing"] > 1:
        until.append(f"{response['passing']} that pass in a row")
    if response["cool_down"] != "0s":
        until.append(f"{response['cool_down']} of passing")
    text = " + ".join(parts) + (f" after {' and '.join(after)}" if after else "")
    text += f" until {' and '.join(until)}" if until else ""
    repeat = response["repeat"]
    return text + (f", {repeat['factor']:g} times as long each time within {repeat['within']}" if repeat else "")


def _event_response_text(response: Mapping[str, Any]) -> str:
    after = f" after {response['count']} within {response['within']}" if response["count"] > 1 else ""
    return (" + ".join(_parts(response, response["for"])) or f"finding for {response['for']}") + after


def _parts(response: Mapping[str, Any], duration: str | None) -> list[str]:
    parts = []
    if response["contain"] != "none":
        parts.append(response["contain"] + (f" for {duration}" if duration else ""))
    if response["remediate"]:
        params = " ".join(f"{key}={value}" for key, value in response["remediate"]["params"].items())
        parts.append(f"{response['remediate']['action']} {params}".strip())
    return parts


def print_report(explained: dict[str, Any], *, in_full: bool) -> None:
    """Prints the explanation of a report: unsatisfied rules in full, the others in a line each; failures first."""
    rules = sorted(explained["items"], key=lambda rule: _ORDER.index(rule["result"]) if rule["result"] in _ORDER else 0)
    counts = Counter(str(rule["result"]) for rule in rules)
    summary = ", ".join(f"{count} {result}" for result, count in counts.items())
    say(f"{safe(explained['device_id'])}: {len(rules)} rules by policies {explained['policies']}: {summary}")
    short = [] if in_full else [rule for rule in rules if rule["result"] in _SATISFIED]
    for rule in rules:
        if in_full or rule["result"] not in _SATISFIED:
            say()
            _print_rule(rule, ("applies_to", "applies_if", "check"))
    if short:
        say()
    for rule in short:
        detail = f"  ({safe(rule['detail'])[:_MAX_REASON]})" if rule["detail"] else ""
        _print_line(rule["result"], f"{safe(rule['rule'])}  {safe(rule['title'])}{detail}")


def print_event(explained: dict[str, Any]) -> None:
    """Prints the explanation of an event: broken rules in full, the others in a line each."""
    rules = sorted(explained["items"], key=lambda rule: rule["result"] == "pass")
    broken = sum(1 for rule in rules if rule["result"] == "fail")
    device, kind = safe(explained["device_id"]), safe(explained["kind"])
    say(f"{device}: event {kind} breaks {broken} of {len(rules)} rules about events, policies {explained['policies']}")
    for rule in rules:
        if rule["result"] == "pass":
            _print_line("pass", _heading(rule))
        else:
            _print_rule(rule, ("when",))


def print_event_state(rules: list[dict[str, Any]]) -> None:
    """Prints the rules about events that are in force or counting on a device; the others are only counted."""
    if not rules:
        return
    quiet = sum(1 for rule in rules if rule["result"] == "pass")
    say()
    say(f"{len(rules)} rules about events, nothing seen for {quiet} of them")
    for rule in rules:
        if rule["result"] == "pass":
            continue
        say(f"  {'in force' if rule['result'] == 'fail' else 'counting':<13} {_heading(rule)}")
        _print_expressions(rule, ("when",))
        say(f"      because: {safe(rule['detail'])}")
        say(f"      until {rule['until']}: {safe(response_text(rule))}")


def _heading(rule: Mapping[str, Any]) -> str:
    return f"{safe(rule['rule'])}  {safe(rule['title'])}  [{rule['severity']}]"


def _print_rule(rule: Mapping[str, Any], expressions: Iterable[str]) -> None:
    _print_line(rule["result"], _heading(rule))
    _print_expressions(rule, expressions)
    for fact in rule["facts"]:
        value = "?" if fact["value"] is None else safe(fact["value"])
        missing = f"  ({safe(fact['missing'])})" if fact["missing"] else ""
        say(f"        {safe(fact['name'])} = {value}{missing}")
        for entry in fact.get("knowledge", ()):
            say(f"          by {safe(entry)}")
    for name, label in (("detail", "because"), ("why", "why it matters")):
        if rule[name]:
            say(f"      {label}: {safe(rule[name])}")
    if rule["result"] == "fail":
        if rule["fix"]:
            say(f"      fix: {safe(rule['fix'])}")
        say(f"      response: {safe(response_text(rule))}")


def _print_expressions(rule: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if rule[name]:
            say(f"      {name.replace('_', ' ')}: {safe(rule[name].strip().replace(chr(10), ' '))}")


def _print_line(result: str, text: str) -> None:
    if not sys.stdout.isatty():
        say(f"  {result:<13} {text}")
        return
    from rich.console import Console  # only at a terminal
    from rich.text import Text

    Console(highlight=False).print(Text.assemble("  ", (f"{result:<13}", STYLES.get(result, "")), " ", text))
