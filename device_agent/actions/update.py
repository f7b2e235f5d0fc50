"""`update.install` and `update.rollback`: signed updates as long-running actions over the updater."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from device_agent.actions.base import (
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    ProgressCallback,
    RemediationAction,
    Verification,
)
from device_agent.errors import JournalError
from device_agent.updates.errors import UpdateError
from device_agent.updates.records import UpdateRecord
from device_agent.updates.updater import Updater
from schemas.updates import InstallParams, RollbackParams, UpdatePhase, UpdateProgress, UpdateRefusalCode

_Model = TypeVar("_Model", bound=BaseModel)


class InstallUpdate:
    """`update.install`: installs a signed version; parameters are those of `schemas.updates.InstallParams`."""

    def __init__(self, updater: Updater) -> None:
        self._updater = updater

    def bind(self, command_id: str, on_progress: ProgressCallback) -> RemediationAction:
        return InstallRun(self._updater, command_id, on_progress)

    def recover(self, unfinished: frozenset[str]) -> None:
        self._updater.recover(unfinished)

    def result_detail(self, params: Params) -> Mapping[str, str]:
        return _result_detail(self._updater, _parse(InstallParams, params).name)


class InstallRun:
    """`update.install` for one command."""

    is_repeatable = True

    def __init__(self, updater: Updater, command_id: str, on_progress: ProgressCallback) -> None:
        self._updater = updater
        self._command_id = command_id
        self._on_progress = on_progress
        self._failure: UpdateError | None = None

    def check(self, params: Params) -> None:
        _parse(InstallParams, params)

    def plan(self, params: Params) -> ActionPlan:
        """Returns which version would replace which; nothing is downloaded."""
        order = _parse(InstallParams, params)
        record = _load_record(self._updater, order.name)
        with _as_action_errors():
            version = self._updater.installed(record)
        is_done = version == order.version and record.outcome is UpdatePhase.CONFIRMED and record.transaction is None
        phase = UpdatePhase.CONFIRMED if is_done else UpdatePhase.OFFERED
        progress = UpdateProgress(phase=phase, name=order.name, version=order.version, before=version)
        changes = f"verify {order.target} ({order.length} bytes) and install it in place of {version or 'nothing'}"
        return ActionPlan(progress.detail(), changes, is_needed=not is_done)

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Installs the version and waits until it is healthy."""
        del before
        self._failure = None
        try:
            self._updater.install(
                _parse(InstallParams, params),
                self._command_id,
                lambda progress: self._on_progress(progress.detail()),
            )
        except UpdateError as e:
            # A copy: the traceback of the original refers to this object, and to the connection of the download.
            self._failure = UpdateError(e.code, str(e))
            raise ActionError(str(e)) from e
        except JournalError as e:
            self._failure = UpdateError(UpdateRefusalCode.OTHER, str(e))
            raise ActionError(str(e)) from e

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Checks that the version is installed and healthy; confirms it unless the broker has to be reached."""
        del before
        order = _parse(InstallParams, params)
        with _as_action_errors():
            if not self._updater.is_installed_and_healthy(order):
                return Verification(False, _result_detail(self._updater, order.name))
            if not self._updater.broker_timeout_seconds(order):
                self._updater.confirm(order.name)
        return Verification(True)

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Rolls back to the former version."""
        del before
        failure = self._failure or UpdateError(
            UpdateRefusalCode.BROKER, "the broker was not reached with the new version"
        )
        with _as_action_errors():
            return self._updater.roll_back(_parse(InstallParams, params).name, failure)

    def broker_timeout_seconds(self, params: Params, before: Mapping[str, str]) -> float:
        del before
        return self._updater.broker_timeout_seconds(_parse(InstallParams, params))

    def commit(self, params: Params, before: Mapping[str, str]) -> None:
        """Confirms the version."""
        del before
        with _as_action_errors():
            self._updater.confirm(_parse(InstallParams, params).name)


class RollbackUpdate:
    """`update.rollback`: returns to the version before; parameters are those of `schemas.updates.RollbackParams`."""

    def __init__(self, updater: Updater) -> None:
        self._updater = updater

    def bind(self, command_id: str, on_progress: ProgressCallback) -> RemediationAction:
        del on_progress
        return RollbackRun(self._updater, command_id)

    def recover(self, unfinished: frozenset[str]) -> None:
        self._updater.recover(unfinished)

    def result_detail(self, params: Params) -> Mapping[str, str]:
        return _result_detail(self._updater, _parse(RollbackParams, params).name)


class RollbackRun:
    """`update.rollback` for one command."""

    is_repeatable = True

    def __init__(self, updater: Updater, command_id: str) -> None:
        self._updater = updater
        self._command_id = command_id

    def check(self, params: Params) -> None:
        _parse(RollbackParams, params)

    def plan(self, params: Params) -> ActionPlan:
        """Returns which version would return; needed only where the version to leave is installed."""
        order = _parse(RollbackParams, params)
        record = _load_record(self._updater, order.name)
        current = "" if record.current is None else record.current.version
        previous = "" if record.previous is None else record.previous.version
        progress = UpdateProgress(phase=UpdatePhase.OFFERED, name=order.name, version=order.version, before=current)
        changes = f"install {previous or 'nothing'} again"
        return ActionPlan(progress.detail(), changes, is_needed=current == order.version)

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Rolls back."""
        del before
        order = _parse(RollbackParams, params)
        try:
            self._updater.begin_rollback(order.name, order.version, self._command_id)
            self._updater.finish_rollback(order.name)
        except (UpdateError, JournalError) as e:
            raise ActionError(str(e)) from e

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Checks that the rollback is recorded as done."""
        del before
        outcome = _load_record(self._updater, _parse(RollbackParams, params).name).outcome
        return Verification(outcome is UpdatePhase.ROLLED_BACK)

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Changes nothing: a rollback cannot be undone."""
        del params, before
        return "nothing else was changed"


@contextmanager
def _as_action_errors() -> Iterator[None]:
    try:
        yield
    except UpdateError as e:
        raise ActionError(str(e)) from e


def _parse(model: type[_Model], params: Params) -> _Model:
    try:
        return model.model_validate(dict(params))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "parameters"
        raise InvalidParamsError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from e


def _load_record(updater: Updater, name: str) -> UpdateRecord:
    try:
        return updater.ledger.load(name)
    except JournalError as e:
        raise ActionError(str(e)) from e


def _result_detail(updater: Updater, name: str) -> Mapping[str, str]:
    try:
        return updater.progress(name).detail()
    except JournalError as e:
        raise ActionError(str(e)) from e
