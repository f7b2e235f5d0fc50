"""Accepts commands and runs them one after another: verified, written down before they run, always with a result."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from device_agent.actions.base import (
    JOURNAL_ONLY,
    Action,
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
from device_agent.errors import JournalError, StoppedError
from device_agent.host.clock import Clock
from device_agent.mqtt_client import Publish
from schemas.base import MAX_TEXT, clean_text
from schemas.commands import WRONG_CLOCK, Command, CommandResult, CommandState
from schemas.topics import UpChannel

MAX_QUEUED_COMMANDS: Final = 32  # accepted and not started
BROKER_PROBE_INTERVAL_SECONDS: Final = 2.0  # each probe may use another connection
RECORD_AGAIN_SECONDS: Final = 5.0  # between two attempts to write a result on a full disk
_log = logging.getLogger(__name__)
_Queue = queue.Queue[JournalEntry | None]  # None: stop


class CommandExecutor:
    """Runs commands in threads of its own; `on_envelope` may be called from any thread."""

    def __init__(
        self,
        verifier: EnvelopeVerifier,
        actions: Mapping[str, Action],
        journal: Journal,
        publish: Publish,
        *,
        clock: Clock,
        on_forged: Callable[[str], None],
        on_changed: Callable[[], None],
    ) -> None:
        """`on_forged` gets the reason of each forged command; `on_changed` follows each change of the device."""
        self._verifier = verifier
        self._actions = actions
        self._journal = journal
        self._publish = publish
        self._clock = clock
        self._on_forged = on_forged
        self._on_changed = on_changed
        self._stopping = threading.Event()
        # Long-running actions are always eager: no other action has to be loaded to know them.
        eager = actions.eager if isinstance(actions, LazyActions) else actions
        self._long_running = {name: a for name, a in eager.items() if isinstance(a, LongRunningAction)}
        # Long-running commands have their own queue and thread, so that a download does not delay the others.
        self._queue, self._long_queue = _Queue(MAX_QUEUED_COMMANDS + 1), _Queue(MAX_QUEUED_COMMANDS + 1)
        self._threads = [threading.Thread(target=self._run, args=(self._queue,), name="commands", daemon=True)]
        if self._long_running:
            run_long = partial(self._run, self._long_queue)
            self._threads.append(threading.Thread(target=run_long, name="updates", daemon=True))

    def start(self) -> None:
        """Starts the threads: they first finish or report commands that an earlier run left unfinished."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Stops, and waits up to `seconds` for running commands; the next start finishes or reports them."""
        deadline = self._clock.monotonic() + seconds
        self._stopping.set()
        running = [thread for thread in self._threads if thread.is_alive()]
        for commands in (self._queue, self._long_queue):
            if not commands.full():
                commands.put_nowait(None)
        for thread in running:
            thread.join(max(0.0, deadline - self._clock.monotonic()))

    def on_envelope(self, raw: bytes) -> None:
        """Verifies an envelope; when this returns, an accepted command is on the disk."""
        verdict = self._verifier.verify(
            raw,
            counters=self._journal.counters,
            known_command_ids=self._journal.command_ids(),
            now=self._clock.now(),
        )
        match verdict:
            case AcceptedCommand(command, spaces):
                self._enqueue(command, spaces)
            case DuplicateCommand(command_id):
                entry = self._journal.entry(command_id)
                if entry is not None:
                    self._publish_result(entry.result)
            case RejectedCommand(command_id, state, reason, is_wrong_clock):
                _log.warning("command %s %s: %s", command_id, state, reason)
                self._publish_rejection(command_id, state, reason, WRONG_CLOCK if is_wrong_clock else {})
            case ForgedCommand(reason):
                _log.warning("a command was refused: %s", reason)
                self._on_forged(reason)

    def resend_unconfirmed_results(self) -> None:
        """Publishes final results again that the broker has not confirmed."""
        for entry in self._journal.unconfirmed_results():
            self._publish_result(entry.result)

    def _enqueue(self, command: Command, spaces: frozenset[str]) -> None:
        commands = self._long_queue if command.action in self._long_running else self._queue
        if commands.qsize() >= MAX_QUEUED_COMMANDS:
            reason = "too many commands are waiting on the device"
            self._publish_rejection(command.command_id, CommandState.REJECTED, reason)
            return
        try:
            accepted = self._journal.record_accepted(command, spaces, self._clock.now())
        except JournalError as e:
            # What is not recorded must not run: it could run again after a restart.
            _log.error("command %s is refused: %s", command.command_id, e)
            reason = clean_text(f"it cannot be recorded on the device: {e}")
            self._publish_rejection(command.command_id, CommandState.REJECTED, reason)
            return
        commands.put_nowait(accepted)
        _log.info("command %s accepted: %s", command.command_id, command.action)

    def _run(self, commands: _Queue) -> None:
        is_long_queue = commands is self._long_queue
        try:
            unfinished = [
                entry
                for entry in self._journal.unfinished()
                if (entry.command.action in self._long_running) is is_long_queue
            ]
            if is_long_queue:
                command_ids = frozenset(entry.command.command_id for entry in unfinished)
                for action in self._long_running.values():
                    action.recover(command_ids)
            for entry in unfinished:
                self._finish(entry, self._resume(entry))
            while (accepted := commands.get()) is not None:
                self._publish_result(accepted.result)
                self._finish(accepted, self._execute(accepted))
        except StoppedError:
            _log.info("the running command continues at the next start")

    def _finish(self, entry: JournalEntry, result: CommandResult) -> None:
        command = entry.command
        result = self._with_result_detail(command, result)
        self._record_result(result)
        _log.info("command %s %s %s", result.command_id, result.state, result.reason)
        self._publish_result(result)
        # A failed update may have changed something all the same: only a new report can tell.
        has_changed = result.state is CommandState.SUCCEEDED or command.action in self._long_running
        if has_changed and not command.dry_run:
            self._on_changed()

    def _record_result(self, result: CommandResult) -> None:
        """Writes a result, however long the disk is full; nothing else of this queue runs meanwhile.

        The controller is told at once. If the agent ends before, the next start finds out what was done (`_resume`).
        """
        is_told = False
        while True:
            try:
                self._journal.record_result(result)
            except JournalError as e:
                if not is_told:
                    _log.error(
                        "the result of command %s cannot be written, it is tried again: %s", result.command_id, e
                    )
                    self._publish_result(result)
                    is_told = True
                if self._stopping.wait(RECORD_AGAIN_SECONDS):
                    raise StoppedError from e
            else:
                return

    def _action_for(self, entry: JournalEntry) -> RemediationAction | None:
        action = self._actions.get(entry.command.action)
        if isinstance(action, LongRunningAction):
            return action.bind(entry.command.command_id, partial(self._publish_progress, entry))
        return action

    def _execute(self, entry: JournalEntry) -> CommandResult:
        command = entry.command
        action = self._action_for(entry)
        if action is None:
            return self._result(entry, CommandState.REJECTED, f"this agent has no action {command.action}")
        try:
            action.check(command.params)
            if entry.before:
                # The command was started before: its first record is what undoing means, not a half-changed state.
                return self._apply(entry, action, entry.before)
            plan = action.plan(command.params)
            if command.dry_run:
                return self._result(entry, CommandState.SUCCEEDED, "", {**plan.before, "would": plan.changes})
            if not plan.is_needed:
                return self._result(entry, CommandState.SUCCEEDED, "nothing to do", plan.before)
            self._journal.record_before(command.command_id, dict(plan.before))
            return self._apply(entry, action, plan.before)
        except InvalidParamsError as e:
            return self._result(entry, CommandState.REJECTED, str(e))
        except ActionError as e:
            return self._result(entry, CommandState.FAILED, str(e))
        except StoppedError:
            raise
        except Exception as e:  # noqa: BLE001 - a broken action is a failed command, not the end of the agent
            _log.exception("action %s is broken", command.action)
            return self._result(entry, CommandState.FAILED, f"{type(e).__name__}: {e}")

    def _apply(self, entry: JournalEntry, action: RemediationAction, before: Mapping[str, str]) -> CommandResult:
        params = entry.command.params
        try:
            action.apply(params, before)
            verification = action.verify(params, before)
        except ActionError as e:
            return self._result(entry, CommandState.FAILED, f"{e}; {self._undo(action, entry, before)}", before)
        if not verification.is_reached:
            reason = f"done, but the goal is not reached; {self._undo(action, entry, before)}"
            return self._result(entry, CommandState.FAILED, reason, {**before, **verification.after})
        return self._confirm_or_undo(entry, action, before, verification, "")

    def _confirm_or_undo(
        self,
        entry: JournalEntry,
        action: RemediationAction,
        before: Mapping[str, str],
        verification: Verification,
        reason: str,
    ) -> CommandResult:
        """Returns the result of a command that reached its goal, undone when the broker became unreachable."""
        params = entry.command.params
        detail = {**before, **verification.after}
        if isinstance(action, ConnectivityChecked) and (seconds := action.broker_timeout_seconds(params, before)):
            if not self._broker_confirms_within(entry, seconds):
                text = f"the broker was not reached within {seconds:g} s; {self._undo(action, entry, before)}"
                return self._result(entry, CommandState.FAILED, text, before)
            try:
                action.commit(params, before)
            except ActionError as e:
                return self._result(entry, CommandState.FAILED, str(e), before)
        return self._result(entry, CommandState.SUCCEEDED, reason, detail)

    def _broker_confirms_within(self, entry: JournalEntry, seconds: float) -> bool:
        confirmed = threading.Event()
        deadline = self._clock.monotonic() + seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            self._publish(UpChannel.RESULT, entry.result.model_dump_json().encode(), lambda _delivered: confirmed.set())
            if confirmed.wait(min(BROKER_PROBE_INTERVAL_SECONDS, left)):
                return True
        return False

    @staticmethod
    def _undo(action: RemediationAction, entry: JournalEntry, before: Mapping[str, str]) -> str:
        try:
            return action.undo(entry.command.params, before)
        except ActionError as e:
            return f"and undoing it failed: {e}"

    def _resume(self, entry: JournalEntry) -> CommandResult:
        """Returns the result of a command during which the agent was killed.

        The command succeeded if its goal is reached, runs again if that is safe, and fails otherwise.
        """
        command = entry.command
        action = self._actions.get(command.action)
        interrupted = self._result(entry, CommandState.FAILED, "interrupted", entry.before)
        if action is None or command.dry_run:
            return interrupted
        if isinstance(action, LongRunningAction):
            return self._execute(entry)
        try:
            action.check(command.params)
            if entry.before:
                verification = action.verify(command.params, entry.before)
                if verification.is_reached:
                    reason = "reached before the agent was interrupted"
                    return self._confirm_or_undo(entry, action, entry.before, verification, reason)
        except ActionError as e:
            _log.warning("command %s after an interruption: %s", command.command_id, e)
            return interrupted
        if not action.is_repeatable or command.is_expired(self._clock.now()):
            return interrupted
        return self._execute(entry)

    def _result(
        self, entry: JournalEntry, state: CommandState, reason: str, detail: Mapping[str, str] | None = None
    ) -> CommandResult:
        public = {k: clean_text(v, MAX_TEXT) for k, v in (detail or {}).items() if not k.startswith(JOURNAL_ONLY)}
        return self._make_result(entry.command.command_id, state, reason, public)

    def _make_result(
        self, command_id: str, state: CommandState, reason: str, detail: Mapping[str, str]
    ) -> CommandResult:
        return CommandResult(
            command_id=command_id, state=state, reason=clean_text(reason), detail=dict(detail), at=self._clock.now()
        )

    def _with_result_detail(self, command: Command, result: CommandResult) -> CommandResult:
        """Adds the outcome that a long-running action has recorded and no exception carries."""
        action = self._long_running.get(command.action)
        if action is None or command.dry_run or result.state is CommandState.REJECTED:
            return result
        try:
            detail = {**result.detail, **action.result_detail(command.params)}
        except ActionError:
            return result
        return result.model_copy(update={"detail": {key: clean_text(text) for key, text in detail.items()}})

    def _publish_progress(self, entry: JournalEntry, detail: Mapping[str, str]) -> None:
        self._publish_result(self._result(entry, CommandState.EXECUTING, "", detail))

    def _publish_rejection(
        self, command_id: str, state: CommandState, reason: str, detail: Mapping[str, str] | None = None
    ) -> None:
        self._publish_result(self._make_result(command_id, state, reason, detail or {}))

    def _publish_result(self, result: CommandResult) -> None:
        def on_puback(delivered: bool) -> None:
            if delivered and result.state.is_end:
                try:
                    self._journal.mark_result_confirmed(result.command_id)
                except JournalError as e:  # the result is sent once more after the next connection
                    _log.warning("that command %s is answered cannot be written: %s", result.command_id, e)

        self._publish(UpChannel.RESULT, result.model_dump_json().encode(), on_puback)
