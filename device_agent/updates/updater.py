"""Puts updates in place: verified, staged, swapped, looked at, confirmed; or put back, whatever happens in between.

Each step is written down before it is taken (`updates.ledger`), so that after a kill or a power loss the next start
goes on from there: an update that changed nothing yet begins again, one that did is finished or put back.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from device_agent.errors import JournalError, StoppedError
from device_agent.host.clock import Clock
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System
from device_agent.updates import requirements
from device_agent.updates.consent import ConsentStore
from device_agent.updates.errors import UpdateError, end_of
from device_agent.updates.health import look, wait_until_healthy
from device_agent.updates.installers.base import TargetInstaller, VerifiedArtifact, restart_service
from device_agent.updates.ledger import UpdateLedger, UpdateProgressCallback
from device_agent.updates.records import InstalledRelease, UpdateRecord, UpdateRecordStore, UpdateTransaction
from device_agent.updates.tuf_client import TufClient
from schemas.base import clean_text
from schemas.updates import InstallerKind as Word
from schemas.updates import (
    InstallParams,
    RollbackPolicy,
    UpdatePhase,
    UpdateProgress,
    UpdateRefusalCode,
)

CONSENT_SECONDS: Final = 1.0  # between two looks for an answer
RESTART_SECONDS: Final = 600.0  # for a restart that was asked for
MAX_RESTARTS: Final = 3  # that are asked for and do not come
LOOK_SECONDS: Final = 10.0  # for the health of what is in place
# After these the same update may be ordered again, and its download goes on where it was.
_MAY_GO_ON: Final = frozenset(
    {UpdateRefusalCode.UNREACHABLE, UpdateRefusalCode.DEADLINE, UpdateRefusalCode.INTERRUPTED}
)
_TELL_PERCENT: Final = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What this device is to updates; `folder`: where everything about them is kept."""

    device_class: str
    hardware: tuple[str, ...]
    ask_user: bool
    folder: Path
    system: System


