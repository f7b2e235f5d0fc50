"""Second factors: who has to give one, how they are registered, given and removed; each change is an audit line."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from controller.domain.accounts.account import Account, administers
from controller.domain.accounts.caller import SignedIn
from controller.domain.accounts.factors import RECOVERY_CODES, FactorKind, Factors, Passkey, Totp
from controller.domain.accounts.relying_party import RelyingParty
from controller.domain.accounts.roles import Roles
from controller.domain.accounts.second_factor import (
    RECOVERY_BYTES,
    TOTP_SECRET_BYTES,
    may_change_factors,
    recovery_code,
    recovery_digest,
    totp_step,
)
from controller.domain.accounts.secret_text import digest_of
from controller.domain.accounts.session import Session
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.accounts import AccountStore, FactorStore
from controller.ports.factors import (
    PasskeyCounterError,
    PasskeyCredential,
    PasskeyError,
    PasskeyVerifier,
    SealError,
    SecretSealer,
)
from controller.service.accounts.factor_attempts import FactorAttempts
from controller.service.accounts.factor_errors import FactorError, FactorWrongError
from controller.service.accounts.factor_requirement import FactorRequirement
from controller.service.accounts.line_limit import LineLimit
from controller.service.accounts.pending_factors import FactorPurpose, PendingFactors
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

CHALLENGE_BYTES: Final = 32
SESSION_BYTES: Final = 32
ISSUER: Final = "Cordon"  # as authenticator apps show it
MAX_FACTOR_NAME: Final = 64  # characters
TOTP_ID: Final = "totp"  # names the one authenticator app of an account where factors are named


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session with the secret of its cookie, which is in no other place."""

    session: Session
    secret: str


@dataclass(frozen=True, slots=True)
class GivenFactor:
    """What a person gave: one of a code of an app, a recovery code, the answer of a passkey."""

    code: str = ""
    recovery: str = ""
    passkey: Mapping[str, Any] | None = None


