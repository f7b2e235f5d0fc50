"""The store of rollouts, and the targets that they install."""

from collections.abc import Sequence
from typing import Protocol

from controller.domain.rollout.model import Rollout, RolloutMember, RolloutTarget
from controller.ports.errors import ControllerError
from controller.ports.store import StoreWrites


class TargetError(ControllerError):
    """There is no such target, or the repository cannot be read; the text says what to do."""


class RolloutStore(Protocol):
    """Rollouts and their devices, stored in one transaction with the writes that follow from them."""

    async def create(self, rollout: Rollout, members: Sequence[RolloutMember], writes: StoreWrites) -> None:
        """Stores a new rollout with all its devices, and `writes`.

        Raises:
            StoreError: it cannot be stored, or the id exists.
        """
        ...

    async def keep(self, rollout: Rollout, members: Sequence[RolloutMember], writes: StoreWrites) -> None:
        """Stores the rollout, its changed devices and `writes`, together or not at all."""
        ...

    def id_of(self, number: int) -> str:
        """The id of the rollout with this number."""
        ...

    async def next_number(self) -> int:
        """The number of the next rollout; numbers grow."""
        ...

    async def rollout(self, rollout_id: str) -> Rollout | None: ...

    async def rollouts(
        self, *, limit: int, is_open: bool = False, name: str | None = None, after: str | None = None
    ) -> Sequence[Rollout]:
        """Rollouts, newest first; with `is_open` those that have not ended, with `name` those of that target name.

        `after`: id of the rollout before the page.

        Raises:
            UnknownRowError: there is no rollout `after`.
        """
        ...

    async def unfinished_rollouts(self, *, limit: int) -> Sequence[Rollout]:
        """Rollouts that have not ended, and ended ones with devices that still have to go back, or may have to
        (`Rollout.is_followed`); newest first.
        """
        ...

    async def members(
        self,
        rollout_id: str,
        *,
        state: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> Sequence[RolloutMember]:
        """Devices of a rollout, ring by ring; all without `limit`. `after`: the device before the page.

        Raises:
            UnknownRowError: `after` is no device of the rollout.
        """
        ...


class RolloutTargets(Protocol):
    """The targets of the signed repository."""

    async def find(self, text: str) -> RolloutTarget:
        """Finds a target by `NAME/VERSION/FILE`, by `NAME/VERSION`, or by `NAME` in its newest version.

        Raises:
            TargetError: there is none, there are several, or it was withdrawn.
        """
        ...

    async def is_published(self, target: RolloutTarget) -> bool:
        """Whether exactly this target is still published.

        Raises:
            TargetError: the repository cannot be read.
        """
        ...
