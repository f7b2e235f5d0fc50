"""Installs signed updates: verify, stage, install, check health, confirm; or roll back, whatever interrupts it.

Each step is written down before it is taken (`updates.ledger`), so that the next start continues after a kill or a
power loss: an update that modified nothing begins again, any other is finished or rolled back.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from device_agent.errors import JournalError, StoppedError
from device_agent.host.clock import Clock
from device_agent.host.execute import ExecuteError
from device_agent.updates.consent import ConsentStore
from device_agent.updates.download_folder import DownloadFolder
from device_agent.updates.errors import UpdateError, outcome_for
from device_agent.updates.health import check_health, wait_until_healthy
from device_agent.updates.installers.base import TargetInstaller, VerifiedArtifact, restart_service
from device_agent.updates.ledger import UpdateLedger, UpdateProgressCallback
from device_agent.updates.leftovers import UpdateLeftovers
from device_agent.updates.order_time import OrderTime
from device_agent.updates.records import UpdateRecord, UpdateRecordStore, UpdateTransaction
from device_agent.updates.requirements import DeviceProfile, check_compatibility, check_requirements, check_space
from device_agent.updates.running_release import runs_already, with_found_release
from device_agent.updates.tuf_client import TufClient
from schemas.base import clean_text
from schemas.updates import (
    InstallerKind,
    InstallParams,
    RollbackPolicy,
    UpdatePhase,
    UpdateProgress,
    UpdateRefusalCode,
    UpdateTarget,
)

RESTART_SECONDS: Final = 600.0  # for a requested restart
MAX_RESTARTS: Final = 3  # requested without effect
HEALTH_SECONDS: Final = 10.0  # for the health check of what is installed
_PROGRESS_PERCENT: Final = 10
_log = logging.getLogger(__name__)


class Updater:
    """Runs one update at a time.

    Raises:
        UpdateError: from every method, with the reason.
        JournalError: from every method, when a record cannot be read or written.
        StoppedError: the agent stops; the update continues at the next start.
    """

    def __init__(
        self,
        device: DeviceProfile,
        tuf_client: TufClient,
        installers: Mapping[InstallerKind, TargetInstaller],
        clock: Clock,
        stopping: threading.Event,
        *,
        crash_point: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """`crash_point` gets the name of each step before it is taken."""
        self.device = device
        self.tuf_client = tuf_client
        self._installers = installers
        self._clock = clock
        self._stopping = stopping
        self._crash_point = crash_point
        self.ledger = UpdateLedger(UpdateRecordStore(device.folder / "records"), clock, crash_point)
        self.consent = ConsentStore(device.folder / "consent")
        self._downloads = DownloadFolder(device.folder / "downloads")
        self._leftovers = UpdateLeftovers(self.ledger, self._downloads, installers)
        self._order_time: OrderTime | None = None

    def install(self, order: InstallParams, command_id: str, on_progress: UpdateProgressCallback) -> None:
        """Brings an update to `health_ok`; continues where an earlier run of the same command stopped."""
        record = self.ledger.load(order.name)
        transaction = record.transaction
        if transaction is None and record.command_id == command_id:
            # The update ended, and the agent was killed before its result was recorded.
            if record.outcome is UpdatePhase.CONFIRMED:
                return
            raise UpdateError(record.code or UpdateRefusalCode.OTHER, record.reason)
        if transaction is not None and transaction.command_id != command_id and transaction.system_modified:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{order.name}: another update is running")
        if transaction is None or transaction.command_id != command_id:
            transaction = UpdateTransaction(command_id=command_id, order=order)
            record = self.ledger.save(record, transaction)
        if transaction.rolling_back:
            raise UpdateError(transaction.code or UpdateRefusalCode.OTHER, transaction.reason)
        if transaction.phase is UpdatePhase.CONFIRMED:
            self.confirm(order.name)
            return
        time = self._time_of(order)
        try:
            _check_deadline(time)
            if not transaction.system_modified:
                record = self._prepare(record, order, time, on_progress)
        except UpdateError as e:
            raise time.explain(e) from e
        self._check_health(self._install(record, on_progress), order, on_progress)

    def is_installed_and_healthy(self, order: InstallParams) -> bool:
        """Returns whether the version is installed and passed its health check."""
        record = self.ledger.load(order.name)
        transaction = record.transaction
        if transaction is None:
            is_healthy = record.outcome is UpdatePhase.CONFIRMED
        else:
            is_healthy = transaction.phase is UpdatePhase.HEALTH_OK
        return is_healthy and self.installed(record) == order.version

    def broker_timeout_seconds(self, order: InstallParams) -> float:
        """Returns how long reaching the broker with the new version may take; 0: it is not required."""
        transaction = self.ledger.load(order.name).transaction
        if transaction is None or transaction.target is None or not transaction.target.health.broker:
            return 0.0
        left = self._time_of(order).monotonic_seconds_left
        return max(1.0, min(left, float(transaction.target.health.seconds)))

    def confirm(self, name: str) -> None:
        """Makes the new version permanent."""
        record = self.ledger.load(name)
        transaction = record.transaction
        if transaction is None or transaction.target is None or transaction.release is None:
            return
        installer = self._installer(transaction.target.installer)
        # The decision first: after a power loss it is carried out, also past the deadline.
        record = self.ledger.save(record, transaction.model_copy(update={"phase": UpdatePhase.CONFIRMED}))
        self._crash_point("confirm:before")
        installer.confirm(transaction.target)
        self._crash_point("confirm:installer")
        new = transaction.release
        previous = record.previous if record.current_version == new.version else record.current
        record = record.model_copy(update={"current": new, "previous": previous})
        record = self._finish(record, UpdatePhase.CONFIRMED, None, "")
        self._crash_point("confirm:recorded")
        self._leftovers.prune(record)

    def roll_back(self, name: str, failure: UpdateError) -> str:
        """Undoes what a failed update changed; returns the outcome in words."""
        record = self.ledger.load(name)
        transaction = record.transaction
        if transaction is None:
            return "nothing is left to undo"
        if not transaction.system_modified or transaction.target is None:
            record = self._finish(record, outcome_for(failure.code), failure.code, str(failure))
            self._leftovers.remove()
            return "nothing was changed"
        if transaction.target.rollback is RollbackPolicy.NEVER and transaction.order is not None:
            self._finish(record, UpdatePhase.BROKEN, failure.code, str(failure))
            return "it stays, because the update excludes a rollback"
        if not transaction.rolling_back:
            more = {"rolling_back": True, "code": failure.code, "reason": clean_text(str(failure)), "attempts": 0}
            record = self.ledger.save(record, transaction.model_copy(update=more))
        return self._roll_back(record)

    def begin_rollback(self, name: str, version: str, command_id: str) -> None:
        """Records an ordered rollback from this version; repeating it for the same command changes nothing."""
        record = self.ledger.load(name)
        last_command_id = record.transaction.command_id if record.transaction is not None else record.command_id
        if last_command_id == command_id:
            return
        if record.transaction is not None or record.current is None or record.current.version != version:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{name} {version} is not installed")
        if record.current.target is None or record.previous is None:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{name}: there is no version before {version}")
        transaction = UpdateTransaction(
            command_id=command_id,
            target=record.current.target,
            tree_digest=record.current.tree_digest,
            system_modified=True,
            rolling_back=True,
            reason="it was ordered",
        )
        # `_roll_back` returns to the current release: from here on that is the previous one.
        self.ledger.save(record.model_copy(update={"current": record.previous, "previous": None}), transaction)

    def finish_rollback(self, name: str) -> str:
        """Rolls back as `begin_rollback` recorded; returns the outcome in words."""
        record = self.ledger.load(name)
        return "nothing is left to undo" if record.transaction is None else self._roll_back(record)

    def recover(self, unfinished: frozenset[str]) -> None:
        """Rolls back updates that none of the commands with these ids continues, and removes leftovers."""
        for name in self.ledger.names():
            try:
                transaction = self.ledger.load(name).transaction
                if transaction is not None and transaction.command_id not in unfinished:
                    self.roll_back(name, UpdateError(UpdateRefusalCode.INTERRUPTED, "its command no longer exists"))
            except (UpdateError, JournalError) as e:
                # The report has the failure too; it must not stop the other updates or the agent.
                _log.error("%s cannot be recovered: %s", name, e)
        self._leftovers.remove()

    def installed(self, record: UpdateRecord) -> str:
        """Returns the version that its installer finds on the system; empty: none, or an incomplete one."""
        transaction = record.transaction
        is_new = transaction is not None and transaction.system_modified and not transaction.rolling_back
        release = transaction.release if transaction is not None and is_new else record.current
        return "" if release is None else self._installer(release.installer).installed(record.name, release)

    def health(self, record: UpdateRecord) -> tuple[str, str]:
        """Returns `ok`, `failed` or `unknown` for the installed version, and the reason."""
        target = record.current.target if record.current is not None else None
        if target is None or target.health.is_empty:
            return "unknown", "it has no health check of its own"
        installer = self._installer(target.installer)
        seconds = min(HEALTH_SECONDS, float(target.health.seconds))
        problem = check_health(target, lambda name: installer.resolve_program(target, name), seconds)
        return ("failed", problem) if problem else ("ok", "")

    def progress(self, name: str) -> UpdateProgress:
        """Returns the state of the running, or else the last, update of a name."""
        return self.ledger.progress(name)

    def _prepare(
        self, record: UpdateRecord, order: InstallParams, time: OrderTime, on_progress: UpdateProgressCallback
    ) -> UpdateRecord:
        """Takes the steps that modify nothing: verification, requirements, consent, download, staging."""
        name = order.name
        record = self.ledger.record_phase(record, UpdatePhase.OFFERED, on_progress)
        verified = self.tuf_client.get_verified_target(order, time)
        target = verified.target
        installer = self._installer(target.installer)
        if record.current is None or installer.has_slots:
            record = with_found_release(record, target.installer, installer.installed(name, None))
        check_compatibility(target, self.device)
        required = {other for requirement in target.requires if (other := requirement.what.partition(":")[2])}
        records = {other: record if other == name else self.ledger.load(other) for other in required}
        versions = {other: self.installed(found) for other, found in records.items()}
        installers = {other: found.current.installer for other, found in records.items() if found.current is not None}
        check_requirements(target, self.device, versions, installers)
        self._leftovers.remove(order)
        missing = order.length - self._downloads.present_bytes(order)
        check_space(self.device.folder, missing + target.installed_bytes, f"{name} {order.version}")
        if order.ask_user or self.device.ask_user:
            record = self._wait_for_consent(record, order, time, on_progress)
        record = self.ledger.record_phase(record, UpdatePhase.DOWNLOADING, on_progress)
        file = self._downloads.path(order)
        verified.download(file, self._download_progress(record, order, time, on_progress), self._crash_point)
        record = self.ledger.record_phase(record, UpdatePhase.VERIFIED, on_progress)
        tree_digest = installer.stage(VerifiedArtifact(target, file))
        self._crash_point("staged:before")
        assert record.transaction is not None
        more = {"target": target, "tree_digest": tree_digest, "system_modified": True}
        record = record.model_copy(update={"transaction": record.transaction.model_copy(update=more)})
        return self.ledger.record_phase(record, UpdatePhase.STAGED, on_progress)

    def _install(self, record: UpdateRecord, on_progress: UpdateProgressCallback) -> UpdateRecord:
        transaction, target = _running(record)
        assert transaction.order is not None
        installer = self._installer(target.installer)
        if transaction.phase is UpdatePhase.STAGED:
            if transaction.attempts and not installer.is_repeatable:
                raise UpdateError(UpdateRefusalCode.INTERRUPTED, "the device lost power during the installation")
            if installer.has_slots:
                if runs_already(record, target, installer.installed(record.name, None)):
                    # No restart either: on trial, the boot loader could take the next one for a failure.
                    return self.ledger.record_phase(record, UpdatePhase.RESTARTING, on_progress)
                record = record.model_copy(update={"previous": None})  # its slot is overwritten
            record = self.ledger.save(record, transaction.model_copy(update={"attempts": 1}))
            self._crash_point("install:before")
            file = self._downloads.path(transaction.order)
            installer.install(VerifiedArtifact(target, file, transaction.tree_digest))
            self._crash_point("install:after")
            record = self.ledger.record_phase(record, UpdatePhase.INSTALLED, on_progress)
        if installer.needs_restart(target):
            return self._restart_if_needed(record, installer, on_progress)
        restart_service(target)
        return record

    def _restart_if_needed(
        self, record: UpdateRecord, installer: TargetInstaller, on_progress: UpdateProgressCallback
    ) -> UpdateRecord:
        """Restarts unless that has happened; this process ends with the restart."""
        transaction, _ = _running(record)
        was_requested = transaction.phase is not UpdatePhase.INSTALLED
        if was_requested and transaction.restart_id != installer.restart_id:
            return record
        attempts = transaction.attempts if was_requested else 0
        if attempts >= MAX_RESTARTS:
            text = f"{attempts} requests for a restart had no effect"
            raise UpdateError(UpdateRefusalCode.INSTALL, text)
        more = {"restart_id": installer.restart_id, "attempts": attempts + 1}
        record = record.model_copy(update={"transaction": transaction.model_copy(update=more)})
        self.ledger.record_phase(record, UpdatePhase.RESTARTING, on_progress)
        self._restart(installer)
        raise StoppedError

    def _restart(self, installer: TargetInstaller) -> None:
        try:
            installer.restart()
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"the restart was refused: {e}") from e
        self._stopping.wait(RESTART_SECONDS)

    def _check_health(self, record: UpdateRecord, order: InstallParams, on_progress: UpdateProgressCallback) -> None:
        _, target = _running(record)
        installer = self._installer(target.installer)
        version = self.installed(record)
        if version != order.version:
            text = f"{order.version} was installed, but {version or 'no complete version'} is there"
            raise UpdateError(UpdateRefusalCode.INSTALL, text)
        self._crash_point("health:before")
        seconds = max(0.1, min(float(target.health.seconds), self._time_of(order).monotonic_seconds_left))
        problem = wait_until_healthy(
            target, lambda name: installer.resolve_program(target, name), seconds, self._stopping
        )
        if self._stopping.is_set():
            raise StoppedError
        if problem:
            raise UpdateError(UpdateRefusalCode.HEALTH, f"{order.version} is not healthy: {problem}")
        self._crash_point("health:after")
        self.ledger.record_phase(record, UpdatePhase.HEALTH_OK, on_progress)

    def _roll_back(self, record: UpdateRecord) -> str:
        transaction, target = _running(record)
        installer = self._installer(target.installer)
        expected, code, reason = record.current_version, transaction.code, transaction.reason
        try:
            self._crash_point("back:before")
            # A version of another installer was not touched: what failed is removed.
            before = installer if record.current is None else self._installer(record.current.installer)
            installer.roll_back(target, record.current if before is installer else None)
            self._crash_point("back:after")
            version = before.installed(record.name, record.current)
            if version != expected and installer.needs_restart(target) and transaction.attempts < MAX_RESTARTS:
                self.ledger.save(record, transaction.model_copy(update={"attempts": transaction.attempts + 1}))
                self._restart(installer)
                raise StoppedError
            restart_service(target)
        except UpdateError as e:
            self._finish(record, UpdatePhase.BROKEN, code, f"{reason}; and the rollback failed: {e}")
            return f"and the rollback failed: {e}"
        if version != expected:
            text = f"{expected or 'nothing'} should be installed again, but {version or 'no complete version'} is"
            self._finish(record, UpdatePhase.BROKEN, code, f"{reason}; {text}")
            return text
        record = self._finish(record, UpdatePhase.ROLLED_BACK, code, reason)
        self._crash_point("back:recorded")
        self._leftovers.prune(record)
        return f"{expected} is installed again" if expected else "it was removed again"

    def _wait_for_consent(
        self, record: UpdateRecord, order: InstallParams, time: OrderTime, on_progress: UpdateProgressCallback
    ) -> UpdateRecord:
        assert record.transaction is not None
        command_id = record.transaction.command_id
        self.consent.request(order.name, order.version, command_id, order.deadline)
        record = self.ledger.record_phase(record, UpdatePhase.WAITING, on_progress)
        self.consent.wait_for(order.name, command_id, time, self._stopping)
        return record

    def _download_progress(
        self, record: UpdateRecord, order: InstallParams, time: OrderTime, on_progress: UpdateProgressCallback
    ) -> Callable[[int], None]:
        reported = 0

        def on_bytes(count: int) -> None:
            nonlocal reported
            _check_deadline(time)
            percent = min(100, count * 100 // max(1, order.length))
            if percent >= reported + _PROGRESS_PERCENT:
                reported = percent
                self.ledger.report_progress(record, UpdatePhase.DOWNLOADING, on_progress, percent)

        return on_bytes

    def _time_of(self, order: InstallParams) -> OrderTime:
        if self._order_time is None or self._order_time.deadline != order.deadline:
            self._order_time = OrderTime(order.deadline, self._clock)
        return self._order_time

    def _finish(
        self, record: UpdateRecord, outcome: UpdatePhase, code: UpdateRefusalCode | None, reason: str
    ) -> UpdateRecord:
        record = self.ledger.record_outcome(record, outcome, code, reason)
        self.consent.clear(record.name)
        return record

    def _installer(self, kind: InstallerKind) -> TargetInstaller:
        installer = self._installers.get(kind)
        if installer is None:
            raise UpdateError(UpdateRefusalCode.NOT_FOR_THIS_DEVICE, f"{kind} is not set up on this device")
        return installer


def _check_deadline(time: OrderTime) -> None:
    if time.seconds_left <= 0:
        raise UpdateError(UpdateRefusalCode.DEADLINE, f"the deadline {time.deadline.isoformat()} has passed")


def _running(record: UpdateRecord) -> tuple[UpdateTransaction, UpdateTarget]:
    assert record.transaction is not None
    assert record.transaction.target is not None
    return record.transaction, record.transaction.target
