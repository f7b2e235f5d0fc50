"""A controller over the scripted EMQX, where one call fails."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from controller.adapters.emqx.client.models import RuleRow
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.ports.broker_tables import restriction
from controller.service.containment.outbox import Outbox
from controller.service.containment.reconciler import Reconciler
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.scripted_emqx import BASES, ScriptedEmqx, error

Strike = Callable[[httpx.Request, Callable[[httpx.Request], httpx.Response]], httpx.Response]
Normal = Callable[[httpx.Request], httpx.Response]
_ALL_RULES: Final = "/authorization/sources/built_in_database/rules/clients"


def _refuse(status: int, code: str) -> Strike:
    def strike(_request: httpx.Request, _normal: Normal) -> httpx.Response:
        return error(status, code)

    return strike


def _garbage(_request: httpx.Request, _normal: Normal) -> httpx.Response:
    return httpx.Response(200, text="<html>It works!</html>", headers={"content-type": "text/html"})


def _wrong_shape(_request: httpx.Request, _normal: Normal) -> httpx.Response:
    return httpx.Response(200, json={"data": 7, "rules": "none"})


def _half(request: httpx.Request, normal: Normal) -> httpx.Response:
    normal(request)
    raise httpx.RemoteProtocolError("peer closed connection without sending complete message body", request=request)


def _nothing(request: httpx.Request, _normal: Normal) -> httpx.Response:
    raise httpx.ReadTimeout("", request=request)


def _too_late(request: httpx.Request, normal: Normal) -> httpx.Response:
    normal(request)  # carried out, and the response is lost
    raise httpx.ReadTimeout("", request=request)


def _refused(request: httpx.Request, _normal: Normal) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


FAULTS: Final[dict[str, Strike]] = {
    "401": _refuse(401, "BAD_API_KEY_OR_SECRET"),
    "403": _refuse(403, "UNAUTHORIZED_ROLE"),
    "404": _refuse(404, "NOT_FOUND"),
    "409": _refuse(409, "CONFLICT"),
    "500": _refuse(500, "INTERNAL_ERROR"),
    "503": _refuse(503, "SERVICE_UNAVAILABLE"),
    "garbage": _garbage,
    "wrong shape": _wrong_shape,
    "half": _half,
    "nothing": _nothing,
    "too late": _too_late,
    "refused": _refused,
}


class FaultyEmqx(ScriptedEmqx):
    """Three nodes; while `fault` is set, its call fails."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: tuple[str, Strike] | None = None
        self.struck = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Responds, or fails."""
        text = f"{request.method} {request.url.path.removeprefix('/api/v5')}"
        if self.fault is not None and text == self.fault[0]:
            self.struck += 1
            return self.fault[1](request, self._normal)
        return self._normal(request)

    def _normal(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path.endswith(_ALL_RULES):
            rows = [{"clientid": name, "rules": rules} for name, rules in self.rules[BASES[0]].items()]
            return httpx.Response(200, json={"data": rows, "meta": {"count": len(rows)}})
        return super().answer(request)

    def is_restricted(self, device_id: str) -> bool:
        """Whether every node has the restriction."""
        wanted = restriction(device_id)
        return all(
            tuple(RuleRow.model_validate(row).rule() for row in table.get(device_id, [])) == wanted
            for table in self.rules.values()
        )

    def is_untouched(self, device_id: str) -> bool:
        """Whether no node has a rule for the device."""
        return not any(table.get(device_id) for table in self.rules.values())


@dataclass(slots=True)
class FaultyDeployment:
    """A controller over this broker."""

    harness: ControllerHarness
    outbox: Outbox
    reconciler: Reconciler

    async def alerts(self, device_id: str) -> list[str]:
        """The kinds of a device's alerts, oldest first."""
        found = await self.harness.store.audit(device_id=device_id, alerts_only=True, newest_first=False)
        return [one.entry.kind for one in found]


@contextlib.asynccontextmanager
async def faulty_deployment(path: Path, broker: EmqxBroker) -> AsyncIterator[FaultyDeployment]:
    """A controller over the store at `path`; the same path again is a restart."""
    settings = {"identity": {"unsafe_accept_claimed": True}, "reconcile": {"every": "1s"}}
    async with open_harness(path, emqx=broker, settings=settings) as harness:
        yield FaultyDeployment(harness, harness.outbox, harness.reconciler)
