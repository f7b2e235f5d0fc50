"""What rollouts need to survive, and where what they roll out is looked up."""

from collections.abc import Sequence
from typing import Protocol

from controller.domain.rollout.model import Rollout, RolloutMember, RolloutTarget
from controller.ports.errors import ControllerError
from controller.ports.store import StoreWrites


class TargetError(ControllerError):
    """There is no such target, or the repository cannot be read; the text says which and what to do."""


class RolloutStore(Protocol):
    """Rollouts and their devices, kept in one transaction with what follows from them."""

    async def create(self, rollout: Rollout, members: Sequence[RolloutMember], writes: StoreWrites) -> None:
        """Keep a new rollout with all its devices, and `writes`.

        Raises:
            StoreError: it cannot be kept, or there is one of that id.
        """
        ...

    async def keep(self, rollout: Rollout, members: Sequence[RolloutMember], writes: StoreWrites) -> None:
        """Keep the rollout, those of its devices that changed, and `writes`: together or not at all."""
        ...

    def id_of(self, number: int) -> str:
        """The id of the rollout with this number."""
        ...

    async def next_number(self) -> int:
        """The number of the next rollout; they grow."""
        ...

    async def rollout(self, rollout_id: str) -> Rollout | None:
        """One rollout."""
        ...

    async def rollouts(self, *, limit: int, is_open: bool = False, name: str | None = None) -> Sequence[Rollout]:
        """The newest ones, newest first; with `is_open` those that have not ended, with `name` those of it."""
        ...

    async def members(
        self, rollout_id: str, *, state: str | None = None, limit: int | None = None, offset: int = 0
    ) -> Sequence[RolloutMember]:
        """Devices of a rollout, ring by ring; all of them without `limit`."""
        ...


class RolloutTargets(Protocol):
    """The signed repository as far as rollouts look at it."""

    async def find(self, text: str) -> RolloutTarget:
        """The one target that `text` means: `NAME/VERSION/FILE`, `NAME/VERSION`, or `NAME` for its newest version.

        Raises:
            TargetError: there is none, there are several, or it was withdrawn.
        """
        ...
