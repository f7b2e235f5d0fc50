"""`port.close`: disables the service that listens on a port, or else denies the port in the firewall."""

import re
import socket
import time
from collections.abc import Mapping
from typing import Final

from device_agent.actions.base import (
    ActionError,
    ActionPlan,
    Params,
    Verification,
    choice_param,
    int_param,
    reject_unknown_params,
)
from device_agent.actions.firewall import DEFAULT_SECONDS, ChangeFirewall, FirewallTable
from device_agent.actions.service import DisableService
from device_agent.collectors.system.sockets import collect
from device_agent.errors import FactsUnavailableError
from device_agent.host import inetd
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System
from device_agent.host.systemd import ServiceManager, service_manager

_PROTOCOLS: Final = ("tcp", "udp")
_UNIT: Final = re.compile(r"/([A-Za-z0-9_.@\\:-]+\.service)(?:/|$)")
_CLOSE_SECONDS: Final = 5.0  # for a stopped program to close its sockets


class ClosePort:
    """`port.close {port, proto, within}`: disables the service, with the same checks as `service.disable`.

    Where no service can be disabled, the firewall denies the port instead; that is undone unless the broker is reached
    `within` seconds.
    """

    is_repeatable = False

    def __init__(self, system: System, units: ServiceManager | None = None, table: FirewallTable | None = None) -> None:
        """`units` and `table` default to those of the machine."""
        self._system = system
        self._units = units
        self._services = DisableService(system, units)
        self._firewall = ChangeFirewall(system, "deny", table)

    def check(self, params: Params) -> None:
        """Accepts `port`, `proto` (default: tcp) and `within` (seconds)."""
        reject_unknown_params(params, "port", "proto", "within")
        int_param(params, "port", 1, 65535)
        choice_param(params, "proto", _PROTOCOLS, "tcp")
        self._firewall.check(params)

    def plan(self, params: Params) -> ActionPlan:
        """Finds the service to disable, or else the firewall rule."""
        if not self._is_open(params):
            return ActionPlan(before={"is": "closed"}, changes="nothing", is_needed=False)
        name = self._service(params)
        reason = "no service that could be disabled is behind it"
        if name:
            try:
                plan = self._services.plan({"name": name})
                if plan.is_needed:
                    return ActionPlan({**plan.before, "was": "open", "by": f"service {name}"}, plan.changes)
            except ActionError as e:
                reason = str(e)
        plan = self._firewall.plan(self._rule(params))
        before = {**plan.before, "was": "open", "by": "firewall", "why": reason}
        return ActionPlan(before, f"{plan.changes} ({reason})", is_needed=plan.is_needed)

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        if before["by"] == "firewall":
            self._firewall.apply(self._rule(params), before)
        else:
            self._services.apply(*_service_arguments(before))

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Checks that no process listens any more, or that the kernel has the rule."""
        if before.get("by") == "firewall":
            return self._firewall.verify(self._rule(params), before)
        deadline = time.monotonic() + _CLOSE_SECONDS
        while (is_open := self._is_open(params)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return Verification(not is_open, {"is": "open" if is_open else "closed"})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores the service or the rules."""
        if before["by"] == "firewall":
            return self._firewall.undo(self._rule(params), before)
        return self._services.undo(*_service_arguments(before))

    def broker_timeout_seconds(self, params: Params, before: Mapping[str, str]) -> float:
        """Returns 0 for a service: only a firewall rule can cut the device off."""
        return self._firewall.broker_timeout_seconds(params, before) if before.get("by") == "firewall" else 0.0

    def commit(self, params: Params, before: Mapping[str, str]) -> None:
        """Makes the firewall rule permanent."""
        self._firewall.commit(self._rule(params), before)

    @staticmethod
    def _rule(params: Params) -> Params:
        return {"proto": "tcp", "within": DEFAULT_SECONDS, **params}

    def _is_open(self, params: Params) -> bool:
        try:
            listening = collect(self._system)["listening"]
        except FactsUnavailableError as e:
            raise ActionError(str(e)) from e
        requested = (params.get("proto", "tcp"), params["port"])
        return any((entry["proto"], entry["port"]) == requested for entry in listening)

    def _service(self, params: Params) -> str:
        """Returns the service to disable: a systemd unit or an entry of inetd; empty when there is none."""
        requested = (params.get("proto", "tcp"), params["port"])
        names = {e["process"] for e in collect(self._system)["listening"] if (e["proto"], e["port"]) == requested}
        if names & inetd.PROGRAMS:
            service = _service_name(int(params["port"]), str(params.get("proto", "tcp")))
            known = {entry.service for entry in inetd.entries(self._system)}
            return next((f"inetd:{name}" for name in (service, str(params["port"])) if name in known), "")
        manager = self._units if self._units is not None else service_manager(self._system)
        if manager is None:
            return ""
        for process in sorted(self._system.path("/proc").glob("[0-9]*")):
            try:
                if (process / "comm").read_text().strip() not in names:
                    continue
                match = _UNIT.search((process / "cgroup").read_text())
                if match and manager.show(match[1], "LoadState")["LoadState"] == "loaded":
                    return match[1]
            except (OSError, ExecuteError):
                continue
        return ""


def _service_name(port: int, proto: str) -> str:
    try:
        return socket.getservbyport(port, proto)
    except OSError:
        return ""


def _service_arguments(before: Mapping[str, str]) -> tuple[Params, Mapping[str, str]]:
    """Returns the parameters and the state before of the `service.disable` that the plan chose."""
    own = {key: value for key, value in before.items() if key not in {"was", "by"}}
    return {"name": before["by"].removeprefix("service ")}, own
