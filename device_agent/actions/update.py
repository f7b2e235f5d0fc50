"""Updates as actions: `update.install` puts a signed version in place, `update.rollback` goes back from one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pydantic import ValidationError

from device_agent.actions.base import ActionError, ActionPlan, InvalidParamsError, Params, Verification
from device_agent.errors import JournalError
from device_agent.updates.errors import UpdateError
from device_agent.updates.records import UpdateRecord
from device_agent.updates.updater import Updater
from schemas.updates import InstallParams, RollbackParams, UpdatePhase, UpdateProgress, UpdateRefusalCode

ProgressDetailCallback = Callable[[Mapping[str, str]], None]


class _Update:
    """What both have in common: they take long, tell how far they are, and go on after a restart."""

    is_repeatable = True

    def __init__(self, updater: Updater) -> None:
        self._updater = updater
        self._command_id = ""
        self._told: ProgressDetailCallback = lambda _detail: None

    def attend(self, command_id: str, told: ProgressDetailCallback) -> None:
        """From here on it works for this command, and tells how far it is."""
        self._command_id, self._told = command_id, told

    def settle(self, unfinished: frozenset[str]) -> None:
        """See `Updater.settle`."""
        self._updater.settle(unfinished)

    def _tell(self, progress: UpdateProgress) -> None:
        self._told(progress.detail())

    def _outcome(self, name: str) -> Mapping[str, str]:
        try:
            return self._updater.progress(name).detail()
        except JournalError as e:
            raise ActionError(str(e)) from e


class InstallUpdate(_Update):
    """`update.install`; see `schemas.updates.Install`."""

    def __init__(self, updater: Updater) -> None:
        super().__init__(updater)
        self._failure: UpdateError | None = None

    def check(self, params: Params) -> None:
        """Every parameter of an order, and no other."""
        _order(params)

    def plan(self, params: Params) -> ActionPlan:
        """What would be put in place of what; nothing is fetched."""
        order = _order(params)
        record = _loaded(self._updater, order.name)
        with _as_action_errors():
            before = self._updater.installed(record)
        is_there = before == order.version and record.outcome is UpdatePhase.CONFIRMED and record.transaction is None
        phase = UpdatePhase.CONFIRMED if is_there else UpdatePhase.OFFERED
        was = UpdateProgress(phase=phase, name=order.name, version=order.version, before=before)
        what = f"verify {order.target} ({order.length} bytes) and put it in the place of {before or 'nothing'}"
        return ActionPlan(was.detail(), would=what, is_needed=not is_there)

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """As far as healthy."""
        del was
        self._failure = None
        try:
            self._updater.install(_order(params), self._command_id, self._tell)
        except UpdateError as e:
            self._failure = e
            raise ActionError(str(e)) from e
        except JournalError as e:
            self._failure = UpdateError(UpdateRefusalCode.OTHER, str(e))
            raise ActionError(str(e)) from e

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """The version is there and healthy; where the broker need not be reached, that confirms it."""
        del was
        order = _order(params)
        with _as_action_errors():
            if not self._updater.is_reached(order):
                return Verification(False, self._outcome(order.name))
            if not self._updater.broker_seconds(order):
                self._updater.confirm(order.name)
        return Verification(True)

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """The version before."""
        del was
        failure = self._failure or UpdateError(
            UpdateRefusalCode.BROKER, "the broker was not reached with the new version"
        )
        with _as_action_errors():
            return self._updater.undo(_order(params).name, failure)

    def proof_seconds(self, params: Params, was: Mapping[str, str]) -> float:
        """How long reaching the broker with the new version may take."""
        del was
        return self._updater.broker_seconds(_order(params))

    def keep(self, params: Params, was: Mapping[str, str]) -> None:
        """The broker was reached: it is confirmed."""
        del was
        with _as_action_errors():
            self._updater.confirm(_order(params).name)

    def outcome(self, params: Params) -> Mapping[str, str]:
        """How it stands, for the result."""
        return self._outcome(_order(params).name)


class RollbackUpdate(_Update):
    """`update.rollback`; see `schemas.updates.GoBack`."""

    def check(self, params: Params) -> None:
        """Name and version, and the rollout that asks."""
        _back(params)

    def plan(self, params: Params) -> ActionPlan:
        """Needed only where that version is in place."""
        back = _back(params)
        record = _loaded(self._updater, back.name)
        current = "" if record.current is None else record.current.version
        to = "" if record.previous is None else record.previous.version
        was = UpdateProgress(phase=UpdatePhase.OFFERED, name=back.name, version=back.version, before=current)
        return ActionPlan(
            was.detail(), would=f"put {to or 'nothing'} in place again", is_needed=current == back.version
        )

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Go back."""
        del was
        back = _back(params)
        try:
            self._updater.begin_going_back(back.name, back.version, self._command_id)
            self._updater.finish_going_back(back.name)
        except (UpdateError, JournalError) as e:
            raise ActionError(str(e)) from e

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """The version before is there."""
        del was
        outcome = _loaded(self._updater, _back(params).name).outcome
        return Verification(outcome is UpdatePhase.ROLLED_BACK)

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """There is no way back from going back."""
        del params, was
        return "nothing else was changed"

    def outcome(self, params: Params) -> Mapping[str, str]:
        """How it stands, for the result."""
        return self._outcome(_back(params).name)


@contextmanager
def _as_action_errors() -> Iterator[None]:
    try:
        yield
    except UpdateError as e:
        raise ActionError(str(e)) from e


def _order(params: Params) -> InstallParams:
    try:
        return InstallParams.model_validate(dict(params))
    except ValidationError as e:
        raise InvalidParamsError(_complaint(e)) from e


def _back(params: Params) -> RollbackParams:
    try:
        return RollbackParams.model_validate(dict(params))
    except ValidationError as e:
        raise InvalidParamsError(_complaint(e)) from e


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "parameters"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _loaded(updater: Updater, name: str) -> UpdateRecord:
    try:
        return updater.ledger.load(name)
    except JournalError as e:
        raise ActionError(str(e)) from e
