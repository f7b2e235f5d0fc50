"""Changes the agent's own firewall table; whatever cuts the device off from its broker is put back by itself."""

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
    KEPT,
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    Verification,
    choice,
    number,
    only,
)
from device_agent.actions.edit import need_root
from device_agent.host import nft
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import write_whole
from device_agent.host.nft import NftRules, ProtocolPort
from device_agent.host.system import System

_log = logging.getLogger(__name__)
RUN_FOLDER: Final = Path("/run/cordon-agent")  # gone after a restart of the machine, as the rules in the kernel are
RULES_FILE: Final = Path("/etc/cordon/firewall.nft")
DEFAULT_SECONDS: Final = 30
_LEAST_SECONDS, _MOST_SECONDS = 5, 600
_MARGIN: Final = 5.0  # seconds that the agent has to undo it itself, before the dead man's hand does
_DISMISS_SECONDS: Final = 2.0
_PROTOCOLS: Final = ("tcp", "udp")
_PORTS: Final = re.compile(r"^\d{1,5}/(tcp|udp)( \d{1,5}/(tcp|udp)){0,30}$")
_UNDO: Final = KEPT + "undo"
_MANAGERS: Final = (("ufw", ("ufw", "status"), "Status: active"), ("firewalld", ("firewall-cmd", "--state"), "running"))


class FirewallTable:
    """The table in the kernel, its copy for the next start, and the dead man's hand."""

    def __init__(self, run_folder: Path = RUN_FOLDER, rules_file: Path = RULES_FILE) -> None:
        self._pending = run_folder / "firewall.pending"
        self._rules_file = rules_file
        self._deadman: subprocess.Popen[bytes] | None = None

    def read(self) -> NftRules | None:
        """What the kernel holds (ActionError)."""
        try:
            return nft.current()
        except (ExecuteError, ValueError) as e:
            raise ActionError(str(e)) from e

    def change(self, rules: NftRules, undo: str, seconds: float) -> None:
        """Load `rules`; `undo` is loaded instead unless `keep` is called within `seconds` (ActionError)."""
        program = shutil.which("nft")
        if program is None:
            raise ActionError("nft is not installed")
        folder = self._pending.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._after(".undone").unlink(missing_ok=True)
            # Before anything changes: a kill right after the change finds the hand already there.
            write_whole(self._pending, self._after(".new"), undo.encode())
            self._start_deadman(seconds + _MARGIN, program)
            self._load(nft.script(rules))
        except OSError as e:
            raise ActionError(f"{e.filename or folder}: {e.strerror}") from e

    def keep(self) -> None:
        """It stays, also after the next start of the machine (ActionError: it was undone meanwhile)."""
        try:
            self._pending.unlink()
        except FileNotFoundError as e:
            raise ActionError("the broker was not reached in time; the rules were put back meanwhile") from e
        self._dismiss()
        self.save()

    def save(self) -> None:
        """Write down what the kernel holds, for `load_saved` (ActionError)."""
        rules = self.read()
        try:
            if rules is None:
                self._rules_file.unlink(missing_ok=True)
            else:
                self._rules_file.parent.mkdir(parents=True, exist_ok=True)
                fresh = self._rules_file.with_name(f".{self._rules_file.name}.new")
                write_whole(self._rules_file, fresh, nft.script(rules).encode())
        except OSError as e:
            raise ActionError(f"{self._rules_file}: {e.strerror}") from e

    def undo(self, text: str) -> None:
        """Load what was there before, now (ActionError)."""
        self._pending.unlink(missing_ok=True)
        self._load(text)
        self._dismiss()

    def load_saved(self) -> bool:
        """After a start of the machine: load what was kept, unless the kernel has the table (ActionError)."""
        if not self._rules_file.exists() or self._pending.exists() or self.read() is not None:
            return False
        try:
            self._load(self._rules_file.read_text())
        except OSError as e:
            raise ActionError(f"{self._rules_file}: {e.strerror}") from e
        return True

    def _after(self, suffix: str) -> Path:
        return self._pending.with_name(self._pending.name + suffix)

    def _load(self, text: str) -> None:
        file = self._after(".load")
        write_whole(file, self._after(".load.new"), text.encode())
        try:
            run(["nft", "-f", str(file)])
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        finally:
            file.unlink(missing_ok=True)

    def _start_deadman(self, seconds: float, program: str) -> None:
        from importlib.resources import files  # costs memory, and is seldom needed

        source = files("device_agent.actions").joinpath("deadman.py").read_text()
        argv = [sys.executable, "-I", "-S", "-c", source, str(seconds), str(self._pending), program]
        quiet = subprocess.DEVNULL
        # In a session of its own: it has to outlive this process.
        self._deadman = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)

    def _dismiss(self) -> None:
        """It sees that its file is gone, and ends."""
        if self._deadman is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._deadman.wait(_DISMISS_SECONDS)


