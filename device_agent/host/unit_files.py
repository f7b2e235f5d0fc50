"""Settings of systemd units from their files and drop-ins (systemd.unit(5)), and the commands that they start."""

import re
import shlex
from typing import Final

from device_agent.host.files import list_files, parse_key_values, read_text
from device_agent.host.system import System

# By precedence, the highest first.
FOLDERS: Final = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_PREFIXES: Final = re.compile(r"^[-:+!|@]*")
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_CONTINUED: Final = re.compile(r"\\\n(?:[ \t]*[#;][^\n]*\n)*")

UnitSettings = dict[str, list[str]]
"""Values by `Section.Key`, in their order; an empty assignment removes those before it."""


def read_unit(system: System, unit: str) -> UnitSettings:
    """Returns the settings of a unit, of its template where it is an instance; empty where there is no such unit.

    Raises:
        FactsUnavailableError: a file or a folder of drop-ins is too large.
        OSError: a file cannot be read.
    """
    stem, at, rest = unit.partition("@")
    names = dict.fromkeys([unit, f"{stem}@.{rest.rpartition('.')[2]}"] if at else [unit])
    main = next((file for name in names for one in FOLDERS if (file := system.path(f"{one}/{name}")).is_file()), None)
    drop_ins = {
        file.name: file
        for name in [unit.rpartition(".")[2], *reversed(names)]
        for one in reversed(FOLDERS)
        for file in list_files(system.path(f"{one}/{name}.d"), "*.conf")
    }
    settings: UnitSettings = {}
    for file in [*([main] if main else []), *(drop_ins[name] for name in sorted(drop_ins))]:
        _add(settings, read_text(file))
    return settings


def _add(settings: UnitSettings, text: str) -> None:
    section = ""
    for line in map(str.strip, _CONTINUED.sub(" ", text).splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            values = settings.setdefault(f"{section}.{key.strip()}", [])
            if value.strip():
                values.append(value.strip())
            else:
                values.clear()


def start_commands(system: System, unit: str) -> list[list[str]]:
    """Returns the words of each command that a service starts, with the variables of its environment replaced.

    Raises:
        FactsUnavailableError, OSError: as `read_unit`.
    """
    settings = read_unit(system, unit)
    environment: dict[str, str] = {}
    for assignment in settings.get("Service.Environment", ()):
        environment.update(word.partition("=")[::2] for word in split_words(assignment))
    for file in settings.get("Service.EnvironmentFile", ()):
        values = parse_key_values(read_text(system.path(file.removeprefix("-"))))
        environment.update({name: " ".join(split_words(value)) for name, value in values.items()})
    return [_words(command, environment) for command in settings.get("Service.ExecStart", ())]


def _words(command: str, environment: dict[str, str]) -> list[str]:
    """Splits a command: `$NAME` as a word of its own becomes the words of its value, `${NAME}` a part of a word."""
    prefix = _PREFIXES.match(command)
    signs = prefix[0] if prefix else ""
    words: list[str] = []
    for word in split_words(command[len(signs) :]):
        whole = re.fullmatch(r"\$(\w+)", word)
        if whole:
            words += split_words(environment.get(whole[1], ""))
        else:
            words.append(_VARIABLE.sub(lambda match: environment.get(match[1] or match[2], ""), word))
    return words[:1] + words[2:] if "@" in signs else words


def split_words(text: str, *, comments: bool = False) -> list[str]:
    """Splits as a shell; at white space alone where a quote is open."""
    try:
        return shlex.split(text, comments=comments)
    except ValueError:
        return text.replace('"', " ").replace("'", " ").split()
