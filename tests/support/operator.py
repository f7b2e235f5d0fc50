"""An operator: the client of Cordon's API that the command line uses, awaited in a thread."""

import asyncio
from collections.abc import Mapping
from typing import Any

from controller.api.client import ApiClient, ApiEndpoint, ApiUnreachableError, segment


class OperatorClient:
    """Calls to one controller with one token; failures are the errors of `ApiClient.call`."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._client = ApiClient(ApiEndpoint(url, token))

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request below `/api/v1`."""
        return await asyncio.to_thread(self._client.call, method, path, body)

    async def is_ready(self) -> bool:
        """Whether the controller can work."""
        try:
            return (await asyncio.to_thread(self._client.exchange, "GET", "/readyz"))[0] == 200
        except ApiUnreachableError:
            return False

    async def devices(self, search: str) -> dict[str, dict[str, Any]]:
        """Every listed device that the search finds, by id."""
        rows = await asyncio.to_thread(lambda: list(self._client.pages("/devices", search=search)))
        return {row["device_id"]: row for row in rows}

    async def device(self, device_id: str) -> dict[str, Any]:
        """One device with its timeline."""
        found: dict[str, Any] = await self.call("GET", f"/devices/{segment(device_id)}")
        return found

    async def release(self, device_id: str, reason: str) -> None:
        """Ends a containment, or steps an isolation down."""
        await self.call("POST", f"/quarantine/{segment(device_id)}/release", {"reason": reason})
