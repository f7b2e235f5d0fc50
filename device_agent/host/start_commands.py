"""Commands that start a program: of systemd units, init scripts, inittab, rc.local, and running processes."""

import re
from collections.abc import Iterator
from typing import Final

from device_agent.host import unit_files
from device_agent.host.files import list_files, read_beginning, read_text
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System, process_names

_INIT_SCRIPTS: Final = "/etc/init.d"
_OTHER_SCRIPTS: Final = ("/etc/inittab", "/etc/rc.local", "/etc/rc.d/rc.local")
_MAX_COMMAND_BYTES: Final = 8192
_STOPPING: Final = frozenset({"--stop", "-K", "[", "test", "killall"})
_BEFORE: Final = frozenset(
    {"exec", "busybox", "toybox", "nohup", "nice", "env", "setsid", "daemon", "then", "do", "--"}
)
_SEPARATOR: Final = re.compile(r"&&|\|\||[;&|]")


def commands_of(system: System, *programs: str) -> Reading[list[list[str]]]:
    """Returns the words that follow one of these programs in each command that starts it; `$` where not resolved."""
    gaps = GapRecorder()
    found = [list(words) for words in dict.fromkeys(map(tuple, _commands(system, frozenset(programs), gaps)))]
    return gaps.complete(found)


def _commands(system: System, programs: frozenset[str], gaps: GapRecorder) -> Iterator[list[str]]:
    for unit in _units(system, programs, gaps):
        with gaps.capture(unit):
            for words in unit_files.start_commands(system, unit):
                yield from _after_program(words, programs)
    scripts = list(map(system.path, _OTHER_SCRIPTS))
    with gaps.capture(_INIT_SCRIPTS):
        scripts += list_files(system.path(_INIT_SCRIPTS))
    for script in scripts:
        with gaps.capture(str(script)):
            for words in script_commands(read_text(script)):
                yield from _after_program(words, programs)
    with gaps.capture("/proc"):
        for words in _running(system, programs):
            yield from _after_program(words, programs)


def _units(system: System, programs: frozenset[str], gaps: GapRecorder) -> list[str]:
    """Returns the services whose file or drop-in names one of the programs."""
    found = set()
    for folder in unit_files.FOLDERS:
        for path in (*_glob(system, folder, "*.service"), *_glob(system, folder, "*.service.d/*.conf")):
            with gaps.capture():
                text, _ = read_beginning(system.path(path), _MAX_COMMAND_BYTES)
                if any(program in text for program in programs):
                    parent, _, name = path.rpartition("/")
                    found.add(name if name.endswith(".service") else parent.rpartition("/")[2].removesuffix(".d"))
    return sorted(found)


def _glob(system: System, folder: str, pattern: str) -> list[str]:
    root = system.path(folder)
    return [f"{folder}/{file.relative_to(root)}" for file in root.glob(pattern) if not file.is_dir()]


def _running(system: System, programs: frozenset[str]) -> Iterator[list[str]]:
    if system.is_image or not system.path("/proc/1").exists():
        return
    for pid, name in process_names(system).items():
        if name in programs:
            text, _ = read_beginning(system.path(f"/proc/{pid}/cmdline"), _MAX_COMMAND_BYTES)
            yield text.replace("\0", " ").partition("[listener]")[0].split()


def script_commands(script: str) -> Iterator[list[str]]:
    """Yields the words of each simple command of a shell script, as far as its lines show them."""
    for line in script.replace("\\\n", " ").splitlines():
        if not line.lstrip().startswith("#"):
            for part in _SEPARATOR.split(line):
                yield unit_files.split_words(part, comments=True)


def _after_program(words: list[str], programs: frozenset[str]) -> Iterator[list[str]]:
    if _STOPPING.intersection(words):
        return
    for at, word in enumerate(words):
        inner = word.split() if " " in word else ()
        if inner:
            yield from _after_program(list(inner), programs)
        name = word.rpartition(":")[2].rpartition("/")[2]
        if name in programs and ("/" in word or at == 0 or words[at - 1].rpartition("/")[2] in _BEFORE):
            yield [one for one in words[at + 1 :] if one != "--"]
            return
