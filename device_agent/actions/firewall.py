"""`firewall.*`: changes the agent's own nftables table. A change that cuts the device off is undone automatically."""

import contextlib
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.actions.base import (
    JOURNAL_ONLY,
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    Verification,
    choice_param,
    int_param,
    reject_unknown_params,
)
from device_agent.actions.edit import require_root
from device_agent.host import nft
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import write_whole
from device_agent.host.nft import NftRules, ProtocolPort
from device_agent.host.system import System

_log = logging.getLogger(__name__)
RUN_FOLDER: Final = Path("/run/cordon-agent")  # removed by a reboot, as are the rules in the kernel
RULES_FILE: Final = Path("/etc/cordon/firewall.nft")
DEFAULT_SECONDS: Final = 30
_MIN_SECONDS, _MAX_SECONDS = 5, 600
_MARGIN: Final = 5.0  # seconds for the agent to undo the change itself before the dead-man timer does
_DEADMAN_EXIT_SECONDS: Final = 2.0
_PROTOCOLS: Final = ("tcp", "udp")
_PORTS: Final = re.compile(r"^\d{1,5}/(tcp|udp)( \d{1,5}/(tcp|udp)){0,30}$")
_UNDO: Final = JOURNAL_ONLY + "undo"
_MANAGERS: Final = (("ufw", ("ufw", "status"), "Status: active"), ("firewalld", ("firewall-cmd", "--state"), "running"))


class FirewallTable:
    """The table in the kernel, its copy for the next boot, and the dead-man timer (`deadman.py`) of a change."""

    def __init__(self, run_folder: Path = RUN_FOLDER, rules_file: Path = RULES_FILE) -> None:
        self._pending = run_folder / "firewall.pending"
        self._rules_file = rules_file
        self._deadman: subprocess.Popen[bytes] | None = None

    def read(self) -> NftRules | None:
        """Returns the rules in the kernel, None without a table (ActionError)."""
        try:
            return nft.read_table()
        except (ExecuteError, ValueError) as e:
            raise ActionError(str(e)) from e

    def change(self, rules: NftRules, undo: str, seconds: float) -> None:
        """Loads `rules`; the script `undo` is loaded unless `commit` follows within `seconds` (ActionError)."""
        program = shutil.which("nft")
        if program is None:
            raise ActionError("nft is not installed")
        folder = self._pending.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sibling_path(".undone").unlink(missing_ok=True)
            # Before the change: if the agent is killed right after it, the timer runs already.
            write_whole(self._pending, self._sibling_path(".new"), undo.encode())
            self._start_deadman(seconds + _MARGIN, program)
            self._load(nft.render_ruleset(rules))
        except OSError as e:
            raise ActionError(f"{e.filename or folder}: {e.strerror}") from e

    def commit(self) -> None:
        """Makes the change permanent, also across reboots (ActionError: it was undone meanwhile)."""
        try:
            self._pending.unlink()
        except FileNotFoundError as e:
            raise ActionError("the broker was not reached in time; the former rules were restored meanwhile") from e
        self._await_deadman_exit()
        self.save()

    def save(self) -> None:
        """Writes the rules in the kernel to the file for `load_saved` (ActionError)."""
        rules = self.read()
        try:
            if rules is None:
                self._rules_file.unlink(missing_ok=True)
            else:
                self._rules_file.parent.mkdir(parents=True, exist_ok=True)
                temporary = self._rules_file.with_name(f".{self._rules_file.name}.new")
                write_whole(self._rules_file, temporary, nft.render_ruleset(rules).encode())
        except OSError as e:
            raise ActionError(f"{self._rules_file}: {e.strerror}") from e

    def undo(self, text: str) -> None:
        """Loads the former rules now (ActionError)."""
        self._pending.unlink(missing_ok=True)
        self._load(text)
        self._await_deadman_exit()

    def load_saved(self) -> bool:
        """Loads the saved rules unless the kernel has the table; returns whether it did (ActionError)."""
        if not self._rules_file.exists() or self._pending.exists() or self.read() is not None:
            return False
        try:
            self._load(self._rules_file.read_text("utf-8"))
        except OSError as e:
            raise ActionError(f"{self._rules_file}: {e.strerror}") from e
        return True

    def _sibling_path(self, suffix: str) -> Path:
        return self._pending.with_name(self._pending.name + suffix)

    def _load(self, text: str) -> None:
        file = self._sibling_path(".load")
        write_whole(file, self._sibling_path(".load.new"), text.encode())
        try:
            run(["nft", "-f", str(file)])
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        finally:
            file.unlink(missing_ok=True)

    def _start_deadman(self, seconds: float, program: str) -> None:
        from importlib.resources import files  # large, and seldom needed

        source = files("device_agent.actions").joinpath("deadman.py").read_text("utf-8")
        argv = [sys.executable, "-I", "-S", "-c", source, str(seconds), str(self._pending), program]
        null = subprocess.DEVNULL
        # In a session of its own: the timer has to outlive this process.
        self._deadman = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True)

    def _await_deadman_exit(self) -> None:
        # The timer ends by itself once its file is gone.
        if self._deadman is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._deadman.wait(_DEADMAN_EXIT_SECONDS)


