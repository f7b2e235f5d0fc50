"""An operator of the update demonstration: starts, watches and approves rollouts over the API."""

from typing import Any
from urllib.parse import quote

from controller.demo.operator import DemoApiClient
from controller.demo.options import DemoError

_ALL = 1000  # devices asked for at once


class DemoRolloutClient(DemoApiClient):
    """Calls about rollouts, with one operator's token."""

    def at(self, url: str) -> "DemoRolloutClient":
        """The same operator at a controller that listens elsewhere."""
        return DemoRolloutClient(url, self._token)

    async def label(self, device_id: str, *tags: str) -> None:
        """Give a device tags."""
        await self._asked("PUT", f"/api/v1/devices/{quote(device_id, safe='')}/labels", {"tags": list(tags)})

    async def second(self, name: str) -> str:
        """A token for another operator."""
        body = {"name": name, "scopes": ["read", "rollout"]}
        return str((await self._asked("POST", "/api/v1/tokens", body))["token"])

    async def start(self, target: str, **terms: Any) -> str:
        """Begin a rollout; its id."""
        return str((await self._asked("POST", "/api/v1/rollouts", {"target": target, **terms}))["rollout_id"])

    async def rollout(self, rollout_id: str) -> dict[str, Any]:
        """A rollout as it is now."""
        return await self._asked("GET", f"/api/v1/rollouts/{rollout_id}")

    async def members(self, rollout_id: str) -> list[dict[str, Any]]:
        """Its devices."""
        page = await self._asked("GET", f"/api/v1/rollouts/{rollout_id}/devices?limit={_ALL}")
        found: list[dict[str, Any]] = page["items"]
        return found

    async def approve(self, rollout_id: str) -> None:
        """Let the last ring begin."""
        await self._asked("POST", f"/api/v1/rollouts/{rollout_id}/approve", {})

    async def approval_refused(self, rollout_id: str) -> str:
        """The reason why this operator's approval does not count.

        Raises:
            DemoError: it did count.
        """
        status, answer = await self._call("POST", f"/api/v1/rollouts/{rollout_id}/approve", {})
        if status != 409:
            raise DemoError(f"who started a rollout could approve it: {status} {answer}")
        return str(answer["error"]["message"])

    async def installed(self, device_id: str, name: str) -> dict[str, Any]:
        """What the device's last report shows of `name`; empty if nothing."""
        sections = await self.report(device_id)
        entries = (sections.get("software") or {}).get("entries", ())
        return next((dict(one) for one in entries if one["name"] == name), {})

    async def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        status, answer = await self._call(method, path, body)
        if status not in (200, 201):
            raise DemoError(f"the controller answered {method} {path} with {status}: {answer}")
        return answer
