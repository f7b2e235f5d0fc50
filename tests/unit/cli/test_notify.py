"""`cordon notify` against the API on a real socket."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.cli.app import run_safely
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer

Cordon = Callable[..., tuple[int, str]]
HOOK = ("--kind", "webhook", "--address", "https://ops.example.org/T0KEN", "--secret", "key")


@pytest.fixture
def cordon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Cordon]:
    """Runs `cordon notify`; returns exit status and all output."""
    with ApiServer(tmp_path / "c.db", {"edge-1": (23,)}) as server:

        def run(*words: str) -> tuple[int, str]:
            capsys.readouterr()
            status = run_safely(["notify", *words, "--url", server.url, "--token", f"command:echo {TOKEN}"])
            shown = capsys.readouterr()
            return status, shown.out + shown.err

        yield run


def test_sinks_are_added_tried_listed_and_removed(cordon: Cordon) -> None:
    assert "nobody is told" in cordon("list")[1]
    rule = ("--rule", "kind=containment.*,kind=rollout.stopped,severity=warning,class=pump")
    status, text = cordon("add", "ops", *HOOK, *rule, "--quiet", "22:00-06:00", "--zone", "Europe/Vienna")
    assert (status, "T0KEN" in text) == (0, False)
    mail = ("--server", "127.0.0.1:25", "--security", "none", "--from", "c@example.org", "--to", "o@example.org")
    assert cordon("add", "mail", "--kind", "smtp", *mail)[0] == 0
    listed = json.loads(cordon("list", "--output", "json")[1])
    assert [(one["name"], one["quiet"]) for one in listed] == [
        ("mail", ""),
        ("ops", "22:00-06:00 Europe/Vienna"),
    ]
    assert listed[1]["rules"] == [
        {"kinds": ["containment.*", "rollout.stopped"], "severity": "warning", "classes": ["pump"]}
    ]
    assert "kind=containment.*,kind=rollout.stopped,severity=warning,class=pump" in cordon("list")[1]
    assert cordon("test", "ops") == (0, "ops: delivered\n")
    assert "notification.test" in cordon("log", "--sink", "ops")[1]
    assert cordon("remove", "ops")[0] == 0
    assert cordon("test", "ops")[0] == 1


def test_wrong_words_are_told_before_anything_is_asked(cordon: Cordon) -> None:
    for words in (("--rule", "sort=x"), ("--rule", "kind"), ("--quiet", "at night")):
        assert cordon("add", "ops", *HOOK, *words)[0] == 2
    assert cordon("add", "mail", "--kind", "smtp", "--server", "mail.example.org")[0] == 2
    assert cordon("acknowledge", "01JH")[0] == 1