def bring_back(system: System, table: FirewallTable | None = None) -> None:
    """Load the rules that were kept, after a start of the machine; what goes wrong is logged and stops nothing."""
    if not system.is_live or not system.is_root_user or shutil.which("nft") is None:
        return
    try:
        if (table if table is not None else FirewallTable()).load_saved():
            _log.info("the firewall's rules are loaded again")
    except ActionError as e:
        _log.error("the firewall's rules could not be loaded: %s", e)


class ChangeFirewall:
    """`firewall.enable`, `firewall.allow` and `firewall.deny`, by `verb`."""

    # Killed before its proof it is put back by the dead man's hand; doing it again could cut the device off again.
    is_repeatable = False

    def __init__(self, system: System, verb: str, table: FirewallTable | None = None) -> None:
        self._system = system
        self._verb = verb
        self._table = table if table is not None else FirewallTable()

    def check(self, params: Params) -> None:
        """`within` seconds of any; ports of `enable` as `22/tcp 53/udp`, of the others `port` and `proto`."""
        number(params, "within", _LEAST_SECONDS, _MOST_SECONDS, DEFAULT_SECONDS)
        if self._verb == "enable":
            only(params, "allow", "within")
        else:
            only(params, "port", "proto", "within")
        self._ports(params)

    def plan(self, params: Params) -> ActionPlan:
        """Compare the table with what it should be."""
        if not self._system.is_live:
            raise ActionError("only the running system has a firewall")
        need_root(self._system)
        before = self._table.read()
        wanted = self._wanted(before, params)
        if self._is_there(before, params):
            return ActionPlan(was={"is": _word(before)}, would="nothing", is_needed=False)
        if self._verb != "deny" and (manager := _other_manager()) is not None:
            raise ActionError(f"{manager} is in charge of the firewall here: a table beside it would only confuse")
        return ActionPlan(
            was={"was": _word(before), _UNDO: nft.script(before)},
            would=f"make table inet {nft.TABLE}: {wanted}; undone unless the broker is reached within "
            f"{self.proof_seconds(params, {}):g} s",
        )

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """The whole table in one transaction, with the dead man's hand on it."""
        wanted = self._wanted(self._table.read(), params)
        self._table.change(wanted, was[_UNDO], self.proof_seconds(params, was))

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Read it back from the kernel."""
        del was
        now = self._table.read()
        return Verification(self._is_there(now, params), {"is": _word(now)})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """The table as it was."""
        del params
        self._table.undo(was[_UNDO])
        return "put back as it was"

    def proof_seconds(self, params: Params, was: Mapping[str, str]) -> float:
        """As the command says, 30 without."""
        del was
        return float(number(params, "within", _LEAST_SECONDS, _MOST_SECONDS, DEFAULT_SECONDS))

    def keep(self, params: Params, was: Mapping[str, str]) -> None:
        """The broker was reached."""
        del params, was
        self._table.keep()

    def _ports(self, params: Params) -> frozenset[ProtocolPort]:
        if self._verb != "enable":
            return frozenset({(choice(params, "proto", _PROTOCOLS, "tcp"), number(params, "port", 1, 65535))})
        listed = params.get("allow", "")
        if listed == "":
            return frozenset()
        if not isinstance(listed, str) or _PORTS.fullmatch(listed) is None:
            raise InvalidParamsError("allow: ports such as 22/tcp 53/udp, at most 31")
        pairs = [word.split("/") for word in listed.split()]
        if any(not 1 <= int(port) <= 65535 for port, _ in pairs):
            raise InvalidParamsError("allow: ports from 1 to 65535")
        return frozenset((proto, int(port)) for port, proto in pairs)

    def _wanted(self, before: NftRules | None, params: Params) -> NftRules:
        rules, ports = before or NftRules(), self._ports(params)
        rules = rules.with_denied(ports) if self._verb == "deny" else rules.with_allowed(ports)
        closed = self._verb == "enable" or rules.closed
        if max(len(rules.allow), len(rules.deny)) > nft.MAX_PORTS:
            raise ActionError(f"more than {nft.MAX_PORTS} ports in one list")
        return NftRules(closed=closed, allow=rules.allow, deny=rules.deny)

    def _is_there(self, rules: NftRules | None, params: Params) -> bool:
        return rules is not None and self._wanted(rules, params) == rules


def _word(rules: NftRules | None) -> str:
    return "off" if rules is None else str(rules)


def _other_manager() -> str | None:
    for name, argv, word in _MANAGERS:
        try:
            if shutil.which(argv[0]) and word in run(list(argv), ok=frozenset(range(256))).out.splitlines():
                return name
        except ExecuteError:
            continue
    return None
