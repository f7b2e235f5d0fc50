"""Locks an account: its password stops working, and it counts as expired, so that keys do not let it in either."""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from device_agent.actions.base import KEPT, ActionError, ActionPlan, InvalidParamsError, Params, Verification, only_name
from device_agent.actions.edit import need_root, read, write
from device_agent.host.system import System

_SHADOW: Final = "/etc/shadow"
_LOCK: Final = "/etc/.pwd.lock"  # whoever changes accounts holds it
_ACCOUNT: Final = re.compile(r"^[a-z_][a-z0-9_.-]{0,31}$")
_FIELDS: Final = 9
_PASSWORD, _EXPIRES = 1, 7  # places in a line
_LONG_AGO: Final = "1"  # days since 1970
_EXPIRY: Final = KEPT + "expires"


class LockAccount:
    """`account.lock {name}`. What is kept for undoing it is the expiry date, never the password's hash."""

    is_repeatable = True

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """One parameter, `name`; root is never locked, or nobody could mend anything."""
        if only_name(params, _ACCOUNT, "account") == "root":
            raise InvalidParamsError("name: root is not locked: nobody could mend the device any more")

    def plan(self, params: Params) -> ActionPlan:
        """Find the account."""
        name = str(params["name"])
        need_root(self._system)
        fields = self._fields(name)
        if _is_locked(fields):
            return ActionPlan(was={"is": "locked"}, would="nothing", is_needed=False)
        would = f"lock the password of {name} and set its expiry date to the past in {_SHADOW}; its sessions go on"
        return ActionPlan(was={"was": _word(fields), _EXPIRY: fields[_EXPIRES]}, would=would)

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Put a mark before the hash, and the expiry date into the past."""
        del was
        self._change(str(params["name"]), _LONG_AGO, is_locked=True)

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Look again."""
        del was
        fields = self._fields(str(params["name"]))
        return Verification(_is_locked(fields), {"is": _word(fields)})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Take the mark away and put the date back."""
        was_marked = was.get("was") == "password locked"
        self._change(str(params["name"]), was.get(_EXPIRY, ""), is_locked=was_marked)
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
                    bare = fields[_PASSWORD].removeprefix("!")
                    fields[_PASSWORD] = "!" + bare if is_locked else bare
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
            raise ActionError("somebody else is changing accounts") from e
        finally:
            os.close(descriptor)


def _is_locked(fields: list[str]) -> bool:
    return fields[_PASSWORD].startswith("!") and fields[_EXPIRES] == _LONG_AGO


def _word(fields: list[str]) -> str:
    if _is_locked(fields):
        return "locked"
    return "password locked" if fields[_PASSWORD].startswith("!") else "open"
