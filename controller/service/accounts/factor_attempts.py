"""What wrong second factors cost: a growing wait, audit lines, an alert."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from controller.domain.accounts.caller import SignedIn
from controller.domain.accounts.factors import FactorKind
from controller.domain.accounts.failure_counts import DelayRule, FailureCounts
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.service.accounts.factor_errors import FactorError, FactorSlowedError, FactorWrongError
from controller.service.accounts.line_limit import LineLimit
from controller.service.fleet_state import FleetState

FREE_FAILURES: Final = 4  # without a wait: people mistype
GUESSING: Final = 10  # failures in a row after which an account is said to be attacked
MAX_WAIT: Final = 300.0  # seconds
_RULE: Final = DelayRule(begins_at=FREE_FAILURES + 1, first=2.0, most=MAX_WAIT, forget=3_600.0)
T = TypeVar("T")


class FactorAttempts:
    """Counts and records what was wrong."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        # Apart: sessions are as many as somebody begins, and must not push the count of an account out.
        self._accounts, self._sessions = FailureCounts[str](_RULE), FailureCounts[str](_RULE)
        self._lines = LineLimit()

    async def counted(self, who: SignedIn, give: Callable[[], Awaitable[T]], *, is_code: bool) -> T:
        """Returns what `give` returns, unless too many were wrong before; `is_code`: it is a code of an app.

        Raises:
            FactorWrongError: as `give`.
            FactorSlowedError: too many were wrong.
            FactorError: as `give`; it counts as no failure.
        """
        # Codes of an app are guessed whatever the session; of the rest nothing can be guessed, so that whoever knows
        # the password cannot slow a person who has a passkey or a recovery code.
        counts = self._accounts if is_code else self._sessions
        key = who.account.account_id if is_code else who.session.session_id
        now = self._fleet.clock.monotonic()
        if (wait := counts.wait(key, now)) > 0:
            raise FactorSlowedError(wait)
        # It counts before it is looked at: guesses that come at one moment would all find no failure of another.
        failures = counts.record(key, now)
        try:
            given = await give()
        except FactorWrongError:
            if is_code and failures % GUESSING == 0:
                await self._tell_guessing(who)
            raise
        except FactorError:  # the session has ended: nothing was wrong
            counts.take_back(key)
            raise
        counts.forget(key)
        return given

    async def refuse(self, who: SignedIn, kind: FactorKind, why: str, *, alert: bool = False) -> None:
        """Records that a factor was wrong."""
        more = self._lines.admit(who.account.account_id, self._fleet.clock.monotonic())
        if more is not None:
            detail: dict[str, object] = {"factor": kind, "reason": why, "peer": who.session.peer, **more}
            actor = who.account.in_session.actor
            await self._fleet.record(AuditEntry(AuditKind.FACTOR_REFUSED, "", actor, "", detail, alert))

    async def _tell_guessing(self, who: SignedIn) -> None:
        account, reason = who.account, f"codes were wrong {GUESSING} times in a row: somebody may know the password"
        detail: dict[str, object] = {"account": account.account_id, "name": account.name, "reason": reason}
        entry = AuditEntry(AuditKind.ACCOUNT_GUESSING_DETECTED, "", account.in_session.actor, "", detail, alert=True)
        await self._fleet.record(entry)
