"""Tightens who may read a private key, and who may replace it."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.actions.base import (
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    Verification,
    flag,
    only,
    text,
)
from device_agent.host.system import System

_PATH: Final = re.compile(r"^/[A-Za-z0-9_+.,@:/ -]{1,240}$")
_MARK: Final = b"PRIVATE KEY-----"
_HEAD: Final = 16 * 1024  # bytes in which a key says that it is one
_OWNER_ONLY, _GROUP_READS = 0o600, 0o640
_WRITABLE: Final = 0o022


class RestrictKey:
    """`key.restrict {path, keep_group, own}`: nobody but its owner reads the key, nobody else writes into its folder.

    `keep_group`: its group goes on reading it. `own`: it is given to root first. Only what is a private key is changed.
    """

    is_repeatable = True

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """An absolute path without `..`."""
        only(params, "path", "keep_group", "own")
        if ".." in text(params, "path", _PATH, "an absolute path").split("/"):
            raise InvalidParamsError("path: without ..")
        flag(params, "keep_group")
        flag(params, "own")

    def plan(self, params: Params) -> ActionPlan:
        """Look at the key and its folder."""
        file, folder = self._look(params)
        mode, above = _wanted(file, params), _folder_mode(folder)
        was = {
            "was": _word(file, folder),
            "mode": f"{stat.S_IMODE(file.st_mode):o}",
            "owner": f"{file.st_uid}:{file.st_gid}",
            "folder": f"{stat.S_IMODE(folder.st_mode):o}",
        }
        is_owned = not flag(params, "own") or file.st_uid == 0
        if (mode, above) == (stat.S_IMODE(file.st_mode), stat.S_IMODE(folder.st_mode)) and is_owned:
            return ActionPlan(was={"is": was["was"]}, would="nothing", is_needed=False)
        steps = [] if is_owned else ["chown root"]
        steps.append(f"chmod {mode:04o} {params['path']}")
        if above != stat.S_IMODE(folder.st_mode):
            steps.append(f"chmod {above:04o} its folder")
        return ActionPlan(was=was, would="; ".join(steps))

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """First the owner, then the modes."""
        del was
        file, folder = self._look(params)
        if flag(params, "own") and file.st_uid != 0:
            self._set(params, owner=(0, file.st_gid))
        self._set(params, mode=_wanted(file, params), folder=_folder_mode(folder))

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Look again."""
        del was
        file, folder = self._look(params)
        is_tight = (_wanted(file, params), _folder_mode(folder)) == tuple(
            map(stat.S_IMODE, (file.st_mode, folder.st_mode))
        )
        return Verification(is_tight and (not flag(params, "own") or file.st_uid == 0), {"is": _word(file, folder)})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Modes and owner as they were."""
        user, _, group = was["owner"].partition(":")
        file, _ = self._look(params)
        if (file.st_uid, file.st_gid) != (int(user), int(group)):
            self._set(params, owner=(int(user), int(group)))
        self._set(params, mode=int(was["mode"], 8), folder=int(was["folder"], 8))
        return "put back as it was"

    def _path(self, params: Params) -> Path:
        return self._system.path(str(params["path"]))

    def _open(self, params: Params) -> int:
        # Held open while it is looked at and changed, so that nobody puts another file in its place meanwhile.
        try:
            return os.open(self._path(params), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            raise ActionError(f"{params['path']}: {e.strerror}") from e

    def _look(self, params: Params) -> tuple[os.stat_result, os.stat_result]:
        descriptor = self._open(params)
        try:
            file = os.fstat(descriptor)
            if not stat.S_ISREG(file.st_mode) or _MARK not in os.read(descriptor, _HEAD):
                raise ActionError(f"{params['path']}: not a private key in PEM")
            return file, self._path(params).parent.stat()
        finally:
            os.close(descriptor)

    def _set(
        self,
        params: Params,
        *,
        owner: tuple[int, int] | None = None,
        mode: int | None = None,
        folder: int | None = None,
    ) -> None:
        descriptor = self._open(params)
        try:
            if owner is not None:
                os.fchown(descriptor, *owner)
            if mode is not None:
                os.fchmod(descriptor, mode)
            if folder is not None and folder != stat.S_IMODE(self._path(params).parent.stat().st_mode):
                self._path(params).parent.chmod(folder)
        except OSError as e:
            raise ActionError(f"{params['path']}: {e.strerror}") from e
        finally:
            os.close(descriptor)


def _wanted(file: os.stat_result, params: Params) -> int:
    most = _GROUP_READS if flag(params, "keep_group") else _OWNER_ONLY
    return stat.S_IMODE(file.st_mode) & most | stat.S_IRUSR


def _folder_mode(folder: os.stat_result) -> int:
    mode = stat.S_IMODE(folder.st_mode)
    # In a sticky folder nobody can replace what belongs to another.
    return mode if mode & stat.S_ISVTX else mode & ~_WRITABLE


def _word(file: os.stat_result, folder: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(file.st_mode):04o}, owner {file.st_uid}, folder {stat.S_IMODE(folder.st_mode):04o}"
