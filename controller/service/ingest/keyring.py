"""The keyring: devices sign with the keys of their certificates, else with the key of their first proven contact.

A key in a report is trusted on first use if the broker authenticated the device's session by a certificate of its
name; from then on it is the device's key until an operator deletes it.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.broker import AuthStrength
from controller.ports.device_keys import SUPERSEDED, CertifiedKeys
from controller.ports.errors import ControllerError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState
from schemas.report_signing import PublicKey, load_public_key, public_key_der, report_key_id

MAX_WAITING: Final = 1024  # devices whose keys are being looked up; others send again
FRESH: Final = 30.0  # seconds after which a key is looked up again: certificates are revoked
GRADE_SECONDS: Final = 5.0  # for the authentication strength of one session
_NONE: Final[Mapping[str, PublicKey]] = {}


class DeviceKeyStore(Protocol):
    """Stored keys, and keys of certificates."""

    async def certified(self, device_id: str, now: float) -> CertifiedKeys | None:
        """Keys of certificates of this name; `None` when the registry has never had one of that name."""
        ...

    async def owner(self, keyid: str) -> str | None:
        """The name in the certificate with this key, if the registry has one."""
        ...

    async def registered(self, device_id: str) -> bytes | None:
        """The key of the first proven contact; of a device with certificates the newest that signed."""
        ...

    async def register(self, device_id: str, key: bytes, at: float) -> None:
        """Stores the key."""
        ...

    async def forget(self, device_id: str) -> bool:
        """Deletes the key; returns whether there was one."""
        ...


@dataclass(frozen=True, slots=True)
class _CachedKeys:
    found: CertifiedKeys
    at: float  # monotonic seconds
    unknown_at: float = float("-inf")  # when an unknown key was looked up last


@dataclass(frozen=True, slots=True)
class _PendingLookup:
    device_id: str
    keyid: str
    offered: bytes
    named: str
    heard_at: float  # Unix seconds


class AuthStrengthSource(Protocol):
    """How strongly the broker authenticated a session."""

    def __call__(self, client_id: str, *, heard_at: float | None = None) -> Awaitable[AuthStrength]:
        """As `BrokerControl.auth_strength`."""
        ...


class DeviceKeyring:
    """`DeviceKeys` over stored keys and the broker's authentication."""

    def __init__(self, store: DeviceKeyStore, grade: AuthStrengthSource, fleet: FleetState, log: Log) -> None:
        self._store = store
        self._grade = grade
        self._fleet = fleet
        self._clock = fleet.clock
        self._log = log
        self._cache: dict[str, _CachedKeys] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._pending: dict[str, _PendingLookup] = {}  # by device in the queue
        self._outdated: set[str] = set()  # pending ones whose certificates changed meanwhile
        self._signed: dict[str, bytes] = {}  # newest keys that signed, to be stored

    def keys_for(self, device_id: str) -> Mapping[str, PublicKey] | None:
        """Keys that are not fresh are looked up again, and used meanwhile."""
        known = self._cache.get(device_id)
        if known is None:
            return None
        if self._clock.monotonic() - known.at > FRESH:
            self.request_lookup(device_id, "", b"")
            if not known.found.keys:
                return None
        return known.found.keys

    def rejection_reason(self, device_id: str, keyid: str) -> str:
        known = self._cache.get(device_id)
        why = None if known is None else known.found.over.get(keyid)
        if why is None:
            return "signed with a key that is not this device's"
        return f"signed with a certificate of this device that is not valid: {why}"

    def record_use(self, device_id: str, keyid: str) -> None:
        known = self._cache.get(device_id)
        if known is None or keyid not in known.found.keys or next(iter(known.found.keys)) == keyid:
            return  # the usual case: there is no older one
        names = list(known.found.keys)
        former = dict.fromkeys(names[: names.index(keyid)], SUPERSEDED)
        keys = {name: key for name, key in known.found.keys.items() if name not in former}
        self._cache[device_id] = replace(known, found=CertifiedKeys(keys, {**known.found.over, **former}))
        self._signed[device_id] = public_key_der(keys[keyid])
        self.request_lookup(device_id, "", b"")

    def invalidate(self, device_id: str) -> None:
        """Drops the cached keys: a certificate of the device was issued or revoked."""
        if self._cache.pop(device_id, None) is None:
            return
        if device_id in self._pending:
            self._outdated.add(device_id)
        else:
            self.request_lookup(device_id, "", b"")

    def request_lookup(self, device_id: str, keyid: str, offered: bytes, named: str = "") -> None:
        waiting = self._pending.get(device_id)
        if waiting is not None:
            if keyid and not waiting.keyid:
                self._pending[device_id] = _PendingLookup(device_id, keyid, offered, named, self._clock.now())
            return
        if self._queue.full():
            return
        known = self._cache.get(device_id)
        if known is not None and keyid and self._clock.monotonic() - known.unknown_at <= FRESH:
            return  # limits the lookups that unknown keys cause
        self._pending[device_id] = _PendingLookup(device_id, keyid, offered, named, self._clock.now())
        self._queue.put_nowait(device_id)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.refresh_device(await self._queue.get())

    async def refresh_pending(self) -> None:
        """Looks up everything that is pending now."""
        while not self._queue.empty():
            await self.refresh_device(self._queue.get_nowait())

    async def forget(self, device_id: str) -> bool:
        """Deletes the stored key: the next proven contact registers another."""
        self._cache.pop(device_id, None)
        self._signed.pop(device_id, None)
        return await self._store.forget(device_id)

    async def refresh_device(self, device_id: str) -> None:
        """Looks up one device's keys."""
        try:
            while True:
                self._outdated.discard(device_id)
                await self._store_signed(device_id)
                found = await self._lookup(self._pending[device_id])
                if device_id not in self._outdated:
                    break
        except ControllerError as e:
            self._log("report key lookup failed", {"device": device_id, "trouble": str(e)})
        else:
            now, before = self._clock.monotonic(), self._cache.get(device_id)
            keyid = self._pending[device_id].keyid
            unknown_at = float("-inf") if before is None else before.unknown_at
            self._cache[device_id] = _CachedKeys(found, now, now if keyid and keyid not in found.keys else unknown_at)
        finally:
            self._outdated.discard(device_id)
            self._pending.pop(device_id, None)

    async def _store_signed(self, device_id: str) -> None:
        """Stores the newest key that signed, so that an older one is not valid again after a restart."""
        key = self._signed.get(device_id)
        if key is not None:
            await self._store.register(device_id, key, self._clock.now())
            if self._signed.get(device_id) == key:
                del self._signed[device_id]

    async def _lookup(self, pending: _PendingLookup) -> CertifiedKeys:
        device_id = pending.device_id
        certified = await self._store.certified(device_id, self._clock.now())
        if certified is not None:  # a device with certificates signs with no other key
            if pending.keyid and pending.keyid not in certified.keys:
                await self._record_key_conflict(pending, certified)
            return certified
        return CertifiedKeys(await self._keys(pending), {})

    async def _record_key_conflict(self, pending: _PendingLookup, certified: CertifiedKeys) -> None:
        """Audits whose certificate signed a report in this device's branch."""
        owner = await self._store.owner(pending.keyid)
        detail: dict[str, object] = {
            "topic": pending.device_id,
            "payload": pending.named,
            "certificate": owner or "",
            "key": pending.keyid,
            "why": certified.over.get(pending.keyid, "the certificate is another device's" if owner else "unknown key"),
        }
        await self._record(AuditKind.REPORT_CERTIFICATE_MISMATCHED, pending.device_id, detail, alert=True)

    async def _keys(self, pending: _PendingLookup) -> Mapping[str, PublicKey]:
        held = await self._store.registered(pending.device_id)
        if held is not None:
            return await self._stored_keys(pending, held)
        return await self._trust_on_first_use(pending) if pending.offered else _NONE

    async def _stored_keys(self, pending: _PendingLookup, held: bytes) -> Mapping[str, PublicKey]:
        key = load_public_key(held)
        if pending.keyid and pending.keyid != report_key_id(key):
            detail: dict[str, object] = {"registered": report_key_id(key), "presented": pending.keyid}
            await self._record(AuditKind.KEY_MISMATCHED, pending.device_id, detail, alert=True)
        return {report_key_id(key): key}

    async def _trust_on_first_use(self, pending: _PendingLookup) -> Mapping[str, PublicKey]:
        try:
            key = load_public_key(pending.offered)
        except ValueError:
            return _NONE
        if report_key_id(key) != pending.keyid:
            return _NONE
        try:
            async with asyncio.timeout(GRADE_SECONDS):
                grade = await self._grade(pending.device_id, heard_at=pending.heard_at)
        except TimeoutError:
            return _NONE
        if grade is not AuthStrength.PROVEN:
            detail: dict[str, object] = {"presented": pending.keyid, "session": grade.value}
            await self._record(AuditKind.KEY_REGISTRATION_REFUSED, pending.device_id, detail)
            return _NONE
        await self._store.register(pending.device_id, public_key_der(key), self._clock.now())
        await self._record(AuditKind.KEY_REGISTERED, pending.device_id, {"key": pending.keyid})
        return {pending.keyid: key}

    async def _record(self, kind: AuditKind, device_id: str, detail: dict[str, object], *, alert: bool = False) -> None:
        if not self._fleet.store.health.trouble:
            await self._fleet.record(AuditEntry(kind, device_id, "cordon", "", detail, alert))