class Updater:
    """One update at a time; its methods raise UpdateError with the reason, or StoppedError when the agent stops."""

    def __init__(
        self,
        device: DeviceProfile,
        trust: TufClient,
        installers: Mapping[Word, TargetInstaller],
        clock: Clock,
        stopping: threading.Event,
        *,
        step: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """Put it together; `step` hears the name of each step before it is taken."""
        self.device = device
        self.trust = trust
        self._installers = installers
        self._clock = clock
        self._stopping = stopping
        self._step = step
        self.ledger = UpdateLedger(UpdateRecordStore(device.folder / "records"), clock, step)
        self.consent = ConsentStore(device.folder / "consent")

    def install(self, order: InstallParams, command_id: str, tell: UpdateProgressCallback) -> None:
        """Bring the update as far as `health_ok`; goes on where an earlier run of the same command was."""
        record = self.ledger.load(order.name)
        under_way = record.transaction
        if under_way is None and record.command_id == command_id:
            # It ended, and the agent was killed before the end was told.
            if record.outcome is UpdatePhase.CONFIRMED:
                return
            raise UpdateError(record.code or UpdateRefusalCode.OTHER, record.reason)
        if under_way is not None and under_way.command_id != command_id and under_way.changing:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{order.name}: another update is under way")
        if under_way is None or under_way.command_id != command_id:
            under_way = UpdateTransaction(command_id=command_id, order=order)
            record = self.ledger.save(record, under_way)
        if under_way.going_back:
            raise UpdateError(under_way.code or UpdateRefusalCode.OTHER, under_way.reason)
        if self._clock.now() >= order.deadline:
            raise UpdateError(UpdateRefusalCode.DEADLINE, f"it was to be confirmed by {order.deadline.isoformat()}")
        if not under_way.changing:
            record = self._make_ready(record, order, tell)
        self._look(self._put_in_place(record, tell), order, tell)

    def is_reached(self, order: InstallParams) -> bool:
        """Whether the version is really there, and was found healthy."""
        record = self.ledger.load(order.name)
        transaction = record.transaction
        well = record.outcome if transaction is None else transaction.phase
        is_well = well is (UpdatePhase.CONFIRMED if transaction is None else UpdatePhase.HEALTH_OK)
        return is_well and self.installed(record) == order.version

    def broker_seconds(self, order: InstallParams) -> float:
        """How long the broker may take to be reached with the new version; 0: it need not be."""
        transaction = self.ledger.load(order.name).transaction
        if transaction is None or transaction.target is None or not transaction.target.health.broker:
            return 0.0
        left = (order.deadline - self._clock.now()).total_seconds()
        return max(1.0, min(left, float(transaction.target.health.seconds)))

    def confirm(self, name: str) -> None:
        """The new version stays."""
        record = self.ledger.load(name)
        transaction = record.transaction
        if transaction is None or transaction.target is None or transaction.release is None:
            return
        installer = self._installer(transaction.target.installer)
        self._step("confirm:before")
        installer.confirm(transaction.target)
        self._step("confirm:installer")
        fresh = transaction.release
        is_same = record.current is not None and record.current.version == fresh.version
        previous = record.previous if is_same else record.current
        record = record.model_copy(update={"current": fresh, "previous": previous})
        record = self._end(record, UpdatePhase.CONFIRMED, None, "")
        self._step("confirm:recorded")
        self._tidy(record, installer)

    def undo(self, name: str, failure: UpdateError) -> str:
        """Put back what an update that failed has changed; says in words what came of it."""
        record = self.ledger.load(name)
        transaction = record.transaction
        if transaction is None:
            return "that is settled"
        if not transaction.changing or transaction.target is None:
            record = self._end(record, end_of(failure.code), failure.code, str(failure))
            if failure.code not in _MAY_GO_ON:
                self._forget_downloads(record)
            return "nothing was changed"
        if transaction.target.rollback is RollbackPolicy.NEVER and transaction.order is not None:
            self._end(record, UpdatePhase.BROKEN, failure.code, str(failure))
            return "it stays, because the update asks for no way back"
        if not transaction.going_back:
            more = {"going_back": True, "code": failure.code, "reason": clean_text(str(failure)), "tries": 0}
            record = self.ledger.save(record, transaction.model_copy(update=more))
        return self._put_back(record)

    def begin_going_back(self, name: str, version: str, command_id: str) -> None:
        """Write down that going back from this version was ordered; once, whatever happens in between."""
        record = self.ledger.load(name)
        ours = record.transaction.command_id if record.transaction is not None else record.command_id
        if ours == command_id:
            return
        if record.transaction is not None or record.current is None or record.current.version != version:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{name} {version} is not what is in place")
        if record.current.target is None or record.previous is None:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{name}: there is no version before {version}")
        back = UpdateTransaction(
            command_id=command_id,
            target=record.current.target,
            tree=record.current.tree,
            changing=True,
            going_back=True,
            reason="it was ordered",
        )
        # The version before counts as the current one from here on: that is what `_put_back` goes back to.
        self.ledger.save(record.model_copy(update={"current": record.previous, "previous": None}), back)

    def finish_going_back(self, name: str) -> str:
        """Go back as `begin_going_back` wrote down."""
        record = self.ledger.load(name)
        return "that is settled" if record.transaction is None else self._put_back(record)

    def settle(self, unfinished: frozenset[str]) -> None:
        """Put back what no command asks for any more: `unfinished` are those that will go on."""
        for name in self.ledger.names():
            try:
                transaction = self.ledger.load(name).transaction
                if transaction is not None and transaction.command_id not in unfinished:
                    self.undo(name, UpdateError(UpdateRefusalCode.INTERRUPTED, "the command that asked for it is gone"))
            except (UpdateError, JournalError) as e:
                # The report tells it too; the others, and the agent, must not suffer for it.
                _log.error("%s cannot be settled: %s", name, e)

    def installed(self, record: UpdateRecord) -> str:
        """The version that is really there, as its installer finds it; empty: none, or not whole."""
        transaction = record.transaction
        is_new = transaction is not None and transaction.changing and not transaction.going_back
        release = transaction.release if transaction is not None and is_new else record.current
        return "" if release is None else self._installer(release.by).installed(record.name, release)

    def health(self, record: UpdateRecord) -> tuple[str, str]:
        """`ok`, `failed` or `unknown` of what is in place now, and why."""
        target = record.current.target if record.current is not None else None
        if target is None or target.health.is_empty:
            return "unknown", "it has no health check of its own"
        installer = self._installer(target.installer)
        seconds = min(LOOK_SECONDS, float(target.health.seconds))
        wrong = look(target, lambda name: installer.program(target, name), seconds)
        return ("failed", wrong) if wrong else ("ok", "")

    def progress(self, name: str) -> UpdateProgress:
        """How the last, or the present, update of a name stands."""
        return self.ledger.progress(name)

    def _make_ready(self, record: UpdateRecord, order: InstallParams, tell: UpdateProgressCallback) -> UpdateRecord:
        """Everything that changes nothing yet: verification, requirements, consent, download, staging."""
        name, folder = order.name, self.device.folder
        record = self.ledger.phase(record, UpdatePhase.OFFERED, tell)
        trusted = self.trust.find(order)
        target = trusted.target
        installer = self._installer(target.installer)
        if record.current is None and (version := installer.installed(name, None)):
            # It was there before any update: that is what going back means.
            record = record.model_copy(update={"current": InstalledRelease(version=version, by=target.installer)})
        requirements.check_device(target, self.device.device_class, self.device.hardware)
        asked = {what for one in target.requires if (what := one.what.partition(":")[2])}
        versions = {one: self.installed(record if one == name else self.ledger.load(one)) for one in asked}
        requirements.check_requirements(target, self.device.system, folder, versions)
        requirements.check_space(folder, order.length + target.installed_bytes, f"{name} {order.version}")
        if order.ask_user or self.device.ask_user:
            record = self._wait_for_person(record, order, tell)
        record = self.ledger.phase(record, UpdatePhase.DOWNLOADING, tell)
        file = self._file(order)
        trusted.download(file, self._percent(record, order, tell), self._step)
        record = self.ledger.phase(record, UpdatePhase.VERIFIED, tell)
        tree = installer.stage(VerifiedArtifact(target, file))
        self._step("staged:before")
        assert record.transaction is not None
        ready = record.transaction.model_copy(update={"target": target, "tree": tree, "changing": True})
        return self.ledger.phase(record.model_copy(update={"transaction": ready}), UpdatePhase.STAGED, tell)

    def _put_in_place(self, record: UpdateRecord, tell: UpdateProgressCallback) -> UpdateRecord:
        transaction = record.transaction
        assert transaction is not None
        assert transaction.target is not None
        assert transaction.order is not None
        target, installer = transaction.target, self._installer(transaction.target.installer)
        if transaction.phase is UpdatePhase.STAGED:
            if transaction.tries and not installer.is_repeatable:
                raise UpdateError(UpdateRefusalCode.INTERRUPTED, "power was lost while it was put in place")
            record = self.ledger.save(record, transaction.model_copy(update={"tries": 1}))
            self._step("install:before")
            installer.install(VerifiedArtifact(target, self._file(transaction.order), transaction.tree))
            self._step("install:after")
            record = self.ledger.phase(record, UpdatePhase.INSTALLED, tell)
        if installer.needs_restart(target):
            return self._restarted(record, installer, tell)
        restart_service(target)
        return record

    def _restarted(
        self, record: UpdateRecord, installer: TargetInstaller, tell: UpdateProgressCallback
    ) -> UpdateRecord:
        """Start anew, unless that has been done; this process does not come back from it."""
        transaction = record.transaction
        assert transaction is not None
        is_asked = transaction.phase is not UpdatePhase.INSTALLED
        if is_asked and transaction.run_id != installer.run_id:
            return record
        asked = transaction.tries if is_asked else 0
        if asked >= MAX_RESTARTS:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"a restart was asked for {asked} times and did not come")
        marked = transaction.model_copy(update={"run_id": installer.run_id, "tries": asked + 1})
        self.ledger.phase(record.model_copy(update={"transaction": marked}), UpdatePhase.RESTARTING, tell)
        self._restart(installer)
        raise StoppedError

    def _restart(self, installer: TargetInstaller) -> None:
        try:
            installer.restart()
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"a restart was refused: {e}") from e
        self._stopping.wait(RESTART_SECONDS)

    def _look(self, record: UpdateRecord, order: InstallParams, tell: UpdateProgressCallback) -> None:
        transaction = record.transaction
        assert transaction is not None
        assert transaction.target is not None
        target, installer = transaction.target, self._installer(transaction.target.installer)
        there = self.installed(record)
        if there != order.version:
            text = f"{order.version} was put in place, and {there or 'nothing that is whole'} is there"
            raise UpdateError(UpdateRefusalCode.INSTALL, text)
        self._step("health:before")
        left = (order.deadline - self._clock.now()).total_seconds()
        seconds = max(0.1, min(float(target.health.seconds), left))
        wrong = wait_until_healthy(target, lambda name: installer.program(target, name), seconds, self._stopping)
        if self._stopping.is_set():
            raise StoppedError
        if wrong:
            raise UpdateError(UpdateRefusalCode.HEALTH, f"{order.version} is not healthy: {wrong}")
        self._step("health:after")
        self.ledger.phase(record, UpdatePhase.HEALTH_OK, tell)

    def _put_back(self, record: UpdateRecord) -> str:
        transaction = record.transaction
        assert transaction is not None
        assert transaction.target is not None
        target, installer = transaction.target, self._installer(transaction.target.installer)
        wanted = "" if record.current is None else record.current.version
        code, reason = transaction.code, transaction.reason
        try:
            self._step("back:before")
            installer.go_back(target, record.current)
            self._step("back:after")
            there = installer.installed(record.name, record.current)
            if there != wanted and installer.needs_restart(target) and transaction.tries < MAX_RESTARTS:
                self.ledger.save(record, transaction.model_copy(update={"tries": transaction.tries + 1}))
                self._restart(installer)
                raise StoppedError
            restart_service(target)
        except UpdateError as e:
            self._end(record, UpdatePhase.BROKEN, code, f"{reason}; and going back failed: {e}")
            return f"and going back failed: {e}"
        if there != wanted:
            text = f"{wanted or 'nothing'} was to be there again, and {there or 'nothing that is whole'} is"
            self._end(record, UpdatePhase.BROKEN, code, f"{reason}; {text}")
            return text
        record = self._end(record, UpdatePhase.ROLLED_BACK, code, reason)
        self._step("back:recorded")
        self._tidy(record, installer)
        return f"{wanted} is in place again" if wanted else "it was taken away again"

    def _wait_for_person(
        self, record: UpdateRecord, order: InstallParams, tell: UpdateProgressCallback
    ) -> UpdateRecord:
        assert record.transaction is not None
        command_id = record.transaction.command_id
        self.consent.ask(order.name, order.version, command_id, order.deadline)
        record = self.ledger.phase(record, UpdatePhase.WAITING, tell)
        while (agreed := self.consent.answered(order.name, command_id)) is None:
            if self._clock.now() >= order.deadline - timedelta(seconds=1):
                raise UpdateError(UpdateRefusalCode.DEADLINE, "nobody at the device agreed in time")
            if self._stopping.wait(CONSENT_SECONDS):
                raise StoppedError
        if not agreed:
            raise UpdateError(UpdateRefusalCode.DECLINED, "the person at the device said no")
        return record

    def _percent(
        self, record: UpdateRecord, order: InstallParams, tell: UpdateProgressCallback
    ) -> Callable[[int], None]:
        told = [0]

        def got(count: int) -> None:
            if self._clock.now() >= order.deadline:
                raise UpdateError(UpdateRefusalCode.DEADLINE, "the download took until the deadline")
            percent = min(100, count * 100 // max(1, order.length))
            if percent >= told[0] + _TELL_PERCENT:
                told[0] = percent
                self.ledger.tell(record, UpdatePhase.DOWNLOADING, tell, percent)

        return got

    def _end(
        self, record: UpdateRecord, outcome: UpdatePhase, code: UpdateRefusalCode | None, reason: str
    ) -> UpdateRecord:
        record = self.ledger.end(record, outcome, code, reason)
        self.consent.forget(record.name)
        return record

    def _tidy(self, record: UpdateRecord, installer: TargetInstaller) -> None:
        """Forget what nothing goes back to: older releases and downloads."""
        installer.tidy(record.name, tuple(one for one in (record.current, record.previous) if one is not None))
        self._forget_downloads(record)

    def _forget_downloads(self, record: UpdateRecord) -> None:
        """Keep only the files that going back needs."""
        held = [one for one in (record.current, record.previous) if one is not None]
        kept = {one.version for one in held if self._keeps_file(one)}
        place = self.device.folder / "downloads" / record.name
        for path in sorted(place.glob("*/*")) if place.is_dir() else ():
            if path.parent.name not in kept:
                path.unlink(missing_ok=True)

    def _file(self, order: InstallParams) -> Path:
        return self.device.folder / "downloads" / order.name / order.version / order.target.rsplit("/", 1)[-1]

    def _keeps_file(self, release: InstalledRelease) -> bool:
        installer = self._installers.get(release.by)
        return installer is None or installer.keeps_files

    def _installer(self, word: Word) -> TargetInstaller:
        installer = self._installers.get(word)
        if installer is None:
            raise UpdateError(UpdateRefusalCode.NOT_FOR_THIS_DEVICE, f"{word} is not set up on this device")
        return installer
