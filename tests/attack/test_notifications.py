"""Whoever names a device or gives a reason writes no markup, mentions nobody, and adds no header."""

import json
import unicodedata
from email import message_from_bytes, policy
from typing import Any

import pytest

from controller.adapters.notifications.smtp import mail_of
from controller.api.audit_texts import sentence
from controller.domain.audit_kinds import AuditKind
from controller.domain.notifications.model import Delivery, MailTarget, SinkKind
from controller.domain.notifications.planning import Bursts, Planner
from controller.domain.notifications.templates import body_of
from tests.support.notifications import line, sink

HOSTILE = [
    "x\r\nBcc: victim@example.org\r\n\r\nbody",
    "x\nSubject: another",
    "@channel @here @all <!channel> <!everyone> <!subteam^S1> <@U123> <at>all</at>",
    "[click](https://evil.example) <https://evil.example|your bank> ![x](https://evil.example/x.png)",
    "\u202eevil\u202c \u2066x\u2069 \u200b\ufeff",
    "\u2028\u2029\x85\x0b\x0c\x00\x1b[2J\x1b]8;;https://evil.example\x07",
    "`code` ```\nblock``` # heading\n> quote\n* item\n| a | b |",
    "\ud800 lone \udfff surrogates",
    "A" * 65_536,
    "@" * 65_536,
    "\u202e" * 65_536,
    "=?utf-8?q?=0D=0ABcc=3A?=",
]


def _told(text: str) -> Delivery:
    """A message in which everything that others can write is `text`."""
    one = line(
        AuditKind.CONTAINMENT_DECIDED, device=text, case=text, actor=text, device_class=text,
        reason=text, causes=[text] * 50, unread=[{"node": text, "reason": text}] * 50, requester=text,
    )  # fmt: skip
    planner = Planner((sink(),), {}, sentence, Bursts())
    (made,) = planner.plan((one,), {}, frozenset(), one.at).deliveries.values()
    return made


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_body_has_control_characters_or_grows_without_bound(text: str) -> None:
    for kind in (SinkKind.WEBHOOK, SinkKind.SLACK, SinkKind.TEAMS, SinkKind.MATTERMOST):
        body = body_of(kind, _told(text), 0)
        assert len(body) < 24_000, kind
        for said in _texts(json.loads(body)):
            unsafe = {c for c in said if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
            # Our own: lines of a message, and what keeps a name behind an @ from being one.
            assert unsafe <= ({"\n", "\u200b"} if kind is not SinkKind.WEBHOOK else set()), (kind, said[:80])


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_chats_interpret_nothing(text: str) -> None:
    slack = json.loads(body_of(SinkKind.SLACK, _told(text), 0))
    assert {block["text"]["type"] for block in slack["blocks"]} == {"plain_text"}
    assert "<" not in slack["text"]
    assert "@c" not in slack["text"]
    teams = json.loads(body_of(SinkKind.TEAMS, _told(text), 0))["attachments"][0]["content"]
    assert {block["type"] for block in teams["body"]} == {"RichTextBlock"}
    assert "msteams" not in teams
    mattermost = json.loads(body_of(SinkKind.MATTERMOST, _told(text), 0))["text"]
    for forbidden in ("@channel", "@here", "@all", "<!", "](", "\n#", "\n>", "```", "s://", ":smile:"):
        assert forbidden not in mattermost, forbidden


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_header_is_added_to_a_mail(text: str) -> None:
    target = MailTarget("127.0.0.1", 25, "cordon@example.org", ("ops@example.org",))
    raw = mail_of(sink(kind=SinkKind.SMTP, http=None, mail=target), _told(text), 0)
    assert len(raw) < 64_000
    mail = message_from_bytes(raw, policy=policy.default)
    assert (mail["To"], mail["Bcc"], mail["From"]) == ("ops@example.org", None, "cordon@example.org")
    assert len(mail.get_all("Subject", [])) == 1
    assert set(mail.keys()) == {
        "Subject", "From", "To", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted", "X-Cordon-Kind",
        "X-Cordon-Severity", "X-Cordon-Status", "X-Cordon-Idempotency-Key", "Content-Type",
        "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
