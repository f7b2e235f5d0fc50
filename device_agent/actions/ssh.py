"""Sets an option of the SSH server: checked by sshd itself before it counts, and read back from it afterwards."""

import contextlib
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.actions.base import ActionError, InvalidParamsError, Params, Verification, choice, only, text
from device_agent.actions.edit import FileAction, FileContents, read
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import write_whole

_CONFIG: Final = "/etc/ssh/sshd_config"
_BEGIN, _END = "# cordon: begin", "# cordon: end"
_YES_NO: Final = r"yes|no"
# What may be set, and to what. Programs, paths and ciphers are not among it: they could be used to get in.
_OPTIONS: Final = {
    "PasswordAuthentication": _YES_NO,
    "KbdInteractiveAuthentication": _YES_NO,
    "PermitEmptyPasswords": "no",
    "PermitRootLogin": "no|prohibit-password",
    "MaxAuthTries": r"[1-9]|10",
    "MaxSessions": r"\d|[1-5]\d",
    "LoginGraceTime": r"[1-9]\d?|1[0-1]\d|120",
    "ClientAliveInterval": r"\d{1,4}",
    "ClientAliveCountMax": r"\d|10",
    "X11Forwarding": "no",
    "AllowTcpForwarding": "no|local|remote|yes",
    "AllowAgentForwarding": "no",
    "PermitUserEnvironment": "no",
    "IgnoreRhosts": "yes",
    "HostbasedAuthentication": "no",
    "LogLevel": "INFO|VERBOSE",
    "UsePAM": "yes",
}
_SAME: Final = {"without-password": "prohibit-password"}


class SetSshOption(FileAction):
    """`ssh.set {option, value}`: at the top of sshd_config, where sshd takes the first word it finds.

    `Match` blocks below may still say otherwise for some users; those are not changed.
    """

    def check(self, params: Params) -> None:
        """An option of the list, with a value that is allowed for it."""
        only(params, "option", "value")
        pattern = _OPTIONS[choice(params, "option", _OPTIONS)]
        # Numbers and yes or no may come as what they are.
        text({"value": _value(params)}, "value", re.compile(pattern), f"a value for it: {pattern}")

    def wanted(self, params: Params) -> FileContents:
        """The configuration with the option in our block at its top."""
        before = read(self._system, _CONFIG)
        if before is None:
            raise ActionError("there is no SSH server here: no sshd_config")
        lines = before.splitlines()
        block: dict[str, str] = {}
        if lines[:1] == [_BEGIN] and _END in lines:
            at = lines.index(_END)
            block = dict(line.split(" ", 1) for line in lines[1:at] if " " in line)
            lines = lines[at + 1 :]
        block[str(params["option"])] = _value(params)
        ours = [f"{key} {value}" for key, value in sorted(block.items())]
        return {_CONFIG: "\n".join([_BEGIN, *ours, _END, *lines]) + "\n"}

    def state(self, params: Params) -> str:
        """The option as sshd resolves it."""
        key = str(params["option"]).lower()
        said = self._said().get(key, "not set")
        return f"{key} {_SAME.get(said, said)}"

    def would(self, params: Params, places: list[str]) -> str:
        """The line and the file."""
        line = f"{params['option']} {_value(params)}"
        return f"check with sshd -t, put '{line}' at the top of {', '.join(places) or _CONFIG}, reload sshd"

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Nothing is replaced before sshd has said that it would take it."""
        self._check(str(self.wanted(params)[_CONFIG]))
        super().apply(params, was)

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Ask sshd what it makes of the file."""
        written = super().verify(params, was)
        key = str(params["option"]).lower()
        return Verification(written.is_reached and written.now["is"] == f"{key} {_value(params).lower()}", written.now)

    def activate(self, params: Params) -> None:
        """Have a running server read its file again; one that is started for each connection reads it anyway."""
        del params
        place = self._said().get("pidfile", "none")
        file = self._system.path(place) if self._system.is_live else self._system.root.joinpath(place)
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text()[:16])
            if self._is_server(pid):
                os.kill(pid, signal.SIGHUP)

    def _is_server(self, pid: int) -> bool:
        # A stale pid file may name anybody.
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip() == "sshd"
        except OSError:
            return False

    def _said(self) -> dict[str, str]:
        try:
            out = run(["sshd", "-T", "-f", str(self._system.path(_CONFIG))]).out
        except ExecuteError as e:
            raise ActionError(f"sshd does not take its configuration: {e}") from e
        return {key: value for key, _, value in (line.partition(" ") for line in out.splitlines())}

    def _check(self, content: str) -> None:
        path = self._system.path(_CONFIG)
        fresh = path.with_name(".sshd_config.cordon-check")
        try:
            write_whole(fresh, fresh.with_suffix(".new"), content.encode())
            run(["sshd", "-t", "-f", str(fresh)])
        except ExecuteError as e:
            raise ActionError(f"sshd refuses it: {e}") from e
        except OSError as e:
            raise ActionError(f"{_CONFIG}: {e.strerror}") from e
        finally:
            fresh.unlink(missing_ok=True)


def _value(params: Params) -> str:
    value = params.get("value")
    if value is None:
        raise InvalidParamsError("value: missing")
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
