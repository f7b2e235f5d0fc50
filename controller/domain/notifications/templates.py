"""Bodies of HTTP sinks. What others wrote is shown as text in each of them: no markup, no mention, no link.

Slack and Teams have elements that interpret nothing (`plain_text`, `TextRun`), and these carry all texts. Slack's
fallback text and Mattermost have markup only, so there its characters are escaped.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from controller.domain.notifications.model import AlertSeverity, Delivery, Message, SinkKind, ThreadStatus

VERSION: Final = 1  # of the webhook's body
_COLORS: Final = {AlertSeverity.INFO: "good", AlertSeverity.WARNING: "warning", AlertSeverity.CRITICAL: "attention"}
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>&:])")
_AFTER_AT: Final = "\u200b"  # of no width: what follows is no name then
_MAX_SLACK: Final = 2900  # characters of one text; Slack takes 3000


def body_of(kind: SinkKind, delivery: Delivery, missed: int) -> bytes:
    """Returns the JSON body; `missed`: earlier messages that this sink was never sent."""
    return json.dumps(_TEMPLATES[kind](delivery, missed), separators=(",", ":")).encode()


def lines_of(message: Message, missed: int) -> list[tuple[str, str]]:
    """Returns what is said besides the headline, as label and text."""
    said: list[tuple[str, str]] = [("state", f"{message.status.value}, {message.severity.word}")]
    about = (
        ("device", message.device_id),
        ("class", message.device_class),
        ("case", message.case_id),
        ("by", message.actor),
        ("requested by", message.requester),
    )
    said += [(label, text) for label, text in about if text]
    labels = {label for label, _ in said}
    said += [(label, text) for label, text in message.facts if label not in labels]
    if message.is_reminder:
        said.append(("reminder", "this is still so; cordon notify acknowledge CASE ends reminders"))
    if message.count > 1:
        said.append(("times", str(message.count)))
    if missed:
        said.append(("missed", f"{missed} earlier notifications were dropped; cordon audit list --alerts has them"))
    said.append(("time", _time(message.at)))
    return [*said, ("audit line", message.line)] if message.line else said


def title_of(message: Message) -> str:
    """Returns the headline with what a reader must see first."""
    mark = "RESOLVED: " if message.status is ThreadStatus.RESOLVED else ""
    return f"{mark}{'REMINDER: ' if message.is_reminder else ''}{message.headline}"


def plain_text(message: Message, missed: int) -> str:
    """Returns the message as lines of text."""
    return "\n".join([title_of(message), "", *(f"{label}: {text}" for label, text in lines_of(message, missed))])


def _webhook(delivery: Delivery, missed: int) -> Mapping[str, Any]:
    message = delivery.message
    return {
        "v": VERSION,
        "id": delivery.key,
        "kind": message.kind,
        "severity": message.severity.word,
        "status": message.status.value,
        "thread": message.thread,
        "case": message.case_id,
        "device": message.device_id,
        "class": message.device_class,
        "headline": message.headline,
        "facts": dict(message.facts),
        "actor": message.actor,
        "requester": message.requester,
        "requester_account": message.account,
        "count": message.count,
        "reminder": message.is_reminder,
        "missed": missed,
        "at": _time(message.at),
        "audit_id": message.line,
    }


def _slack(delivery: Delivery, missed: int) -> Mapping[str, Any]:
    message = delivery.message
    text = plain_text(message, missed)[:_MAX_SLACK]
    blocks = [{"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}]
    fallback = title_of(message).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "text": fallback.replace("@", f"@{_AFTER_AT}"),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _teams(delivery: Delivery, missed: int) -> Mapping[str, Any]:
    message = delivery.message
    title = {"type": "TextRun", "text": title_of(message), "weight": "Bolder", "color": _COLORS[message.severity]}
    rows = [_rich({"type": "TextRun", "text": f"{label}: {text}"}) for label, text in lines_of(message, missed)]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [_rich(title), *rows],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _rich(run: Mapping[str, str]) -> Mapping[str, Any]:
    return {"type": "RichTextBlock", "inlines": [run]}


def _mattermost(delivery: Delivery, missed: int) -> Mapping[str, Any]:
    message = delivery.message
    rows = [f"{_escaped(label)}: {_escaped(text)}" for label, text in lines_of(message, missed)]
    return {"text": "\n".join([f"**{_escaped(title_of(message))}**", *rows])}


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text).replace("@", f"@{_AFTER_AT}")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


_TEMPLATES: Final[Mapping[SinkKind, Callable[[Delivery, int], Mapping[str, Any]]]] = {
    SinkKind.WEBHOOK: _webhook,
    SinkKind.SLACK: _slack,
    SinkKind.TEAMS: _teams,
    SinkKind.MATTERMOST: _mattermost,
}
