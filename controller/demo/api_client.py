"""An operator of the demonstration: the client of the command line, awaited in a thread."""

import asyncio
from collections.abc import Mapping
from typing import Any

from controller.api.client import ApiClient, ApiEndpoint, segment
from controller.ports.errors import ControllerError


class DemoApiClient:
    """Calls to the controller at `url` with one token; failures are `ControllerError`."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._client = ApiClient(ApiEndpoint(url, token))

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request below `/api/v1`."""
        return await asyncio.to_thread(self._client.call, method, path, body)

    async def readiness(self) -> tuple[bool, str]:
        """Whether the controller is ready, and the reasons why not."""
        try:
            status, body = await asyncio.to_thread(self._client.exchange, "GET", "/readyz")
        except ControllerError as e:
            return False, str(e)
        return status == 200, "; ".join(body.get("reasons", ()))

    async def devices(self, search: str) -> dict[str, dict[str, Any]]:
        """The listed devices that the search finds, by id."""
        rows = await asyncio.to_thread(lambda: list(self._client.pages("/devices", search=search)))
        return {row["device_id"]: row for row in rows}

    async def device(self, device_id: str) -> dict[str, Any]:
        """One device with its timeline."""
        device: dict[str, Any] = await self.call("GET", f"/devices/{segment(device_id)}")
        return device

    async def report(self, device_id: str) -> dict[str, Any]:
        """The sections of a device's last full report."""
        sections: dict[str, Any] = await self.call("GET", f"/devices/{segment(device_id)}/report")
        return sections
