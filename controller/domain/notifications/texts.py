"""Words of messages. Device ids, reasons and broker texts are written by others: every text goes through `clean`."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry

MAX_TEXT: Final = 200  # characters of one text
MAX_HEADLINE: Final = 160  # characters
MAX_FACTS: Final = 16
MAX_LISTED: Final = 10  # items of a list
# Categories of characters that end a line, reorder it, are invisible or no characters at all.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Detail for programs; people find it in the audit.
_LEFT_OUT: Final = frozenset(
    {"steps", "evidence_at", "cut_at", "digest", "serials", "command_id", "now", "left_open", "requester", "person"}
)
_SUBJECTS: Final = ("identity", "device", "rollout", "request", "sink", "name", "place", "peer", "node")
Sentence = Callable[[AuditKind], str]


def clean(text: object, most: int = MAX_TEXT) -> str:
    """Returns one bounded line in which every control, bidirectional or invisible character is escaped."""
    raw = text if isinstance(text, str) else str(text)
    out: list[str] = []
    size = 0
    for character in raw[: most + 1]:
        shown = _escape(character) if unicodedata.category(character) in _UNSAFE else character
        size += len(shown)
        if size > most:
            return "".join(out)[: most - 1] + "…"
        out.append(shown)
    return "".join(out)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def headline_of(entry: AuditEntry, sentence: Sentence) -> str:
    """Returns whom a line is about, and its sentence."""
    return clean(f"{clean(subject_of(entry), 80)}: {sentence(entry.kind)}", MAX_HEADLINE)


def subject_of(entry: AuditEntry) -> str:
    """Returns the device, or what else the line is about."""
    if entry.device_id:
        return entry.device_id
    detail = entry.detail or {}
    kind, _, name = entry.actor.partition(":")
    if entry.kind.value.startswith("factor."):
        return name  # `name` in the detail is that of the factor
    return next((str(detail[key]) for key in _SUBJECTS if detail.get(key)), name if kind == "person" else "Cordon")


def facts_of(entry: AuditEntry) -> tuple[tuple[str, str], ...]:
    """Returns what the line's detail says, as label and text."""
    facts: list[tuple[str, str]] = []
    for name, value in (entry.detail or {}).items():
        text = "" if name in _LEFT_OUT else _value(value)
        if text and len(facts) < MAX_FACTS:
            facts.append((clean(name.replace("_", " "), 40), text))
    return tuple(facts)


def _value(value: object) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        items = [_value(one) for one in value[:MAX_LISTED]]
        more = f", and {len(value) - MAX_LISTED} more" if len(value) > MAX_LISTED else ""
        return clean(", ".join(items) + more) if items else ""
    if isinstance(value, Mapping):
        return clean(" ".join(f"{name}={_value(one)}" for name, one in list(value.items())[:MAX_LISTED]))
    return clean(value)
