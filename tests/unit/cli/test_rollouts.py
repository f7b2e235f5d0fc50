"""`cordon rollout` against an API on a real socket."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli.app import run_safely
from controller.cli.errors import CliError
from controller.cli.rollouts import parse_rate, parse_rings, parse_share, read_rings
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    devices: dict[str, tuple[int, ...]] = {f"edge-{number}": () for number in range(5)}
    with ApiServer(tmp_path_factory.mktemp("cli") / "cordon.db", devices) as running:
        yield running


def _run(server: ApiServer, *argv: str) -> int:
    return run_safely(["rollout", *argv, "--url", server.url, "--token", TOKEN])


def test_a_rollout_is_started_paused_resumed_and_aborted(
    server: ApiServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    terms = ("--soak", "1h", "--error-threshold", "5%", "--min-sample", "10", "--timeout", "30m")
    more = ("--window", "02:00-05:00", "--rate", "100/min", "--reason", "patch day")
    assert _run(server, "start", "app/2.0", "--rings", "canary=40%,fleet=rest", *terms, *more, "-o", "json") == 0
    created: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [(ring["name"], ring["devices"]) for ring in created["rings"]] == [("canary", 2), ("fleet", 3)]
    assert (created["terms"]["error_threshold"], created["terms"]["per_minute"]) == (0.05, 100.0)
    rollout = created["rollout_id"]
    assert _run(server, "list", "--open") == 0
    assert "app/2.0" in capsys.readouterr().out
    assert _run(server, "status", rollout, "--devices", "--state", "pending") == 0
    assert capsys.readouterr().out.count("edge-") == 5
    assert _run(server, "pause", rollout) == 0
    assert "awaiting_approval (paused)" in capsys.readouterr().out
    assert _run(server, "resume", rollout) == 0
    assert _run(server, "approve", rollout) == 1
    assert "a second person has to approve" in capsys.readouterr().err
    assert _run(server, "start", "app/2.0", "--rings", "fleet=rest") == 1
    assert f"{rollout} rolls out app" in capsys.readouterr().err
    assert _run(server, "abort", rollout, "--now") == 2
    assert "--now needs --rollback" in capsys.readouterr().err
    assert _run(server, "abort", rollout, "--reason", "enough") == 0
    capsys.readouterr()
    assert _run(server, "status", rollout, "--watch") == 1
    assert f"{rollout} aborted: canary 0/2; fleet 0/3" in capsys.readouterr().err
    rings = tmp_path / "rings.toml"
    rings.write_text('[[rings]]\nname = "some"\nselect = "id:edge-[01]"\n')
    assert _run(server, "start", "app/2.0", "--rings-file", str(rings), "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["rings"][0]["devices"] == 2


def test_rings_shares_and_rates_are_parsed() -> None:
    assert parse_rings("test, canary=10%") == [{"name": "test"}, {"name": "canary", "select": "10%"}]
    assert parse_share("2.5%") == 0.025
    assert (parse_rate("2/s"), parse_rate("60/h")) == (120.0, 1.0)
    for parse, text in ((parse_rings, "a,,b"), (parse_rings, "a="), (parse_share, "5"), (parse_share, "101%")):
        with pytest.raises(CliError):
            parse(text)
    for text in ("100", "0/min", "5/day"):
        with pytest.raises(CliError):
            parse_rate(text)


def test_an_invalid_file_of_rings_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rings.toml"
    with pytest.raises(CliError, match="cannot be read"):
        read_rings(path)
    path.write_text("rings = 3")
    with pytest.raises(CliError, match="rings are written"):
        read_rings(path)


def test_rings_and_a_file_of_rings_exclude_each_other(server: ApiServer) -> None:
    assert _run(server, "start", "app/2.0", "--rings", "a=rest", "--rings-file", "x.toml") == 2
