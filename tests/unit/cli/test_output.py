"""Tables, JSON, escaping and times of the command line."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.output import OutputFormat, ago, exact, moment, print_json, safe, show, span

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("edge-1", "edge-1"),
        ("grüße 日本", "grüße 日本"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\u202eevil", "\\u202eevil"),
        ("\U000e0041", "\\U000e0041"),
        ("[red]no markup[/red]", "[red]no markup[/red]"),
        (None, "None"),
    ],
)
def test_safe_escapes_what_a_terminal_interprets(text: object, shown: str) -> None:
    assert safe(text) == shown


@given(st.text())
def test_safe_text_is_printable_and_printable_text_stays(text: str) -> None:
    shown = safe(text)
    assert all(c.isprintable() or c.isspace() for c in shown)
    assert not set(shown) & {"\n", "\r", "\x1b", "\x9b"}
    if text.isprintable():
        assert shown == text


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"device_id": "a", "text": "\x1b\u202e"}])
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == [{"device_id": "a", "text": "\x1b\u202e"}]


def test_a_table_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show(OutputFormat.TABLE, [], ("device", "level"), [("edge-1", "none"), ("e\x1b", "isolated")])
    assert capsys.readouterr().out == "device  level\nedge-1  none\ne\\x1b   isolated\n"


def test_an_empty_listing_says_so_on_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    show(OutputFormat.TABLE, [], ("device",), [], empty="no device matches")
    assert capsys.readouterr() == ("", "no device matches\n")
    show(OutputFormat.JSON, [], ("device",), [], empty="no device matches")
    assert capsys.readouterr() == ("[]\n", "")


def test_times_are_relative_and_rounded() -> None:
    assert ago("2026-11-23T09:59:48.000Z", NOW) == "12s ago"
    assert ago("2026-11-23T10:05:00.000Z", NOW) == "in 5m"
    assert ago(None, NOW) == "-"
    assert [span(seconds) for seconds in (0, 59, 90, 7200, 86_400 * 3)] == ["0s", "59s", "2m", "2h", "3d"]
    assert [exact(seconds) for seconds in (0.0123, 1.5)] == ["12.3 ms", "1.50 s"]


def test_a_terminal_gets_colours_and_escaped_text() -> None:
    code = (
        "from controller.cli.output import OutputFormat, show;"
        "show(OutputFormat.TABLE, [], ('device', 'level'), [('e\\x1b[2J[red]', 'isolated')])"
    )
    master, slave = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=slave, env=environment) as process:
        assert process.wait(60) == 0
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "e\\x1b[2J[red]" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[1;31misolated" in shown


@pytest.mark.parametrize(
    ("text", "read"),
    [("2h", "2026-11-23T08:00:00+00:00"), ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"), ("2y", "2y")],
)
def test_a_duration_is_a_time_so_long_ago(text: str, read: str) -> None:
    assert moment(text, NOW) == read