def restore_saved_rules(system: System, table: FirewallTable | None = None) -> None:
    """Loads the saved rules after a boot; a failure is logged and does not stop the agent."""
    if not system.is_live or not system.is_root_user or shutil.which("nft") is None:
        return
    try:
        if (table if table is not None else FirewallTable()).load_saved():
            _log.info("the saved firewall rules are loaded")
    except ActionError as e:
        _log.error("the saved firewall rules could not be loaded: %s", e)


class ChangeFirewall:
    """`firewall.enable`, `firewall.allow` or `firewall.deny`, as `verb` says."""

    # After a kill the dead-man timer restores the rules; a second attempt could cut the device off again.
    is_repeatable = False

    def __init__(self, system: System, verb: str, table: FirewallTable | None = None) -> None:
        self._system = system
        self._verb = verb
        self._table = table if table is not None else FirewallTable()

    def check(self, params: Params) -> None:
        """Accepts `within` (seconds), and `allow` (such as `22/tcp 53/udp`) of `enable`, else `port` and `proto`."""
        int_param(params, "within", _MIN_SECONDS, _MAX_SECONDS, DEFAULT_SECONDS)
        if self._verb == "enable":
            reject_unknown_params(params, "allow", "within")
        else:
            reject_unknown_params(params, "port", "proto", "within")
        self._ports(params)

    def plan(self, params: Params) -> ActionPlan:
        """Compares the table in the kernel with the desired one."""
        if not self._system.is_live:
            raise ActionError("only the running system has a firewall")
        require_root(self._system)
        present = self._table.read()
        if self._matches(present, params):
            return ActionPlan({"is": _describe(present)}, "nothing", is_needed=False)
        desired = self._desired(present, params)
        if self._verb != "deny" and (manager := _conflicting_manager()) is not None:
            raise ActionError(f"{manager} manages the firewall here: a second table would conflict with it")
        changes = (
            f"make table inet {nft.TABLE}: {desired}; undone unless the broker is reached within "
            f"{self.broker_timeout_seconds(params, {}):g} s"
        )
        return ActionPlan({"was": _describe(present), _UNDO: nft.render_ruleset(present)}, changes)

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Replaces the table in one transaction, guarded by the dead-man timer."""
        desired = self._desired(self._table.read(), params)
        self._table.change(desired, before[_UNDO], self.broker_timeout_seconds(params, before))

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Reads the table back from the kernel."""
        del before
        present = self._table.read()
        return Verification(self._matches(present, params), {"is": _describe(present)})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        del params
        self._table.undo(before[_UNDO])
        return "put back as it was"

    def broker_timeout_seconds(self, params: Params, before: Mapping[str, str]) -> float:
        """Returns the parameter `within`, 30 by default."""
        del before
        return float(int_param(params, "within", _MIN_SECONDS, _MAX_SECONDS, DEFAULT_SECONDS))

    def commit(self, params: Params, before: Mapping[str, str]) -> None:
        """Makes the rules permanent."""
        del params, before
        self._table.commit()

    def _ports(self, params: Params) -> frozenset[ProtocolPort]:
        if self._verb != "enable":
            return frozenset({(choice_param(params, "proto", _PROTOCOLS, "tcp"), int_param(params, "port", 1, 65535))})
        listed = params.get("allow", "")
        if listed == "":
            return frozenset()
        if not isinstance(listed, str) or _PORTS.fullmatch(listed) is None:
            raise InvalidParamsError("allow: ports such as 22/tcp 53/udp, at most 31")
        pairs = [word.split("/") for word in listed.split()]
        if any(not 1 <= int(port) <= 65535 for port, _ in pairs):
            raise InvalidParamsError("allow: ports from 1 to 65535")
        return frozenset((proto, int(port)) for port, proto in pairs)

    def _desired(self, present: NftRules | None, params: Params) -> NftRules:
        rules, ports = present or NftRules(), self._ports(params)
        rules = rules.with_denied(ports) if self._verb == "deny" else rules.with_allowed(ports)
        closed = self._verb == "enable" or rules.closed
        if max(len(rules.allow), len(rules.deny)) > nft.MAX_PORTS:
            raise ActionError(f"more than {nft.MAX_PORTS} ports in one list")
        return NftRules(closed=closed, allow=rules.allow, deny=rules.deny)

    def _matches(self, rules: NftRules | None, params: Params) -> bool:
        return rules is not None and self._desired(rules, params) == rules


def _describe(rules: NftRules | None) -> str:
    return "off" if rules is None else str(rules)


def _conflicting_manager() -> str | None:
    for name, argv, active_line in _MANAGERS:
        try:
            if (
                shutil.which(argv[0])
                and active_line in run(list(argv), ok_statuses=frozenset(range(256))).stdout.splitlines()
            ):
                return name
        except ExecuteError:
            continue
    return None
