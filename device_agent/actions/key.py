"""`key.restrict`: restricts who may read a private key, and who may replace it."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from device_agent.actions.base import (
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    Verification,
    bool_param,
    reject_unknown_params,
    text_param,
)
from device_agent.host.system import System
from schemas.safe_files import MODE_BITS, NotRegularError, open_key, opened_folder, set_folder_mode

_PATH: Final = re.compile(r"^/[A-Za-z0-9_+.,@:/ -]{1,240}$")
_MARK: Final = b"PRIVATE KEY-----"
_HEAD_BYTES: Final = 16 * 1024  # the PEM header of a key lies within them
_OWNER_ONLY, _GROUP_READS = 0o600, 0o640
_WRITABLE: Final = 0o022


class RestrictKey:
    """`key.restrict {path, keep_group, own}`: only its owner reads the key, only the owner writes to its folder.

    With `keep_group` its group may still read it. With `own` it is given to root first. Other files than private keys
    are not changed; a path with a link in it, and a key with several names, are refused.
    """

    is_repeatable = True

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """Accepts an absolute path without `..`, and two flags."""
        reject_unknown_params(params, "path", "keep_group", "own")
        if ".." in text_param(params, "path", _PATH, "an absolute path").split("/"):
            raise InvalidParamsError("path: without ..")
        bool_param(params, "keep_group")
        bool_param(params, "own")

    def plan(self, params: Params) -> ActionPlan:
        file, folder = self._stat(params)
        mode, folder_mode = _desired_mode(file, params), _folder_mode(folder)
        before = {
            "was": _describe(file, folder),
            "mode": f"{stat.S_IMODE(file.st_mode):o}",
            "owner": f"{file.st_uid}:{file.st_gid}",
            "folder": f"{stat.S_IMODE(folder.st_mode):o}",
        }
        is_owned = not bool_param(params, "own") or file.st_uid == 0
        if (mode, folder_mode) == (stat.S_IMODE(file.st_mode), stat.S_IMODE(folder.st_mode)) and is_owned:
            return ActionPlan(before={"is": before["was"]}, changes="nothing", is_needed=False)
        steps = [] if is_owned else ["chown root"]
        steps.append(f"chmod {mode:04o} {params['path']}")
        if folder_mode != stat.S_IMODE(folder.st_mode):
            steps.append(f"chmod {folder_mode:04o} its folder")
        return ActionPlan(before=before, changes="; ".join(steps))

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Changes the owner, then the modes; each follows from the opened key and folder that are changed."""
        del before
        with self._opened(params) as (key, folder):
            status = os.fstat(key)
            if bool_param(params, "own") and status.st_uid != 0:
                os.fchown(key, 0, status.st_gid)
            os.fchmod(key, _desired_mode(status, params))
            set_folder_mode(folder, _folder_mode(os.fstat(folder)))

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del before
        file, folder = self._stat(params)
        is_tight = (_desired_mode(file, params), _folder_mode(folder)) == tuple(
            map(stat.S_IMODE, (file.st_mode, folder.st_mode))
        )
        return Verification(
            is_tight and (not bool_param(params, "own") or file.st_uid == 0), {"is": _describe(file, folder)}
        )

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores modes and owner."""
        user, _, group = before["owner"].partition(":")
        with self._opened(params) as (key, folder):
            status = os.fstat(key)
            if (status.st_uid, status.st_gid) != (int(user), int(group)):
                os.fchown(key, int(user), int(group))
            os.fchmod(key, int(before["mode"], 8) & MODE_BITS)
            set_folder_mode(folder, int(before["folder"], 8))
        return "put back as it was"

    @contextmanager
    def _opened(self, params: Params) -> Iterator[tuple[int, int]]:
        """Gives the key and its folder, opened without following links: what is looked at is what is changed."""
        path = self._system.root.resolve() / str(params["path"]).lstrip("/")
        try:
            with opened_folder(path.parent, links=False) as folder:
                key = open_key(folder, path.name)
                try:
                    if _MARK not in os.pread(key, _HEAD_BYTES, 0):
                        raise ActionError(f"{params['path']}: not a private key in PEM")
                    yield key, folder
                finally:
                    os.close(key)
        except NotRegularError as e:
            raise ActionError(f"{params['path']}: not a private key in PEM") from e
        except OSError as e:
            raise ActionError(f"{params['path']}: {e.strerror}") from e

    def _stat(self, params: Params) -> tuple[os.stat_result, os.stat_result]:
        with self._opened(params) as (key, folder):
            return os.fstat(key), os.fstat(folder)


def _desired_mode(file: os.stat_result, params: Params) -> int:
    maximum = _GROUP_READS if bool_param(params, "keep_group") else _OWNER_ONLY
    return stat.S_IMODE(file.st_mode) & maximum | stat.S_IRUSR


def _folder_mode(folder: os.stat_result) -> int:
    mode = stat.S_IMODE(folder.st_mode)
    # In a sticky folder nobody can replace the files of another user.
    return mode if mode & stat.S_ISVTX else mode & ~_WRITABLE


def _describe(file: os.stat_result, folder: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(file.st_mode):04o}, owner {file.st_uid}, folder {stat.S_IMODE(folder.st_mode):04o}"
