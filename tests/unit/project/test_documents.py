"""What the documents say exists: commands, options, make targets, files behind links."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

from controller.cli.app import app
from controller.standin.__main__ import _parser as standin_parser
from device_agent import main as agent
from tests.support.project_tree import ROOT, documents, name_of, python_files

_BLOCK: Final = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PROGRAMS: Final = ("cordon", "cordon-agent", "make")
_ALWAYS: Final = {"--help", "-h"}


def _commands(path: Path) -> Iterator[list[str]]:
    """Every call of a program of ours in a shell block, as an argv."""
    for block in _BLOCK.findall(path.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for call in _split(words):
                if call and Path(call[0]).name in _PROGRAMS:
                    yield [Path(call[0]).name, *call[1:]]


def _split(words: list[str]) -> Iterator[list[str]]:
    call: list[str] = []
    for word in [*words, "|"]:
        if word in {"|", "&&", ";", "||", ">", "<", "&"}:
            yield call
            call = []
        elif call or not re.fullmatch(r"[A-Z_]+=.*|sudo|env|time", word):
            call.append(word)


def _complaint(call: list[str]) -> str | None:
    if call[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        unknown = [word for word in call[1:] if "=" not in word and word not in targets]
        return f"make has no {unknown}" if unknown else None
    used = {word.partition("=")[0] for word in call[1:] if re.match(r"--?[a-zA-Z]", word)}
    known = _cordon_options(call[1:]) if call[0] == "cordon" else _agent_options(call[1:])
    if known is None:
        return "no such command"
    unknown = sorted(used - known - _ALWAYS)
    return f"no such option: {unknown}" if unknown else None


def _cordon_options(words: list[str]) -> set[str] | None:
    command: Any = get_command(app)
    known = {text for parameter in command.params for text in parameter.opts + parameter.secondary_opts}
    for word in words:
        inner = getattr(command, "commands", None)
        if inner is None or word.startswith("-"):
            break
        if word not in inner:
            return None
        command = inner[word]
        known = {text for parameter in command.params for text in parameter.opts + parameter.secondary_opts}
    if words[:1] == ["standin"]:
        known |= _parser_options(standin_parser())
    return known


def _agent_options(words: list[str]) -> set[str] | None:
    parser = agent._parser()
    known = _parser_options(parser)
    noun = next((word for word in words if not word.startswith("-")), None)
    if noun is None:
        return known
    choices = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return known | _parser_options(choices[noun]) if noun in choices else None


def _parser_options(parser: argparse.ArgumentParser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings}


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_commands_in_documents_exist(path: Path) -> None:
    complaints = {shlex.join(call): text for call in _commands(path) if (text := _complaint(call)) is not None}
    assert complaints == {}


def test_the_readme_shows_commands() -> None:
    shown = {tuple(call[:2]) for call in _commands(ROOT / "README.md")}
    assert {("make", "demo"), ("make", "test"), ("cordon", "policy"), ("cordon-agent", "report")} <= shown


def test_a_wrong_command_is_found() -> None:
    assert _complaint(["make", "no-such-target"]) is not None
    assert _complaint(["cordon", "devices", "explode"]) == "no such command"
    assert _complaint(["cordon", "devices", "list", "--explode"]) == "no such option: ['--explode']"
    assert _complaint(["cordon-agent", "explode"]) == "no such command"
    assert _complaint(["cordon-agent", "run", "--explode"]) == "no such option: ['--explode']"


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    targets = [one for one in _LINK.findall(path.read_text()) if "://" not in one and not one.startswith("mailto:")]
    assert [one for one in targets if not (path.parent / one).exists()] == []


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [path for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]
    assert [path.name for path in pages if f"({path.name})" not in index] == []
    decisions = (ROOT / "docs" / "adr" / "README.md").read_text()
    records = [path for path in (ROOT / "docs" / "adr").glob("*.md") if path.name != "README.md"]
    assert [path.name for path in records if f"({path.name})" not in decisions] == []


def test_the_architecture_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    paths = set(re.findall(r"`([a-z_0-9/.*]+(?:/|\.py|\.yaml|\.yml))`", page))
    assert len(paths) > 50
    bases = (ROOT, ROOT / "controller")
    unknown = [path for path in paths if not any(next(base.glob(path), None) for base in bases)]
    # A bare name stands for a file of the folder that is named before it.
    sources = {path.name for path in python_files("schemas", "controller", "device_agent")}
    assert [path for path in unknown if "/" in path or path not in sources] == []


def test_the_architecture_page_names_code_that_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = re.findall(r"`([\w.]+)`(?: and `(\w+)`)? (?:in|of) `([a-z_/]+\.py)`", page)
    assert len(names) > 5
    for *wanted, path in names:
        text = next(base / path for base in (ROOT, ROOT / "controller") if (base / path).exists()).read_text()
        assert [name for name in wanted if not re.search(rf"\b{name.rpartition('.')[2]}\b", text)] == [], path
