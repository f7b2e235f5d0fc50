"""Policy activation: policies come into force unless they would contain more devices than the guards allow."""

import asyncio
from collections.abc import Callable
from typing import Final

from controller.domain.policy.model import PolicySet
from controller.ports.errors import ControllerError
from controller.ports.log import Log
from controller.ports.store import Store
from controller.service.fleet_state import FleetState
from controller.service.policy.preview import preview

_NAMED: Final = 5  # devices that a refusal names


class PolicyTooBroadError(ControllerError):
    """The policies would contain more devices than the blast radius allows; those in force stay."""


class PolicyActivation:
    """The only way in which policies come into force, at the start and later."""

    def __init__(self, fleet: FleetState, store: Store, load: Callable[[], PolicySet], log: Log) -> None:
        self._fleet = fleet
        self._store = store
        self._load = load
        self._log = log
        self._requested = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def start(self, *, force: bool = False) -> None:
        """Checks the policies at the start, unless they were in force last.

        Raises:
            PolicyTooBroadError: they would contain too much.
        """
        fresh = self._fleet.policies
        if not force and await self._store.accepted_policies() != fresh.policy_version:
            await self.check_blast_radius(fresh, "cordon serve --force")
        await self._store.accept_policies(fresh.policy_version)

    async def reload(self, *, force: bool = False) -> PolicySet:
        """Reads the files again and puts them in force, with the present knowledge.

        Raises:
            ControllerError: a file has a mistake, or they would contain too much; those in force stay.
        """
        async with self._one_at_a_time:
            fresh = self._load().with_knowledge(self._fleet.policies.knowledge)
            if not force and fresh.policy_version != self._fleet.policies.policy_version:
                await self.check_blast_radius(fresh, "cordon policy reload --force")
            await self._store.accept_policies(fresh.policy_version)
            self._fleet.set_policies(fresh)
            self._log("policies loaded", {"version": fresh.version, "forced": force})
            return fresh

    async def check_blast_radius(self, fresh: PolicySet, anyway: str) -> None:
        """Checks how many devices policies would contain; `anyway` is the command that puts them in force nevertheless.

        Raises:
            PolicyTooBroadError: they would contain too many.
        """
        fleet = self._fleet
        limit = fleet.guards.radius.bounds.limit(len(fleet.devices))
        if fleet.guards.radius.bounds.is_unlimited or not fleet.devices:
            return
        named: list[str] = []
        found = 0
        async for page in preview(fleet, self._store, fresh):
            named += [one.device_id for one in page.changes if one.contains][: _NAMED - len(named)]
            found = page.tally.contains
        if found > limit:
            raise PolicyTooBroadError(
                f"these policies would contain {found} of {len(fleet.devices)} devices, and [guards] lets {limit} be "
                f"contained at once ({', '.join(named)}{', ...' if found > len(named) else ''}): see them with "
                f"`cordon policy preview`, put a rule into shadow mode, or take them all the same with `{anyway}`"
            )

    def request_reload(self) -> None:
        """Requests a reload; for signal handlers."""
        self._requested.set()

    async def run(self) -> None:
        """Until cancelled: reloads on request; policies with mistakes change nothing."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                await self.reload()
            except ControllerError as e:
                self._log("policies not loaded, the old ones stay", {"alert": True, "error": str(e)})
