"""An operator of the demonstration: asks and tells the controller over its HTTP API, as any operator does."""

import asyncio
import http.client
import json
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from controller.demo.options import DemoError

TIMEOUT_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_PAGE: Final = 500  # rows


class DemoApiClient:
    """Calls to one controller at `url`, with a token."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._token = token

    async def is_ready(self) -> tuple[bool, str]:
        """Whether the controller can work, and why not."""
        try:
            status, body = await self._call("GET", "/readyz")
        except DemoError as e:
            return False, str(e)
        return status == 200, "; ".join(body.get("reasons", ()))

    async def devices(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Every device whose id begins so, by id.

        Raises:
            DemoError: the controller did not answer as it should.
        """
        found: dict[str, dict[str, Any]] = {}
        offset = 0
        while True:
            query = urlencode({"search": prefix, "limit": _PAGE, "offset": offset})
            page = await self._good("GET", f"/api/v1/devices?{query}")
            found |= {row["device_id"]: row for row in page["items"]}
            offset += _PAGE
            if offset >= page["total"]:
                return found

    async def device(self, device_id: str) -> dict[str, Any]:
        """One device with its record.

        Raises:
            DemoError: the controller did not answer as it should.
        """
        return await self._good("GET", f"/api/v1/devices/{quote(device_id, safe='')}")

    async def report(self, device_id: str) -> dict[str, Any]:
        """The sections of a device's last full report.

        Raises:
            DemoError: the controller did not answer as it should.
        """
        return await self._good("GET", f"/api/v1/devices/{quote(device_id, safe='')}/report")

    async def release(self, device_id: str, reason: str) -> dict[str, Any]:
        """End a containment by hand; the decision.

        Raises:
            DemoError: the controller did not answer as it should.
        """
        return await self._good("POST", f"/api/v1/quarantine/{quote(device_id, safe='')}/release", {"reason": reason})

    async def _good(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        status, answer = await self._call(method, path, body)
        if status != 200:
            raise DemoError(f"the controller answered {method} {path} with {status}: {answer}")
        return answer

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        return await asyncio.to_thread(self._exchange, method, path, body)

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read(MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise DemoError(f"the controller did not answer {method} {path}: {e}") from e
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise DemoError(f"the controller answered {method} {path} with no object")
        return response.status, answer
