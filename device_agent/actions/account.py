"""`account.lock`: disables the password and sets the expiry date to the past, so that SSH keys are refused too."""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from device_agent.actions.base import (
    JOURNAL_ONLY,
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    Verification,
    require_name,
)
from device_agent.actions.edit import read, require_root, write
from device_agent.host.system import System

_SHADOW: Final = "/etc/shadow"
_LOCK: Final = "/etc/.pwd.lock"  # held by every program that changes accounts
_ACCOUNT: Final = re.compile(r"^[a-z_][a-z0-9_.-]{0,31}$")
_FIELDS: Final = 9
_PASSWORD, _EXPIRES = 1, 7  # fields of a line
_EXPIRED: Final = "1"  # days since 1970
_EXPIRY: Final = JOURNAL_ONLY + "expires"


class LockAccount:
    """`account.lock {name}`. The journal keeps the expiry date for undoing it, never the password hash."""

    is_repeatable = True

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """Accepts the parameter `name`; root is never locked, because the device could not be repaired then."""
        if require_name(params, _ACCOUNT, "account") == "root":
            raise InvalidParamsError("name: root is not locked, because the device could not be repaired then")

    def plan(self, params: Params) -> ActionPlan:
        name = str(params["name"])
        require_root(self._system)
        fields = self._fields(name)
        if _is_locked(fields):
            return ActionPlan(before={"is": "locked"}, changes="nothing", is_needed=False)
        changes = f"lock the password of {name} and set its expiry date to the past in {_SHADOW}; its sessions continue"
        return ActionPlan(before={"was": _describe(fields), _EXPIRY: fields[_EXPIRES]}, changes=changes)

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Marks the hash with `!`, and sets the expiry date to the past."""
        del before
        self._change(str(params["name"]), _EXPIRED, is_locked=True)

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del before
        fields = self._fields(str(params["name"]))
        return Verification(_is_locked(fields), {"is": _describe(fields)})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores mark and date."""
        was_locked = before.get("was") == "password locked"
        self._change(str(params["name"]), before.get(_EXPIRY, ""), is_locked=was_locked)
        return "put back as it was"

    def _lines(self) -> list[str]:
        text = read(self._system, _SHADOW)
        if text is None:
            raise ActionError(f"there is no {_SHADOW}")
        return text.splitlines()

    def _fields(self, name: str) -> list[str]:
        for line in self._lines():
            fields = line.split(":")
            if fields[0] == name and len(fields) == _FIELDS:
                return fields
        raise ActionError(f"there is no account {name} in {_SHADOW}")

    def _change(self, name: str, expires: str, *, is_locked: bool) -> None:
        with self._locked():
            lines = []
            for line in self._lines():
                fields = line.split(":")
                if fields[0] == name and len(fields) == _FIELDS:
                    unmarked = fields[_PASSWORD].removeprefix("!")
                    fields[_PASSWORD] = "!" + unmarked if is_locked else unmarked
                    fields[_EXPIRES] = expires
                lines.append(":".join(fields))
            write(self._system, _SHADOW, "\n".join(lines) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(self._system.path(_LOCK), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise ActionError(f"{_LOCK}: {e.strerror}") from e
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as e:
            raise ActionError("another program is changing accounts") from e
        finally:
            os.close(descriptor)


def _is_locked(fields: list[str]) -> bool:
    return fields[_PASSWORD].startswith("!") and fields[_EXPIRES] == _EXPIRED


def _describe(fields: list[str]) -> str:
    if _is_locked(fields):
        return "locked"
    return "password locked" if fields[_PASSWORD].startswith("!") else "open"
