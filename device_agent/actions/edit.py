"""Changes of configuration files: replaced atomically, with the former content in the journal for undoing it."""

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.actions.base import JOURNAL_ONLY, ActionError, ActionPlan, Params, Verification
from device_agent.host.files import write_whole
from device_agent.host.system import System
from schemas.safe_files import open_for_reading

MAX_FILE_BYTES: Final = 64 * 1024  # of a changed file: all of it goes into the journal
FILES: Final = JOURNAL_ONLY + "files"
_LABEL: Final = "security.selinux"

FileContents = Mapping[str, str | None]
"""Text by absolute path; None: no such file."""


def read(system: System, path: str) -> str | None:
    """Returns the text of a file, None when there is none (ActionError: too large, not text, or not readable)."""
    try:
        with open_for_reading(system.path(path)) as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ActionError(f"{path}: {e.strerror}") from e
    if len(raw) > MAX_FILE_BYTES:
        raise ActionError(f"{path}: larger than {MAX_FILE_BYTES} bytes: not changed")
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise ActionError(f"{path}: not text: not changed") from e


def write(system: System, path: str, text: str | None, mode: int = 0o644) -> None:
    """Replaces a file atomically, keeping its mode, owner and SELinux label; None removes it.

    Raises:
        ActionError: the disk refuses, or the file is a link out of a prepared folder.
    """
    file = system.path(path)
    try:
        if file.is_symlink():
            if not system.is_live:
                raise ActionError(f"{path}: a link: not followed below another root")
            file = file.resolve(strict=True)
        if text is None:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        status = file.stat() if file.exists() else None
        label = _label(file)
        temporary = file.with_name(f".{file.name}.cordon")
        is_own = status is None or (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
        owner = None if status is None or is_own else (status.st_uid, status.st_gid)
        write_whole(file, temporary, text.encode(), mode if status is None else status.st_mode, owner)
        if label is not None:
            with contextlib.suppress(OSError):
                os.setxattr(file, _LABEL, label)
    except OSError as e:
        raise ActionError(f"{path}: {e.strerror}") from e


def _label(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, _LABEL)
    except OSError:
        return None


def require_root(system: System) -> None:
    """Refuses changes of the running machine without root rights (ActionError)."""
    if system.is_live and not system.is_root_user:
        raise ActionError("needs root")


def to_journal(texts: FileContents) -> str:
    """Returns file contents as the value of `FILES` in `before`."""
    return json.dumps(texts)


def restore_files(system: System, before: Mapping[str, str]) -> None:
    """Restores the files in `before` (ActionError)."""
    for path, text in json.loads(before.get(FILES, "{}")).items():
        write(system, path, text)


def set_option(text: str, key: str, value: str, separator: str) -> str:
    """Returns the text with option `key` set to `value`, in its place or at the end; comments stay."""
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
    """Returns the value of an option in the text, `not set` without one."""
    for line in (text or "").splitlines():
        words = line.replace("=", " ").split()
        if words[:1] == [key]:
            return " ".join(words[1:])
    return "not set"


class FileAction(ABC):
    """An action that changes files and activates the change in the program that reads them."""

    is_repeatable = True

    def __init__(self, system: System) -> None:
        self._system = system

    @abstractmethod
    def check(self, params: Params) -> None:
        """Rejects parameters that the action does not accept (InvalidParamsError)."""

    @abstractmethod
    def desired_files(self, params: Params) -> FileContents:
        """Returns the files as they should be (ActionError: impossible)."""

    @abstractmethod
    def describe_state(self, params: Params) -> str:
        """Returns the present state in a few words."""

    @abstractmethod
    def describe_changes(self, params: Params, paths: list[str]) -> str:
        """Returns what would be done to these files."""

    def activate(self, params: Params) -> None:
        """Makes the running program use the changed files (ActionError); most files are read anew each time."""
        del params

    def is_active(self, params: Params) -> bool:
        """Returns whether the running program uses the files as they are."""
        del params
        return True

    def plan(self, params: Params) -> ActionPlan:
        """Compares the files with how they should be."""
        desired = self.desired_files(params)
        present = {path: read(self._system, path) for path in desired}
        changed = {path: present[path] for path, text in desired.items() if text != present[path]}
        state = self.describe_state(params)
        if not changed and self.is_active(params):
            return ActionPlan({"is": state}, "nothing", is_needed=False)
        require_root(self._system)
        before = {"was": state, FILES: to_journal(changed)}
        return ActionPlan(before, self.describe_changes(params, sorted(changed)))

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Writes the files that differ, then activates them."""
        del before
        for path, text in self.desired_files(params).items():
            if text != read(self._system, path):
                write(self._system, path, text)
        self.activate(params)

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Compares the files again, and reads whether they are active."""
        del before
        is_written = all(text == read(self._system, path) for path, text in self.desired_files(params).items())
        return Verification(is_written and self.is_active(params), {"is": self.describe_state(params)})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores the files, and activates them."""
        restore_files(self._system, before)
        self.activate(params)
        return "put back as it was"
