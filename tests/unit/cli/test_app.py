"""Every command explains itself, and the reference knows every command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from controller.cli.app import app, run_safely
from controller.cli.commands import parse_params
from controller.cli.errors import CliError
from controller.main import main

DOCS = Path(__file__).resolve().parents[3] / "docs"
RUNNER = CliRunner()


def _commands(tree: typer.Typer, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [(*above, str(one.name)) for one in tree.registered_commands]
    for group in tree.registered_groups:
        assert group.typer_instance is not None
        found += _commands(group.typer_instance, (*above, str(group.name)))
    return found


COMMANDS = _commands(app)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.lower().startswith("usage: cordon " + " ".join(command))
    assert len(out.splitlines()) > 5


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_reference_has_the_command(command: tuple[str, ...]) -> None:
    assert f"`cordon {' '.join(command)}" in (DOCS / "cli.md").read_text()


def test_reference_has_no_command_that_is_none() -> None:
    told = re.findall(r"^\| `cordon ([a-z -]+)", (DOCS / "cli.md").read_text(), re.MULTILINE)
    known = {" ".join(one) for one in COMMANDS}
    assert told
    assert {one.partition(" --")[0].strip() for one in told} <= known


def test_without_arguments_it_shows_help() -> None:
    result = RUNNER.invoke(app, [])
    assert result.exit_code == 2
    assert "Usage" in result.output


@pytest.mark.parametrize(
    "argv",
    [["fly"], ["devices", "show"], ["devices", "list", "--output", "xml"], ["quarantine", "isolate", "edge-1"]],
)
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(argv) == 2
    assert capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(["--version"]) == 0
    assert re.fullmatch(r"cordon \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_missing_extra_is_told_without_a_traceback() -> None:
    code = "import sys; sys.modules['typer'] = None; from controller.main import main; sys.exit(main(['--version']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == 'cordon needs the controller extra: pip install "emqx-cordon[controller]"\n'


def test_help_does_not_load_the_controller() -> None:
    code = (
        "import sys; from controller.main import main; code = main(['devices', '--help']);"
        "heavy = {'fastapi', 'httpx', 'structlog', 'uvicorn', 'paho', 'cel_expr_python'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "/nowhere.yaml"]) == 1
    assert "/nowhere.yaml" in capsys.readouterr().err


def test_parameters_of_a_command() -> None:
    given = ["name=telnetd", "now=true", "n=-12", "id='007'", "zero=007", 'quoted="5"', "empty=", "eq=a=b"]
    assert parse_params(given) == {
        "name": "telnetd",
        "now": True,
        "n": -12,
        "id": "007",
        "zero": "007",
        "quoted": "5",
        "empty": "",
        "eq": "a=b",
    }


@pytest.mark.parametrize("given", [["name"], ["=x"], ["a=1", "a=2"]])
def test_parameters_that_are_none(given: list[str]) -> None:
    with pytest.raises(CliError):
        parse_params(given)
