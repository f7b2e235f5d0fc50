"""Sets the broker up, remembers what was before, takes it back; and says whether what was set up is still there."""

from collections.abc import Sequence
from dataclasses import replace

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.broker_setup import (
    BrokerSetup,
    DesiredSetup,
    SavedSetup,
    SavePreviousSetup,
    SettingChange,
    SetupPlan,
    SetupStore,
)
from controller.ports.clock import Clock
from controller.ports.errors import ControllerError
from controller.service.audit_log import AuditRecorder


class NothingToUndoError(ControllerError):
    """The broker was not set up by this controller, or it was taken back already."""


class SetupOperations:
    """One broker, one setup. `wanted` is what the configuration asks for, without what an operator asks by name."""

    def __init__(
        self, setup: BrokerSetup, kept: SetupStore, record: AuditRecorder, clock: Clock, wanted: DesiredSetup
    ) -> None:
        self._setup = setup
        self._kept = kept
        self._record_entry = record
        self._clock = clock
        self._wanted = wanted

    async def wanted(self, *, client_id: bool = False, deny_unmatched: bool = False) -> DesiredSetup:
        """What the broker is to be like, with what was asked for by name before."""
        kept = await self._kept.kept()
        return replace(
            self._wanted,
            client_id_from_certificate=client_id or (kept is not None and kept.client_id_from_certificate),
            deny_unmatched=deny_unmatched or (kept is not None and kept.deny_unmatched),
        )

    async def plan(self, *, client_id: bool = False, deny_unmatched: bool = False) -> SetupPlan:
        """What would change; nothing is written."""
        return await self._setup.plan(await self.wanted(client_id=client_id, deny_unmatched=deny_unmatched))

    async def apply(
        self, actor: str, *, client_id: bool = False, deny_unmatched: bool = False
    ) -> Sequence[SettingChange]:
        """Make the changes; what was before is durable ahead of the first one."""
        wanted = await self.wanted(client_id=client_id, deny_unmatched=deny_unmatched)
        made = await self._setup.apply(wanted, self._keep(wanted))
        if made:
            await self._record(AuditKind.BROKER_SETUP_APPLIED, actor, [change.what for change in made])
        return made

    async def plan_undo(self) -> Sequence[SettingChange]:
        """What taking it back would change.

        Raises:
            NothingToUndoError: there is nothing to take back.
        """
        return await self._setup.plan_undo((await self._before()).before)

    async def undo(self, actor: str) -> Sequence[str]:
        """Put everything back; what had to be left, in words.

        Raises:
            NothingToUndoError: there is nothing to take back.
        """
        left = await self._setup.undo((await self._before()).before)
        await self._kept.forget()
        await self._record(AuditKind.BROKER_SETUP_UNDONE, actor, list(left))
        return left

    # For the reconciler

    async def was_set_up(self) -> bool:
        """Whether this controller, or an earlier run of it, set the broker up."""
        return await self._kept.kept() is not None

    async def missing(self) -> Sequence[SettingChange]:
        """What of the setup is not there."""
        return await self._setup.changes(await self.wanted())

    async def repair(self) -> Sequence[SettingChange]:
        """Makes the changes that can do no harm; returns them."""
        wanted = await self.wanted()
        return await self._setup.apply(wanted, self._keep(wanted), safe_only=True)

    def _keep(self, wanted: DesiredSetup) -> SavePreviousSetup:
        async def keep(before: str) -> None:
            flags = (wanted.client_id_from_certificate, wanted.deny_unmatched)
            await self._kept.keep(SavedSetup(self._clock.now(), before, *flags))

        return keep

    async def _before(self) -> SavedSetup:
        kept = await self._kept.kept()
        if kept is None:
            raise NothingToUndoError("this controller has not set the broker up, or it was taken back already")
        return kept

    async def _record(self, kind: AuditKind, actor: str, what: list[str]) -> None:
        await self._record_entry(AuditEntry(kind, "", actor, detail={"what": what}))
