"""Why a rule says what it says: from the API for a device, or here for a report in a file, in the same words."""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controller.cli.errors import CliError, ExitCode
from controller.cli.output import STYLES, safe, say

if TYPE_CHECKING:
    from controller.domain.policy.model import RepeatOffenderTerms

STARTER: Final = "starter"
_ORDER: Final = ("fail", "error", "unknown", "pass", "notapplicable")
_MAX_REPORT: Final = 1024 * 1024  # bytes of a report file, which may be indented
_REASONS_SHOWN: Final = 100  # characters beside a rule in the short list


def explain_offline(
    report: Path, policies: list[Path], device_class: str = "", tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The same as the API's answer, without a controller; `-` reads standard input.

    `device_class` and `tags` are what an operator would have given the device.

    Raises:
        CliError: the report cannot be read or is none.
        ControllerError: the policies have mistakes.
    """
    from controller.app.offline import load_policies  # the rule language takes a while to load
    from controller.domain.policy.cel import CelEnvironment
    from controller.domain.policy.explain import explain
    from controller.domain.policy.facts import TYPES, gather_facts
    from controller.packs import pack_path
    from schemas.durations import duration_text

    device_id, sections = _read_report(report)
    language = CelEnvironment(TYPES)
    loaded = load_policies(policies or [pack_path(STARTER)], language)
    items = []
    for one in explain(loaded, language, gather_facts(sections, device_id, device_class, tags)):
        response = one.response
        remedy = response.remedy
        items.append(
            {
                **asdict(one),
                "response": {
                    "contain": response.contain,
                    "isolate_for": duration_text(response.isolate_for) if response.contain == "isolated" else None,
                    "remediate": None if remedy is None else {"action": remedy.action, "params": dict(remedy.params)},
                    "consecutive": response.consecutive,
                    "grace": duration_text(response.grace),
                    "passing": response.passing,
                    "cool_down": duration_text(response.cool_down),
                    "repeat": None if response.repeat is None else _repeat(response.repeat),
                },
            }
        )
    return {"device_id": device_id, "policies": loaded.version, "items": items}


def _repeat(repeat: "RepeatOffenderTerms") -> dict[str, Any]:
    from schemas.durations import duration_text

    return {
        "within": duration_text(repeat.within),
        "factor": repeat.factor,
        "most": duration_text(repeat.most),
    }


def _read_report(path: Path) -> tuple[str, Any]:
    from pydantic import ValidationError

    from schemas.posture import REPORT, FullReport

    where = "standard input" if str(path) == "-" else str(path)
    try:
        raw = sys.stdin.buffer.read(_MAX_REPORT + 1) if str(path) == "-" else path.read_bytes()
    except OSError as e:
        raise CliError(f"{where}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
    if len(raw) > _MAX_REPORT:
        raise CliError(f"{where}: larger than {_MAX_REPORT} bytes", ExitCode.USAGE)
    try:
        report = REPORT.validate_json(raw)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = f"{where}: not a report: {place + ': ' if place else ''}{first['msg']}"
        raise CliError(safe(text), ExitCode.USAGE) from e
    if not isinstance(report, FullReport):
        raise CliError(f"{where}: only a full report can be judged, this one is none", ExitCode.USAGE)
    return report.device_id, report.sections


def response_text(response: dict[str, Any]) -> str:
    """What follows from a failure, in a few words."""
    parts = []
    if response["contain"] != "none":
        parts.append(response["contain"] + (f" for {response['isolate_for']}" if response["isolate_for"] else ""))
    if response["remediate"]:
        params = " ".join(f"{key}={value}" for key, value in response["remediate"]["params"].items())
        parts.append(f"{response['remediate']['action']} {params}".strip())
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


def follows_text(rule: Mapping[str, Any]) -> str:
    """What follows from a failure of this rule, in a few words; nothing does in shadow mode."""
    text = response_text(rule["response"])
    return f"shadow: {text}" if rule["mode"] == "shadow" else text


def print_explanations(found: dict[str, Any], *, in_full: bool) -> None:
    """The rules that are not satisfied in full, the others in a line each; failures first."""
    items = sorted(found["items"], key=lambda one: _ORDER.index(one["result"]) if one["result"] in _ORDER else 0)
    counts = Counter(str(one["result"]) for one in items)
    said = ", ".join(f"{count} {result}" for result, count in counts.items())
    say(f"{safe(found['device_id'])}: {len(items)} rules by policies {found['policies']}: {said}")
    for one in items:
        if in_full or one["result"] not in ("pass", "notapplicable"):
            _in_full(one)
    quiet = [] if in_full else [one for one in items if one["result"] in ("pass", "notapplicable")]
    if quiet:
        say()
    for one in quiet:
        detail = f"  ({safe(one['detail'])[:_REASONS_SHOWN]})" if one["detail"] else ""
        _line(one, f"{safe(one['rule'])}  {safe(one['title'])}{detail}")


def _in_full(one: dict[str, Any]) -> None:
    say()
    _line(one, f"{safe(one['rule'])}  {safe(one['title'])}  [{one['severity']}]")
    for name in ("applies_to", "applies_if", "check"):
        if one[name]:
            lines = safe(one[name].strip().replace("\n", " "))
            say(f"      {name.replace('_', ' ')}: {lines}")
    for fact in one["facts"]:
        value = "?" if fact["value"] is None else safe(fact["value"])
        say(f"        {safe(fact['name'])} = {value}" + (f"  ({safe(fact['missing'])})" if fact["missing"] else ""))
    if one["detail"]:
        say(f"      because: {safe(one['detail'])}")
    if one["why"]:
        say(f"      why it matters: {safe(one['why'])}")
    if one["result"] == "fail":
        if one["fix"]:
            say(f"      to mend it: {safe(one['fix'])}")
        say(f"      what follows: {safe(follows_text(one))}")


def _line(one: dict[str, Any], text: str) -> None:
    result = str(one["result"])
    if not sys.stdout.isatty():
        say(f"  {result:<13} {text}")
        return
    from rich.console import Console  # a terminal only
    from rich.text import Text

    Console(highlight=False).print(Text.assemble("  ", (f"{result:<13}", STYLES.get(result, "")), " ", text))
