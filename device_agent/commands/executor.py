"""Takes commands and runs them one after another: guarded, written down before they are done, always answered."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from device_agent.actions.base import (
    KEPT,
    ActionError,
    ConnectivityChecked,
    InvalidParamsError,
    LongRunningAction,
    RemediationAction,
    Verification,
)
from device_agent.commands.journal import Journal, JournalEntry
from device_agent.commands.lazy_loading import LazyActions
from device_agent.domain.verdict import (
    AcceptedCommand,
    DuplicateCommand,
    EnvelopeVerifier,
    ForgedCommand,
    RejectedCommand,
)
from device_agent.errors import StoppedError
from device_agent.host.clock import Clock
from device_agent.mqtt_client import Publish
from schemas.base import MAX_TEXT, clean_text
from schemas.commands import CommandResult, CommandState
from schemas.topics import UpChannel

MAX_WAITING: Final = 32  # commands taken and not begun
PROOF_AGAIN_SECONDS: Final = 2.0  # until the broker is asked again, on what may be another connection
_log = logging.getLogger(__name__)


class CommandExecutor:
    """The command executor; `received` may be called from any thread, the work is done in its own."""

    def __init__(
        self,
        guard: EnvelopeVerifier,
        actions: Mapping[str, RemediationAction],
        journal: Journal,
        publish: Publish,
        *,
        clock: Clock,
        refused: Callable[[str], None],
        succeeded: Callable[[], None],
    ) -> None:
        """Put it together; `refused` hears of forged commands, `succeeded` follows whatever changed something."""
        self._guard = guard
        self._actions = actions
        self._journal = journal
        self._publish = publish
        self._clock = clock
        self._refused = refused
        self._succeeded = succeeded
        # What takes long has a lane of its own, so that a download holds nothing else up.
        self._waiting: dict[bool, queue.Queue[JournalEntry | None]] = {
            is_long: queue.Queue(MAX_WAITING + 1) for is_long in (False, True)
        }
        # Those that take long are there from the start: nothing else has to be made to know them.
        known = actions.at_once if isinstance(actions, LazyActions) else actions
        self._long = {name: action for name, action in known.items() if isinstance(action, LongRunningAction)}
        self._threads = {
            is_long: threading.Thread(target=self._run, args=(is_long,), name=name, daemon=True)
            for is_long, name in ((False, "commands"), (True, "updates"))
            if self._long or not is_long
        }

    def start(self) -> None:
        """First finish, or report, what an earlier run left unfinished; then take new ones."""
        for thread in self._threads.values():
            thread.start()

    def stop(self, seconds: float) -> None:
        """Take no more; waits up to `seconds` for the one that runs; the next start finishes or reports it."""
        deadline = self._clock.monotonic() + seconds
        for is_long, thread in self._threads.items():
            if thread.is_alive():
                try:
                    self._waiting[is_long].put_nowait(None)
                except queue.Full:
                    continue
        for thread in self._threads.values():
            if thread.is_alive():
                thread.join(max(0.0, deadline - self._clock.monotonic()))

    def received(self, raw: bytes) -> None:
        """Judge an envelope; when this returns, an accepted command is on the disk."""
        judged = self._guard.judge(
            raw, last_counter=self._journal.counter, known=self._journal.known(), now=self._clock.now()
        )
        match judged:
            case AcceptedCommand(command) if self._lane(command.action).qsize() >= MAX_WAITING:
                self._answer(command.command_id, CommandState.REJECTED, "too many commands are waiting on the device")
            case AcceptedCommand(command):
                self._lane(command.action).put_nowait(self._journal.begin(command, self._clock.now()))
                _log.info("command %s taken: %s", command.command_id, command.action)
            case DuplicateCommand(command_id):
                entry = self._journal.entry(command_id)
                if entry is not None:
                    self._tell(entry.result)
            case RejectedCommand(command_id, state, reason):
                _log.warning("command %s %s: %s", command_id, state, reason)
                self._answer(command_id, state, reason)
            case ForgedCommand(reason):
                _log.warning("a command was refused: %s", reason)
                self._refused(reason)

    def tell(self) -> None:
        """Send again how commands ended, where the broker has not confirmed it."""
        for entry in self._journal.untold():
            self._tell(entry.result)

    def _is_long(self, action: str) -> bool:
        return action in self._long

    def _lane(self, action: str) -> queue.Queue[JournalEntry | None]:
        return self._waiting[self._is_long(action)]

    def _run(self, is_long: bool) -> None:
        try:
            unfinished = [e for e in self._journal.unfinished() if self._is_long(e.command.action) is is_long]
            for action in self._long.values() if is_long else ():
                action.settle(frozenset(entry.command.command_id for entry in unfinished))
            for entry in unfinished:
                self._finish(entry, self._resume(entry))
            while (taken := self._waiting[is_long].get()) is not None:
                self._tell(taken.result)
                self._finish(taken, self._execute(taken))
        except StoppedError:
            _log.info("what is under way goes on at the next start")

    def _finish(self, entry: JournalEntry, result: CommandResult) -> None:
        result = self._with_outcome(entry, result)
        self._journal.finish(result)
        _log.info("command %s %s %s", result.command_id, result.state, result.reason)
        self._tell(result)
        # An update that failed may have changed something all the same: only a fresh report tells.
        has_changed = result.state is CommandState.SUCCEEDED or self._is_long(entry.command.action)
        if has_changed and not entry.command.dry_run:
            self._succeeded()

    def _execute(self, entry: JournalEntry) -> CommandResult:
        command = entry.command
        action = self._actions.get(command.action)
        if action is None:
            return self._result(entry, CommandState.REJECTED, f"this agent has no action {command.action}")
        if isinstance(action, LongRunningAction):
            action.attend(command.command_id, partial(self._tell_progress, entry))
        try:
            action.check(command.params)
            if entry.was:
                # Begun before: what is there now may be half of it, so what was there at first is what undoing means.
                return self._apply(entry, action, entry.was)
            plan = action.plan(command.params)
            if command.dry_run:
                return self._result(entry, CommandState.SUCCEEDED, "", {**plan.was, "would": plan.would})
            if not plan.is_needed:
                return self._result(entry, CommandState.SUCCEEDED, "nothing to do", plan.was)
            self._journal.planned(command.command_id, dict(plan.was))
            return self._apply(entry, action, plan.was)
        except InvalidParamsError as e:
            return self._result(entry, CommandState.REJECTED, str(e))
        except ActionError as e:
            return self._result(entry, CommandState.FAILED, str(e))
        except StoppedError:
            raise
        except Exception as e:  # noqa: BLE001 - a broken action is a failed command, not the end of the agent
            _log.exception("action %s is broken", command.action)
            return self._result(entry, CommandState.FAILED, f"{type(e).__name__}: {e}")

    def _apply(self, entry: JournalEntry, action: RemediationAction, was: Mapping[str, str]) -> CommandResult:
        params = entry.command.params
        try:
            action.apply(params, was)
            verified = action.verify(params, was)
        except ActionError as e:
            return self._result(entry, CommandState.FAILED, f"{e}; {self._undo(action, entry, was)}", was)
        if not verified.is_reached:
            reason = f"done, but the goal is not reached; {self._undo(action, entry, was)}"
            return self._result(entry, CommandState.FAILED, reason, {**was, **verified.now})
        return self._prove(entry, action, was, verified, "")

    def _prove(
        self,
        entry: JournalEntry,
        action: RemediationAction,
        was: Mapping[str, str],
        verified: Verification,
        reason: str,
    ) -> CommandResult:
        """The end of a command that reached its goal; one that may have cut the device off is put back if it did."""
        params = entry.command.params
        detail = {**was, **verified.now}
        seconds = action.proof_seconds(params, was) if isinstance(action, ConnectivityChecked) else 0.0
        if seconds and not self._reaches_broker(entry, seconds):
            why = f"the broker was not reached within {seconds:g} s; {self._undo(action, entry, was)}"
            return self._result(entry, CommandState.FAILED, why, was)
        if seconds and isinstance(action, ConnectivityChecked):
            try:
                action.keep(params, was)
            except ActionError as e:
                return self._result(entry, CommandState.FAILED, str(e), was)
        return self._result(entry, CommandState.SUCCEEDED, reason, detail)

    def _reaches_broker(self, entry: JournalEntry, seconds: float) -> bool:
        """Whether the broker confirms a message that is sent from now on."""
        reached = threading.Event()
        deadline = self._clock.monotonic() + seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            self._publish(UpChannel.RESULT, entry.result.model_dump_json().encode(), lambda _taken: reached.set())
            if reached.wait(min(PROOF_AGAIN_SECONDS, left)):
                return True
        return False

    @staticmethod
    def _undo(action: RemediationAction, entry: JournalEntry, was: Mapping[str, str]) -> str:
        try:
            return action.undo(entry.command.params, was)
        except ActionError as e:
            return f"and undoing it failed: {e}"

    def _resume(self, entry: JournalEntry) -> CommandResult:
        """What becomes of a command that the agent was killed in: reached already, done again where safe, or failed."""
        command = entry.command
        action = self._actions.get(command.action)
        interrupted = self._result(entry, CommandState.FAILED, "interrupted", entry.was)
        if action is None or command.dry_run:
            return interrupted
        if isinstance(action, LongRunningAction):
            return self._execute(entry)
        try:
            action.check(command.params)
            if entry.was:
                verified = action.verify(command.params, entry.was)
                if verified.is_reached:
                    reason = "reached before the agent was interrupted"
                    return self._prove(entry, action, entry.was, verified, reason)
        except ActionError as e:
            _log.warning("command %s after an interruption: %s", command.command_id, e)
            return interrupted
        if not action.is_repeatable or command.is_expired(self._clock.now()):
            return interrupted
        return self._execute(entry)

    def _result(
        self, entry: JournalEntry, state: CommandState, reason: str, detail: Mapping[str, str] | None = None
    ) -> CommandResult:
        return CommandResult(
            command_id=entry.command.command_id,
            state=state,
            reason=clean_text(reason),
            detail={k: clean_text(v, MAX_TEXT) for k, v in (detail or {}).items() if not k.startswith(KEPT)},
            at=self._clock.now(),
        )

    def _with_outcome(self, entry: JournalEntry, result: CommandResult) -> CommandResult:
        """The result with what a long action says of its end, which no exception carries."""
        command = entry.command
        action = self._actions.get(command.action)
        if action is None or command.dry_run or result.state is CommandState.REJECTED:
            return result
        if not isinstance(action, LongRunningAction):
            return result
        try:
            detail = {**result.detail, **action.outcome(command.params)}
        except ActionError:
            return result
        return result.model_copy(update={"detail": {key: clean_text(text) for key, text in detail.items()}})

    def _tell_progress(self, entry: JournalEntry, detail: Mapping[str, str]) -> None:
        self._tell(self._result(entry, CommandState.EXECUTING, "", detail))

    def _answer(self, command_id: str, state: CommandState, reason: str) -> None:
        self._tell(
            CommandResult(
                command_id=command_id, state=state, reason=clean_text(reason), detail={}, at=self._clock.now()
            )
        )

    def _tell(self, result: CommandResult) -> None:
        def confirmed(taken: bool) -> None:
            if taken and result.state.is_end:
                self._journal.told(result.command_id)

        self._publish(UpChannel.RESULT, result.model_dump_json().encode(), confirmed)
