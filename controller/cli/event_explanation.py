"""What rules about events say of an event in a file, or of a device as it stands, in words."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from controller.cli.errors import CliError, ExitCode
from controller.cli.output import safe, say

_MAX_EVENT: Final = 64 * 1024  # bytes of a file with one event


def explain_event_offline(
    path: Path, policies: list[Path], device_class: str = "", tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Every rule about events of the policy files, asked of the event in `path`; `-` reads standard input.

    Raises:
        CliError: the event cannot be read or is none, or no rule is about events.
        ControllerError: the policies have mistakes.
    """
    from pydantic import ValidationError

    from controller.app.offline import read_policies  # the rule language takes a while to load
    from controller.domain.containment.explain_events import explain_event
    from controller.domain.policy.cel import CelEnvironment
    from controller.domain.policy.event_rules import event_facts
    from controller.domain.policy.facts import TYPES
    from schemas.events import DeviceEvent

    where = "standard input" if str(path) == "-" else str(path)
    try:
        raw = sys.stdin.buffer.read(_MAX_EVENT + 1) if str(path) == "-" else path.read_bytes()
    except OSError as e:
        raise CliError(f"{where}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
    if len(raw) > _MAX_EVENT:
        raise CliError(f"{where}: larger than {_MAX_EVENT} bytes", ExitCode.USAGE)
    try:
        event = DeviceEvent.model_validate_json(raw)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CliError(
            safe(f"{where}: not an event: {place + ': ' if place else ''}{first['msg']}"), ExitCode.USAGE
        ) from e
    loaded, version = read_policies(policies, CelEnvironment(TYPES))
    found = explain_event(loaded, event_facts(event, event.device_id, device_class, tags))
    if not found:
        raise CliError("no rule of these policies is about events (a section `events:` has them)", ExitCode.USAGE)
    items = [event_item(one) for one in found]
    return {"device_id": event.device_id, "policies": version, "kind": event.kind, "items": items}


def event_item(one: Any) -> dict[str, Any]:
    """An `EventExplanation` as plain data, durations in words."""
    from schemas.durations import duration_text

    remedy = one.response.remedy
    return {
        **{name: value for name, value in asdict(one).items() if name not in ("response", "terms", "until")},
        "response": {
            "contain": one.response.contain,
            "remediate": None if remedy is None else {"action": remedy.action, "params": dict(remedy.params)},
            "count": one.response.consecutive,
            "within": duration_text(one.terms.within),
            "for": duration_text(one.terms.hold),
        },
    }


def event_follows_text(rule: dict[str, Any]) -> str:
    """What follows when events break this rule; nothing does in shadow mode."""
    text = event_response_text(rule["response"])
    return f"shadow: {text}" if rule["mode"] == "shadow" else text


def event_response_text(response: dict[str, Any]) -> str:
    """What follows when events break a rule, in a few words."""
    parts = []
    if response["contain"] != "none":
        parts.append(f"{response['contain']} for {response['for']}")
    if response["remediate"]:
        params = " ".join(f"{key}={value}" for key, value in response["remediate"]["params"].items())
        parts.append(f"{response['remediate']['action']} {params}".strip())
    after = f" after {response['count']} within {response['within']}" if response["count"] > 1 else ""
    return (" + ".join(parts) or f"finding for {response['for']}") + after


def print_event_explanations(found: dict[str, Any]) -> None:
    """The rules that the event breaks in full, the others in a line each."""
    items = sorted(found["items"], key=lambda one: one["result"] == "pass")
    broken = sum(1 for one in items if one["result"] == "fail")
    who, kind = safe(found["device_id"]), safe(found["kind"])
    say(f"{who}: event {kind} breaks {broken} of {len(items)} rules about events, policies {found['policies']}")
    for one in items:
        say(f"  {one['result']:<13} {safe(one['rule'])}  {safe(one['title'])}  [{one['severity']}]")
        if one["result"] == "pass":
            continue
        say(f"      when: {safe(one['when'].strip().replace(chr(10), ' '))}")
        for fact in one["facts"]:
            value = "?" if fact["value"] is None else safe(fact["value"])
            say(f"        {fact['name']} = {value}" + (f"  ({fact['missing']})" if fact["missing"] else ""))
        for name, words in (("detail", "because"), ("why", "why it matters")):
            if one[name]:
                say(f"      {words}: {safe(one[name])}")
        if one["result"] == "fail":
            if one["fix"]:
                say(f"      to mend it: {safe(one['fix'])}")
            say(f"      what follows: {safe(event_follows_text(one))}")


def print_standing(events: list[dict[str, Any]]) -> None:
    """How the rules about events stand on a device; those of which nothing was seen are only counted."""
    if not events:
        return
    quiet = sum(1 for one in events if one["result"] == "pass")
    say()
    say(f"{len(events)} rules about events, nothing seen for {quiet} of them")
    for one in events:
        if one["result"] == "pass":
            continue
        word = "in force" if one["result"] == "fail" else "counting"
        say(f"  {word:<13} {safe(one['rule'])}  {safe(one['title'])}  [{one['severity']}]")
        say(f"      when: {safe(one['when'].strip().replace(chr(10), ' '))}")
        say(f"      because: {safe(one['detail'])}")
        say(f"      until {one['until']}: {safe(event_follows_text(one))}")