class FactorService:
    """Every change is committed with its audit line."""

    def __init__(
        self,
        fleet: FleetState,
        accounts: AccountStore,
        factors: FactorStore,
        passkeys: PasskeyVerifier,
        sealer: SecretSealer,
        roles: Roles,
        requirement: FactorRequirement,
    ) -> None:
        self._fleet = fleet
        self._accounts = accounts
        self._factors = factors
        self._passkeys = passkeys
        self._sealer = sealer
        self._roles = roles
        self._requirement = requirement
        self._pending = PendingFactors()
        self._attempts = FactorAttempts(fleet)
        self._lines = LineLimit()

    async def factors_of(self, account_id: str) -> Factors:
        return await self._factors.factors(account_id)

    async def warning(self) -> str:
        """What is wrong with the second factors of everybody; else empty."""
        return await self._requirement.warning()

    # Registering

    async def begin_totp(self, who: SignedIn) -> bytes:
        """Returns a new secret for an authenticator app, which counts after `register_totp`.

        Raises:
            FactorError: the session may not change factors.
        """
        await self._check_change(who)
        secret = self.pending_totp(who) or secrets.token_bytes(TOTP_SECRET_BYTES)
        self._pending.put(who.session.session_id, FactorPurpose.REGISTER_TOTP, secret, self._fleet.clock.monotonic())
        return secret

    def pending_totp(self, who: SignedIn) -> bytes | None:
        """The secret that this session has begun to register."""
        now = self._fleet.clock.monotonic()
        return self._pending.peek(who.session.session_id, FactorPurpose.REGISTER_TOTP, now)

    async def register_totp(self, who: SignedIn, code: str) -> NewSession | None:
        """Registers the app, in place of an earlier one; returns the session that goes on, if it is a new one.

        Raises:
            FactorError: nothing was begun, the code is wrong, or the session may not change factors.
        """
        before = await self._check_change(who)
        secret, now = self.pending_totp(who), self._fleet.clock.now()
        if secret is None:
            raise FactorError("factor_not_begun", "too much time went by: begin again")
        step = totp_step(secret, code, now, 0)
        if step is None:
            raise FactorError("factor_wrong", "this is not the code that the app shows now: look at its clock")
        self._pending.take(who.session.session_id, FactorPurpose.REGISTER_TOTP, self._fleet.clock.monotonic())
        await self._require_if_admin(who.account)
        account_id = who.account.account_id
        totp = Totp(account_id, self._sealer.seal(account_id, secret), now, step)
        batch = self._line(AuditKind.FACTOR_REGISTERED, who, {"factor": FactorKind.TOTP})
        session, as_first = who.session.digest, not before.exist
        if not await self._factors.put_totp(totp, batch.to_writes(), session=session, as_first=as_first):
            text = "another factor was registered meanwhile, or this session has ended: give the factor first"
            raise FactorError("factor_not_added", text)
        self._fleet.publish_committed(batch)
        return await self._opened(who, before, FactorKind.TOTP)

    async def begin_passkey(self, who: SignedIn, party: RelyingParty) -> dict[str, Any]:
        """Returns what the browser needs to make a passkey.

        Raises:
            FactorError: the session may not change factors.
        """
        known = [one.credential_id for one in (await self._check_change(who)).passkeys]
        challenge = self._challenge(who, FactorPurpose.REGISTER_PASSKEY)
        user = (who.account.account_id.encode(), who.account.name)
        return self._passkeys.registration_options(party, user, challenge, known)

    async def register_passkey(
        self, who: SignedIn, party: RelyingParty, name: str, answer: Mapping[str, Any]
    ) -> NewSession | None:
        """Registers the passkey that the browser made; returns the session that goes on, if it is a new one.

        Raises:
            FactorError: nothing was begun, the answer is wrong, there are too many, or the session may not change them.
        """
        before = await self._check_change(who)
        made = self._verified_registration(who, party, answer)
        await self._require_if_admin(who.account)
        now = self._fleet.clock.now()
        passkey = Passkey(who.account.account_id, made.credential_id, made.public_key, made.sign_count, name, now)
        batch = self._line(AuditKind.FACTOR_REGISTERED, who, {"factor": FactorKind.PASSKEY, "name": name})
        session, as_first = who.session.digest, not before.exist
        if not await self._factors.add_passkey(passkey, batch.to_writes(), session=session, as_first=as_first):
            text = "this passkey is registered already, the account has ten of them or got another factor meanwhile,"
            raise FactorError("factor_not_added", f"{text} or this session has ended")
        self._fleet.publish_committed(batch)
        return await self._opened(who, before, FactorKind.PASSKEY)

    def _verified_registration(
        self, who: SignedIn, party: RelyingParty, answer: Mapping[str, Any]
    ) -> PasskeyCredential:
        try:
            return self._passkeys.registered(party, self._taken(who, FactorPurpose.REGISTER_PASSKEY), answer)
        except PasskeyError as e:
            raise FactorError("factor_wrong", str(e)) from e

    async def new_recovery_codes(self, who: SignedIn) -> tuple[str, ...]:
        """Returns new recovery codes, which replace earlier ones and are shown only now.

        Raises:
            FactorError: the account has no factor, or the session may not change factors.
        """
        if not (await self._check_change(who)).exist:
            raise FactorError("factor_missing", "recovery codes stand in for a factor: register one first")
        codes = tuple(recovery_code(secrets.token_bytes(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES))
        account_id = who.account.account_id
        batch = self._line(AuditKind.FACTOR_CODES_MADE, who, {"codes": len(codes)})
        digests, session = [recovery_digest(account_id, code) for code in codes], who.session.digest
        if not await self._factors.put_recovery_codes(account_id, digests, batch.to_writes(), session=session):
            raise FactorError("session_over", "this session has ended: log in again")
        self._fleet.publish_committed(batch)
        return codes

    async def remove(self, who: SignedIn, factor_id: str) -> None:
        """Removes a passkey by its id in hex, or the authenticator app, `TOTP_ID`.

        Raises:
            FactorError: there is none such, it is the last one and one is required, or the session may not change them.
        """
        before = await self._check_change(who)
        passkey = next((one for one in before.passkeys if one.credential_id.hex() == factor_id), None)
        if passkey is None and (factor_id != TOTP_ID or before.totp is None):
            raise FactorError("factor_unknown", "your account has no such factor")
        keeps_one = await self._requirement.is_in_force()
        if keeps_one and before.count <= 1:
            raise FactorError("last_factor", "everybody needs a second factor: register another one first")
        account_id, session = who.account.account_id, who.session.digest
        if passkey is not None:
            detail = {"factor": FactorKind.PASSKEY, "name": passkey.name}
            batch = self._line(AuditKind.FACTOR_REMOVED, who, detail)
            done = await self._factors.remove_passkey(
                account_id, passkey.credential_id, batch.to_writes(), session=session, keeps_one=keeps_one
            )
        else:
            batch = self._line(AuditKind.FACTOR_REMOVED, who, {"factor": FactorKind.TOTP})
            done = await self._factors.remove_totp(account_id, batch.to_writes(), session=session, keeps_one=keeps_one)
        if not done:
            text = "your factors were changed meanwhile, or this session has ended: look at them again"
            raise FactorError("factors_changed", text)
        self._fleet.publish_committed(batch)

    # Giving

    async def begin_use(self, who: SignedIn, party: RelyingParty) -> dict[str, Any] | None:
        """Returns what the browser needs to use a passkey of the account; None if it has none."""
        known = [one.credential_id for one in (await self.factors_of(who.account.account_id)).passkeys]
        if not known:
            return None
        return self._passkeys.login_options(party, self._challenge(who, FactorPurpose.USE_PASSKEY), known)

    async def give(self, who: SignedIn, given: GivenFactor, party: RelyingParty | None) -> NewSession:
        """Returns the session that goes on, with another secret; `party`: None where passkeys are not taken.

        Raises:
            FactorWrongError: the factor is wrong, or was used before.
            FactorSlowedError: too many were wrong.
            FactorError: the session has ended.
        """
        is_code = given.passkey is None and not given.recovery
        return await self._attempts.counted(who, lambda: self._give(who, given, party), is_code=is_code)

    async def _give(self, who: SignedIn, given: GivenFactor, party: RelyingParty | None) -> NewSession:
        factors = await self.factors_of(who.account.account_id)
        try:
            if given.passkey is not None:
                kind, is_right = FactorKind.PASSKEY, await self._uses_passkey(who, given.passkey, party, factors)
            elif given.recovery:
                kind, is_right = FactorKind.RECOVERY, await self._uses_recovery(who, given.recovery)
            else:
                kind, is_right = FactorKind.TOTP, await self._uses_totp(who, given.code, factors.totp)
        except PasskeyCounterError as e:
            await self._attempts.refuse(who, FactorKind.PASSKEY, str(e), alert=True)
            raise FactorWrongError from e
        except (PasskeyError, SealError) as e:
            await self._attempts.refuse(
                who, FactorKind.PASSKEY if given.passkey is not None else FactorKind.TOTP, str(e)
            )
            raise FactorWrongError from e
        if not is_right:
            await self._attempts.refuse(who, kind, "wrong, or used before")
            raise FactorWrongError
        return await self._raised(who, kind)

    async def _uses_totp(self, who: SignedIn, code: str, totp: Totp | None) -> bool:
        if totp is None or not totp.confirmed_at:
            return False
        account_id = who.account.account_id
        secret = self._sealer.open(account_id, totp.secret)
        step = totp_step(secret, code, self._fleet.clock.now(), totp.last_step)
        return step is not None and await self._factors.use_totp(account_id, step)

    async def _uses_recovery(self, who: SignedIn, code: str) -> bool:
        account_id = who.account.account_id
        batch = self._line(AuditKind.FACTOR_CODE_USED, who, {}, alert=True)
        if not await self._factors.use_recovery_code(account_id, recovery_digest(account_id, code), batch.to_writes()):
            return False
        self._fleet.publish_committed(batch)
        return True

    async def _uses_passkey(
        self, who: SignedIn, answer: Mapping[str, Any], party: RelyingParty | None, factors: Factors
    ) -> bool:
        if party is None:
            raise PasskeyError("passkeys are not taken at this address")
        challenge = self._taken(who, FactorPurpose.USE_PASSKEY)
        name = self._passkeys.credential_id(answer)
        passkey = next((one for one in factors.passkeys if one.credential_id == name), None)
        if passkey is None:
            raise PasskeyError("the passkey is none of this account")
        stored = PasskeyCredential(passkey.credential_id, passkey.public_key, passkey.sign_count)
        count = self._passkeys.used(party, challenge, answer, stored)
        if not await self._factors.use_passkey(passkey.credential_id, count, self._fleet.clock.now()):
            raise PasskeyCounterError(f"the passkey counts {count}, and counted that before")
        return True

    # What they share

    async def _check_change(self, who: SignedIn) -> Factors:
        """Returns the factors of an account whose session may change them.

        Raises:
            FactorError: it may not.
        """
        factors = await self.factors_of(who.account.account_id)
        session, now = who.session, self._fleet.clock.now()
        if may_change_factors(
            has_factor=factors.exist, factor_at=session.factor_at, begun_at=session.created_at, now=now
        ):
            return factors
        if factors.exist:
            raise FactorError("step_up_needed", "give your second factor again: it counts for five minutes")
        text = "log out and in again: the first factor is registered within five minutes of a login"
        raise FactorError("login_needed", text)

    async def _require_if_admin(self, account: Account) -> None:
        """From the first factor of an administrator on everybody needs one, even if it is lost later."""
        if administers(account, self._roles) and not await self._factors.are_required():
            await self._factors.require()

    def _challenge(self, who: SignedIn, purpose: FactorPurpose) -> bytes:
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        self._pending.put(who.session.session_id, purpose, challenge, self._fleet.clock.monotonic())
        return challenge

    def _taken(self, who: SignedIn, purpose: FactorPurpose) -> bytes:
        """What this session was asked for; each challenge is taken once.

        Raises:
            PasskeyError: nothing, or too long ago.
        """
        challenge = self._pending.take(who.session.session_id, purpose, self._fleet.clock.monotonic())
        if challenge is None:
            raise PasskeyError("this session was not asked for a passkey, or answered already")
        return challenge

    async def _opened(self, who: SignedIn, before: Factors, kind: FactorKind) -> NewSession | None:
        """A session that registers the first factor of its account has shown it, too."""
        return None if before.exist else await self._raised(who, kind)

    async def _raised(self, who: SignedIn, kind: FactorKind) -> NewSession:
        """The session with a fresh factor, under another secret: whoever knew the former one is left behind."""
        secret, now = secrets.token_urlsafe(SESSION_BYTES), self._fleet.clock.now()
        former = who.session
        session = replace(former, digest=digest_of(secret), last_used_at=now, factor_at=now, factor=kind.value)
        more = self._lines.admit(who.account.account_id, self._fleet.clock.monotonic())
        batch = UnitOfWork() if more is None else self._line(AuditKind.FACTOR_GIVEN, who, {"factor": kind, **more})
        if not await self._accounts.add_session(session, batch.to_writes(), replaces=former.digest):
            raise FactorError("session_over", "this session has ended: log in again")
        self._fleet.publish_committed(batch)
        return NewSession(session, secret)

    def _line(self, kind: AuditKind, who: SignedIn, detail: Mapping[str, object], *, alert: bool = False) -> UnitOfWork:
        entry = AuditEntry(kind, "", who.account.in_session.actor, "", dict(detail), alert)
        return UnitOfWork(audit=[(self._fleet.clock.now(), entry)])
