"""Changes configuration files: whole files replaced atomically, and what was there before kept for undoing it."""

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.actions.base import KEPT, ActionError, ActionPlan, Params, Verification
from device_agent.host.files import write_whole
from device_agent.host.system import System

MAX_FILE_BYTES: Final = 64 * 1024  # of a file that is changed: all of it goes into the journal
FILES: Final = KEPT + "files"
_LABEL: Final = "security.selinux"

FileContents = Mapping[str, str | None]
"""Text by absolute path; None: no such file."""


def read(system: System, place: str) -> str | None:
    """The text at `place`, None where nothing is (ActionError: not a text of bounded size, or closed to us)."""
    try:
        with system.path(place).open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ActionError(f"{place}: {e.strerror}") from e
    if len(raw) > MAX_FILE_BYTES:
        raise ActionError(f"{place}: larger than {MAX_FILE_BYTES} bytes: not changed")
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise ActionError(f"{place}: not text: not changed") from e


def write(system: System, place: str, text: str | None, mode: int = 0o644) -> None:
    """Replace the file as a whole, keeping its mode, owner and SELinux label; None removes it.

    Raises:
        ActionError: the disk refuses, or it is a link out of a prepared folder.
    """
    path = system.path(place)
    try:
        if path.is_symlink():
            if not system.is_live:
                raise ActionError(f"{place}: a link: not followed below another root")
            path = path.resolve(strict=True)
        if text is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        known = path.stat() if path.exists() else None
        fresh = path.with_name(f".{path.name}.cordon")
        label = _label(path)
        write_whole(path, fresh, text.encode(), mode if known is None else known.st_mode & 0o7777)
        if known is not None and (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(path, known.st_uid, known.st_gid)
        if label is not None:
            with contextlib.suppress(OSError):
                os.setxattr(path, _LABEL, label)
    except OSError as e:
        raise ActionError(f"{place}: {e.strerror}") from e


def _label(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, _LABEL)
    except OSError:
        return None


def need_root(system: System) -> None:
    """Refuse where the running machine would have to be changed without the right to (ActionError)."""
    if system.is_live and not system.is_root_user:
        raise ActionError("needs root")


def keep(texts: FileContents) -> str:
    """Texts as they go into the journal."""
    return json.dumps(texts)


def restore(system: System, was: Mapping[str, str]) -> None:
    """Put back the files that `was` holds (ActionError)."""
    for place, text in json.loads(was.get(FILES, "{}")).items():
        write(system, place, text)


def set_option(text: str, key: str, value: str, separator: str) -> str:
    """The text with the option `key` at `value`: where it stands, or at the end; comments stay."""
    line = f"{key}{separator}{value}"
    lines, is_set = [], False
    for old in text.splitlines():
        if old.replace("=", " ").split()[:1] == [key]:
            if not is_set:
                lines.append(line)
            is_set = True
        else:
            lines.append(old)
    return "\n".join([*lines, *([] if is_set else [line])]) + "\n"


def option(text: str | None, key: str) -> str:
    """What the option is set to in the text; `not set` where it is not."""
    for line in (text or "").splitlines():
        words = line.replace("=", " ").split()
        if words[:1] == [key]:
            return " ".join(words[1:])
    return "not set"


class FileAction(ABC):
    """An action that is a change of files and, where something runs that reads them, telling it."""

    is_repeatable = True

    def __init__(self, system: System) -> None:
        self._system = system

    @abstractmethod
    def check(self, params: Params) -> None:
        """Refuse parameters it does not take (BadParamsError)."""

    @abstractmethod
    def wanted(self, params: Params) -> FileContents:
        """The files as they should be (ActionError: they cannot be)."""

    @abstractmethod
    def state(self, params: Params) -> str:
        """What holds now, in a few words."""

    @abstractmethod
    def would(self, params: Params, places: list[str]) -> str:
        """What would be done to these files."""

    def activate(self, params: Params) -> None:
        """Tell what runs that its files are other ones (ActionError)."""
        del params  # most files are read anew each time

    def is_active(self, params: Params) -> bool:
        """Whether what runs does as its files say."""
        del params
        return True

    def plan(self, params: Params) -> ActionPlan:
        """Compare what is there with what should be."""
        texts = self.wanted(params)
        before = {place: read(self._system, place) for place in texts}
        changed = {place: before[place] for place, text in texts.items() if text != before[place]}
        state = self.state(params)
        if not changed and self.is_active(params):
            return ActionPlan(was={"is": state}, would="nothing", is_needed=False)
        need_root(self._system)
        return ActionPlan(was={"was": state, FILES: keep(changed)}, would=self.would(params, sorted(changed)))

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Write the files that differ, then tell whoever reads them."""
        del was
        for place, text in self.wanted(params).items():
            if text != read(self._system, place):
                write(self._system, place, text)
        self.activate(params)

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Look again."""
        del was
        is_written = all(text == read(self._system, place) for place, text in self.wanted(params).items())
        return Verification(is_written and self.is_active(params), {"is": self.state(params)})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """The files as they were, and whoever reads them told."""
        restore(self._system, was)
        self.activate(params)
        return "put back as it was"
