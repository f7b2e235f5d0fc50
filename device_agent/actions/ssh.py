"""`ssh.set`: sets an option of the SSH server, checked by sshd before the change and read back from it afterwards."""

import contextlib
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.actions.base import (
    ActionError,
    InvalidParamsError,
    Params,
    Verification,
    choice_param,
    reject_unknown_params,
    text_param,
)
from device_agent.actions.edit import FileAction, FileContents, read
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import read_beginning, write_whole

_CONFIG: Final = "/etc/ssh/sshd_config"
_BEGIN, _END = "# cordon: begin", "# cordon: end"
_YES_NO: Final = r"yes|no"
# Options and their permitted values. No programs, paths and ciphers: they could be used for an intrusion.
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
_SYNONYMS: Final = {"without-password": "prohibit-password"}


class SetSshOption(FileAction):
    """`ssh.set {option, value}`: at the top of sshd_config, because sshd uses the first value of an option.

    `Match` blocks below may still set other values for some users; they are not changed.
    """

    def check(self, params: Params) -> None:
        """Accepts an option of the list with a permitted value."""
        reject_unknown_params(params, "option", "value")
        pattern = _OPTIONS[choice_param(params, "option", _OPTIONS)]
        # Values may be numbers and booleans.
        text_param({"value": _value(params)}, "value", re.compile(pattern), f"a value for it: {pattern}")

    def desired_files(self, params: Params) -> FileContents:
        """Returns the configuration with the option in the agent's block at its top."""
        text = read(self._system, _CONFIG)
        if text is None:
            raise ActionError("there is no SSH server here: no sshd_config")
        lines = text.splitlines()
        block: dict[str, str] = {}
        if lines[:1] == [_BEGIN] and _END in lines:
            at = lines.index(_END)
            block = dict(line.split(" ", 1) for line in lines[1:at] if " " in line)
            lines = lines[at + 1 :]
        block[str(params["option"])] = _value(params)
        options = [f"{key} {value}" for key, value in sorted(block.items())]
        return {_CONFIG: "\n".join([_BEGIN, *options, _END, *lines]) + "\n"}

    def describe_state(self, params: Params) -> str:
        """Returns the option as sshd resolves it."""
        key = str(params["option"]).lower()
        value = self._effective_options().get(key, "not set")
        return f"{key} {_SYNONYMS.get(value, value)}"

    def describe_changes(self, params: Params, paths: list[str]) -> str:
        line = f"{params['option']} {_value(params)}"
        return f"check with sshd -t, put '{line}' at the top of {', '.join(paths) or _CONFIG}, reload sshd"

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Lets sshd check the new configuration, then replaces the file."""
        self._check(str(self.desired_files(params)[_CONFIG]))
        super().apply(params, before)

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Compares the option with what sshd resolves from the file."""
        files = super().verify(params, before)
        key = str(params["option"]).lower()
        return Verification(files.is_reached and files.after["is"] == f"{key} {_value(params).lower()}", files.after)

    def activate(self, params: Params) -> None:
        """Reloads a running server; a server that starts for each connection reads the file anyway."""
        del params
        name = self._effective_options().get("pidfile", "none")
        file = self._system.path(name) if self._system.is_live else self._system.root.joinpath(name)
        with contextlib.suppress(OSError, ValueError):
            pid = int(read_beginning(file, 16)[0])
            if self._is_server(pid):
                os.kill(pid, signal.SIGHUP)

    def _is_server(self, pid: int) -> bool:
        # A stale pid file may name another process.
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip() == "sshd"
        except OSError:
            return False

    def _effective_options(self) -> dict[str, str]:
        try:
            out = run(["sshd", "-T", "-f", str(self._system.path(_CONFIG))]).stdout
        except ExecuteError as e:
            raise ActionError(f"sshd does not accept its configuration: {e}") from e
        return {key: value for key, _, value in (line.partition(" ") for line in out.splitlines())}

    def _check(self, content: str) -> None:
        path = self._system.path(_CONFIG)
        candidate = path.with_name(".sshd_config.cordon-check")
        try:
            write_whole(candidate, candidate.with_suffix(".new"), content.encode())
            run(["sshd", "-t", "-f", str(candidate)])
        except ExecuteError as e:
            raise ActionError(f"sshd refuses it: {e}") from e
        except OSError as e:
            raise ActionError(f"{_CONFIG}: {e.strerror}") from e
        finally:
            candidate.unlink(missing_ok=True)


def _value(params: Params) -> str:
    value = params.get("value")
    if value is None:
        raise InvalidParamsError("value: missing")
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
