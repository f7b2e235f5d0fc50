"""Broker setup: plan, apply and undo; and whether the setup is still complete."""

import asyncio
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
from controller.service.own_clients import OwnClients


class NothingToUndoError(ControllerError):
    """The broker was not set up by this controller, or the setup was undone already."""


class SetupOperations:
    """The setup of one broker. `wanted` is that of the configuration, without an operator's options.

    `own`: the clients of all controllers, which get the same rules.
    """

    def __init__(
        self,
        setup: BrokerSetup,
        kept: SetupStore,
        record: AuditRecorder,
        clock: Clock,
        wanted: DesiredSetup,
        own: OwnClients | None = None,
    ) -> None:
        self._setup = setup
        self._kept = kept
        self._record_entry = record
        self._clock = clock
        self._own_wanted = wanted
        self._own = own or OwnClients.of(wanted.controller_id)
        self._changing = asyncio.Lock()  # an undo and a repair at the same time would leave some of both
        self._was_complete = False

    async def wanted(self, *, client_id: bool = False, deny_unmatched: bool = False) -> DesiredSetup:
        """The desired setup, with the options of earlier setups."""
        kept = await self._kept.kept()
        return replace(
            self._own_wanted,
            others=tuple(one for one in self._own.ids if one != self._own_wanted.controller_id),
            other_users=tuple(sorted(self._own.usernames - {self._own_wanted.username})),
            client_id_from_certificate=client_id or (kept is not None and kept.client_id_from_certificate),
            deny_unmatched=deny_unmatched or (kept is not None and kept.deny_unmatched),
        )

    async def plan(self, *, client_id: bool = False, deny_unmatched: bool = False) -> SetupPlan:
        """The changes that a setup would make; nothing is written."""
        return await self._setup.plan(await self.wanted(client_id=client_id, deny_unmatched=deny_unmatched))

    async def apply(
        self, actor: str, *, client_id: bool = False, deny_unmatched: bool = False
    ) -> Sequence[SettingChange]:
        """Makes the changes; the state before is stored ahead of the first one."""
        wanted = await self.wanted(client_id=client_id, deny_unmatched=deny_unmatched)
        async with self._changing:
            made = await self._setup.apply(wanted, self._keep(wanted))
        if made:
            await self._record(AuditKind.BROKER_SETUP_APPLIED, actor, [change.what for change in made])
        return made

    async def plan_undo(self) -> Sequence[SettingChange]:
        """The changes that an undo would make.

        Raises:
            NothingToUndoError: there is nothing to undo.
        """
        return await self._setup.plan_undo((await self._before()).before, tuple(self._own.ids))

    async def undo(self, actor: str) -> Sequence[str]:
        """Restores the state before; returns what could not be restored.

        Raises:
            NothingToUndoError: there is nothing to undo.
        """
        async with self._changing:
            before = await self._before()
            await self._kept.begin_undo()  # whatever happens from here on, the setup is not repaired
            self._was_complete = False
            left = await self._setup.undo(before.before, tuple(self._own.ids))
            await self._kept.forget()
        await self._record(AuditKind.BROKER_SETUP_UNDONE, actor, list(left))
        return left

    # For the reconciler

    async def was_set_up(self) -> bool:
        """Whether the setup was complete once, in this or an earlier run, and no undo was requested since."""
        kept = await self._kept.kept()
        return self._was_complete if kept is None else not kept.undoing

    async def missing(self) -> Sequence[SettingChange]:
        """The changes that are needed to complete the setup; empty also while settings are being changed."""
        if self._changing.locked():
            return ()
        async with self._changing:
            changes = await self._setup.changes(await self.wanted())
            self._was_complete = self._was_complete or not changes
        return changes

    async def repair(self) -> Sequence[SettingChange]:
        """Makes the changes that can do no harm; returns them, none if the setup was undone meanwhile."""
        async with self._changing:
            if not await self.was_set_up():
                return ()
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
