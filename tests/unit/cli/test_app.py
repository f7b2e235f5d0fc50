"""Every command has help and is in the reference; exit codes of the program."""

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


def _commands(tree: typer.Typer, nouns: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    commands = [(*nouns, str(command.name)) for command in tree.registered_commands]
    for group in tree.registered_groups:
        assert group.typer_instance is not None
        commands += _commands(group.typer_instance, (*nouns, str(group.name)))
    return commands


COMMANDS = _commands(app)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.lower().startswith("usage: cordon " + " ".join(command))
    assert len(out.splitlines()) > 5


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_reference_has_every_command(command: tuple[str, ...]) -> None:
    assert f"`cordon {' '.join(command)}" in (DOCS / "cli.md").read_text()


def test_the_reference_has_only_commands_that_exist() -> None:
    documented = re.findall(r"^\| `cordon ([a-z -]+)", (DOCS / "cli.md").read_text(), re.MULTILINE)
    known = {" ".join(command) for command in COMMANDS}
    assert documented
    assert {text.partition(" --")[0].strip() for text in documented} <= known


def test_help_is_shown_without_arguments() -> None:
    result = RUNNER.invoke(app, [])
    assert result.exit_code == 2
    assert "Usage" in result.output


@pytest.mark.parametrize(
    "argv",
    [["fly"], ["devices", "show"], ["devices", "list", "--output", "xml"], ["quarantine", "isolate", "edge-1"]],
)
def test_wrong_usage_has_exit_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(argv) == 2
    assert capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(["--version"]) == 0
    assert re.fullmatch(r"cordon \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_missing_extra_is_reported_without_a_traceback() -> None:
    code = "import sys; sys.modules['typer'] = None; from controller.main import main; sys.exit(main(['--version']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == 'cordon needs the controller extra: pip install "emqx-cordon[controller]"\n'


def test_help_does_not_import_the_controller() -> None:
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


def test_parameters_of_a_command_are_converted() -> None:
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
def test_invalid_parameters_are_errors(given: list[str]) -> None:
    with pytest.raises(CliError):
        parse_params(given)
