"""Closes a port: by switching off the service behind it, or else by a firewall rule before it."""

import re
import socket
import time
from collections.abc import Mapping
from typing import Final

from device_agent.actions.base import ActionError, ActionPlan, Params, Verification, choice, number, only
from device_agent.actions.firewall import DEFAULT_SECONDS, ChangeFirewall, FirewallTable
from device_agent.actions.service import DisableService
from device_agent.collectors.system.sockets import collect
from device_agent.errors import FactsUnavailableError
from device_agent.host import inetd
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System
from device_agent.host.systemd import ServiceManager, units_of

_PROTOCOLS: Final = ("tcp", "udp")
_UNIT: Final = re.compile(r"/([A-Za-z0-9_.@\\:-]+\.service)(?:/|$)")
_CLOSE_SECONDS: Final = 5.0  # a program that was told to stop may take a moment to let go


class ClosePort:
    """`port.close {port, proto, within}`: the service behind it is disabled, after the same check as `service.disable`.

    Where nothing can be disabled, or something needs the service, the port is refused by the firewall instead, which
    is put back unless the broker is reached `within` seconds.
    """

    is_repeatable = False

    def __init__(self, system: System, units: ServiceManager | None = None, table: FirewallTable | None = None) -> None:
        """`units`, `table`: those of the machine, unless others are given."""
        self._system = system
        self._units = units
        self._services = DisableService(system, units)
        self._drop = ChangeFirewall(system, "deny", table)

    def check(self, params: Params) -> None:
        """A port, and tcp without `proto`."""
        only(params, "port", "proto", "within")
        number(params, "port", 1, 65535)
        choice(params, "proto", _PROTOCOLS, "tcp")
        self._drop.check(params)

    def plan(self, params: Params) -> ActionPlan:
        """Find who listens, and the gentlest way to end it."""
        if not self._is_open(params):
            return ActionPlan(was={"is": "closed"}, would="nothing", is_needed=False)
        name = self._service(params)
        why = "no service that could be disabled is behind it"
        if name:
            try:
                plan = self._services.plan({"name": name})
                if plan.is_needed:
                    return ActionPlan({**plan.was, "was": "open", "by": f"service {name}"}, plan.would)
            except ActionError as e:
                why = str(e)
        plan = self._drop.plan(self._rule(params))
        was = {**plan.was, "was": "open", "by": "firewall", "why": why}
        return ActionPlan(was, f"{plan.would} ({why})", is_needed=plan.is_needed)

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """As planned."""
        if was["by"] == "firewall":
            self._drop.apply(self._rule(params), was)
        else:
            self._services.apply(_named(was), _of_service(was))

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Nobody listens any more, or the kernel has the rule."""
        if was.get("by") == "firewall":
            return self._drop.verify(self._rule(params), was)
        deadline = time.monotonic() + _CLOSE_SECONDS
        while (is_open := self._is_open(params)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return Verification(not is_open, {"is": "open" if is_open else "closed"})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """The service or the rules as they were."""
        if was["by"] == "firewall":
            return self._drop.undo(self._rule(params), was)
        return self._services.undo(_named(was), _of_service(was))

    def proof_seconds(self, params: Params, was: Mapping[str, str]) -> float:
        """Only a firewall rule can cut the device off."""
        return self._drop.proof_seconds(params, was) if was.get("by") == "firewall" else 0.0

    def keep(self, params: Params, was: Mapping[str, str]) -> None:
        """The broker was reached."""
        self._drop.keep(self._rule(params), was)

    @staticmethod
    def _rule(params: Params) -> Params:
        return {"proto": "tcp", "within": DEFAULT_SECONDS, **params}

    def _is_open(self, params: Params) -> bool:
        try:
            listening = collect(self._system)["listening"]
        except FactsUnavailableError as e:
            raise ActionError(str(e)) from e
        wanted = (params.get("proto", "tcp"), params["port"])
        return any((entry["proto"], entry["port"]) == wanted for entry in listening)

    def _service(self, params: Params) -> str:
        """What can be disabled: a unit of systemd or an entry of inetd; empty when there is none."""
        wanted = (params.get("proto", "tcp"), params["port"])
        names = {e["process"] for e in collect(self._system)["listening"] if (e["proto"], e["port"]) == wanted}
        if names & inetd.PROGRAMS:
            service = _service_name(int(params["port"]), str(params.get("proto", "tcp")))
            known = {entry.service for entry in inetd.entries(self._system)}
            return next((f"inetd:{one}" for one in (service, str(params["port"])) if one in known), "")
        manager = self._units if self._units is not None else units_of(self._system)
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


def _named(was: Mapping[str, str]) -> Params:
    return {"name": was["by"].removeprefix("service ")}


def _of_service(was: Mapping[str, str]) -> Mapping[str, str]:
    return {key: value for key, value in was.items() if key not in {"was", "by"}}
