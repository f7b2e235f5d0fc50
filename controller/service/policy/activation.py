"""Policy activation: policies come into force unless they would contain more devices than the guards allow."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.domain.policy.model import PolicySet
from controller.ports.errors import ControllerError
from controller.ports.log import Log
from controller.ports.policies import PolicyError, PolicySetStore, PolicyTextReader, StoredPolicySet
from controller.ports.store import Store
from controller.service.fleet_state import FleetState
from controller.service.policy.preview import preview

FOLLOW_EVERY: Final = 1.0  # seconds between two looks whether another controller put other policies in force
_NAMED: Final = 5  # devices that a refusal names


class PolicyTooBroadError(ControllerError):
    """The policies would contain more devices than the blast radius allows; those in force stay."""


class PoliciesReplacedError(ControllerError):
    """Another controller put other policies in force at the same moment."""

    def __init__(self) -> None:
        super().__init__("another controller put other policies in force meanwhile: look at them, and try again")


@dataclass(frozen=True, slots=True)
class SharedPolicies:
    """What several controllers need to judge by the same policies; `name` is this one's, `leads` whether it leads."""

    sets: PolicySetStore
    files: PolicyTextReader
    name: str
    leads: Callable[[], bool]


class PolicyActivation:
    """The only way in which policies come into force, at the start and later.

    With `shared` the set in force is the store's: the files of this host only replace it on `reload`.
    """

    def __init__(
        self,
        fleet: FleetState,
        store: Store,
        load: Callable[[], PolicySet],
        log: Log,
        shared: SharedPolicies | None = None,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._load = load
        self._log = log
        self._shared = shared
        self._requested = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._trouble = ""  # why the set in force cannot be used here
        self.files_version = fleet.policies.policy_version  # of this host's files, when they were read last
        self.in_force = StoredPolicySet(0)
        if shared is not None:
            fleet.load_policies = self.follow  # at once, when the store refuses a decision by former policies

    @property
    def trouble(self) -> str:
        """Why nothing can be decided: others judge by policies that cannot be used here; empty if they can."""
        return self._trouble

    @property
    def warning(self) -> str:
        """What is not as an operator of several controllers expects it; empty if all is."""
        present = self.in_force
        if self._trouble or not present.epoch or present.version == self.files_version:
            return self._trouble
        return (
            f"the policy files of this host are version {self.files_version}, and in force is {present.version}, "
            f"which {present.by} took from {present.controller}"
        )

    async def start(self, *, force: bool = False) -> None:
        """Puts the store's set in force where controllers share one; else checks the files' policies.

        Raises:
            PolicyTooBroadError: they would contain too much.
            PolicyError: this version cannot use the store's set.
        """
        fresh = self._fleet.policies
        if self._shared is not None:
            await self._start_shared(self._shared, fresh, force=force)
            return
        if not force and await self._store.accepted_policies() != fresh.policy_version:
            await self.check_blast_radius(fresh, "cordon serve --force")
        await self._store.accept_policies(fresh.policy_version)

    async def _start_shared(self, shared: SharedPolicies, fresh: PolicySet, *, force: bool) -> None:
        present = await shared.sets.present()
        if not present.epoch:
            if not force and await self._store.accepted_policies() != fresh.policy_version:
                await self.check_blast_radius(fresh, "cordon serve --force")
            if await self._replace(shared, fresh, "the first start"):
                return
            present = await shared.sets.present()
        self._take(shared, present)
        if self.warning:
            self._log(self.warning, {"alert": True})

    async def reload(self, *, force: bool = False, by: str = "a signal") -> PolicySet:
        """Reads the files again and puts them in force, with the present knowledge; `by`: who wants it.

        Raises:
            ControllerError: a file has a mistake, or they would contain too much; those in force stay.
        """
        async with self._one_at_a_time:
            if self._shared is not None:
                with contextlib.suppress(PolicyError):
                    await self._follow(self._shared)
            fresh = self._load().with_knowledge(self._fleet.policies.knowledge)
            self.files_version = fresh.policy_version
            if not force and fresh.policy_version != self._fleet.policies.policy_version:
                await self.check_blast_radius(fresh, "cordon policy reload --force")
            if self._shared is None:
                await self._store.accept_policies(fresh.policy_version)
                self._fleet.set_policies(fresh)
            elif fresh.policy_version != self.in_force.version and not await self._replace(self._shared, fresh, by):
                await self._follow(self._shared)
                raise PoliciesReplacedError
            self._log("policies loaded", {"version": fresh.version, "forced": force})
            return fresh

    async def follow(self) -> None:
        """Puts in force what another controller put in force, if that is the case.

        Raises:
            ControllerError: the store failed, or this version cannot use them.
        """
        if self._shared is not None:
            async with self._one_at_a_time:
                await self._follow(self._shared)

    async def _follow(self, shared: SharedPolicies) -> None:
        if await shared.sets.epoch() == self.in_force.epoch:
            return
        self.in_force = await shared.sets.present()  # also if they cannot be used: then a reload replaces them
        try:
            self._take(shared, self.in_force)
        except PolicyError as e:
            self._trouble = f"the policies in force cannot be used by this version of Cordon: {e}"
            self._log("policies of another controller not loaded", {"alert": True, "error": str(e)})
            raise
        self._log("policies of another controller are in force", {"version": self._fleet.policies.version})

    def _take(self, shared: SharedPolicies, present: StoredPolicySet) -> None:
        self._set(shared.files.compile(present.texts), present)

    async def _replace(self, shared: SharedPolicies, fresh: PolicySet, by: str) -> bool:
        texts = shared.files.read()
        if shared.files.compile(texts).policy_version != fresh.policy_version:
            raise PoliciesReplacedError  # the files changed after they were checked
        now = self._fleet.clock.now()
        wanted = StoredPolicySet(self.in_force.epoch + 1, fresh.policy_version, texts, by, shared.name, now)
        is_done = await shared.sets.replace(wanted)
        if is_done:
            self._set(fresh, wanted)
        return is_done

    def _set(self, policies: PolicySet, present: StoredPolicySet) -> None:
        self.in_force, self._trouble = present, ""
        self._fleet.set_policies(policies)
        self._fleet.policy_epoch = present.epoch

    async def check_blast_radius(self, fresh: PolicySet, anyway: str) -> None:
        """Checks how many devices policies would contain; `anyway` is the command that puts them in force nevertheless.

        Raises:
            PolicyTooBroadError: they would contain too many.
        """
        fleet = self._fleet
        limit = fleet.guards.radius.bounds.limit(fleet.size)
        if fleet.guards.radius.bounds.is_unlimited or not fleet.size:
            return
        named: list[str] = []
        found = 0
        async for page in preview(fleet, self._store, fresh):
            named += [one.device_id for one in page.changes if one.contains][: _NAMED - len(named)]
            found = page.tally.contains
        if found > limit:
            raise PolicyTooBroadError(
                f"these policies would contain {found} of {fleet.size} devices, and [guards] lets {limit} be "
                f"contained at once ({', '.join(named)}{', ...' if found > len(named) else ''}): see them with "
                f"`cordon policy preview`, put a rule into shadow mode, or take them all the same with `{anyway}`"
            )

    def request_reload(self) -> None:
        """Requests a reload; for signal handlers."""
        self._requested.set()

    async def run(self) -> None:
        """Until cancelled: reloads on request, and follows other controllers; policies with mistakes change nothing."""
        told = ""
        while True:
            try:
                async with asyncio.timeout(None if self._shared is None else FOLLOW_EVERY):
                    await self._requested.wait()
            except TimeoutError:
                told = await self._follow_or_tell(told)
                continue
            self._requested.clear()
            if self._shared is not None and not self._shared.leads():
                self._log("policies not loaded: the files of the controller that leads count", {})
                continue
            try:
                await self.reload()
            except ControllerError as e:
                self._log("policies not loaded, the old ones stay", {"alert": True, "error": str(e)})

    async def _follow_or_tell(self, told: str) -> str:
        """Returns what was logged of a failure, which is logged once."""
        try:
            await self.follow()
        except PolicyError:
            return ""  # it was logged, once
        except ControllerError as e:
            if str(e) != told:
                self._log("policies of another controller not loaded", {"alert": True, "error": str(e)})
            return str(e)
        return ""
