"""Finds out by which keys devices sign: from the registry of certificates, else from the first proven contact.

A key that a report brings with it is believed once, while the broker vouches that the device's session came in with a
verified certificate of its name; from then on it is the device's key until an operator has it forgotten.
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

MAX_WAITING: Final = 1024  # devices whose key is being found out; others ask again
FRESH: Final = 30.0  # seconds after which a key is looked up again: certificates are revoked
GRADE_SECONDS: Final = 5.0  # for the broker's word on one session
_NONE: Final[Mapping[str, PublicKey]] = {}


class DeviceKeyStore(Protocol):
    """Where keys are kept, and where certificates tell of them."""

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
        """Keep it."""
        ...

    async def forget(self, device_id: str) -> bool:
        """Whether there was one."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    found: CertifiedKeys
    at: float  # monotonic seconds
    stranger_at: float = float("-inf")  # when a key that is not among them was looked up last, the same


@dataclass(frozen=True, slots=True)
class _Wanted:
    device_id: str
    keyid: str
    offered: bytes
    named: str
    heard_at: float  # Unix seconds


class AuthStrengthSource(Protocol):
    """The broker's word on who spoke."""

    def __call__(self, client_id: str, *, heard_at: float | None = None) -> Awaitable[AuthStrength]:
        """See `BrokerControl.grade`."""
        ...


class DeviceKeyring:
    """`DeviceKeys` over a book of keys and the broker's word."""

    def __init__(self, book: DeviceKeyStore, grade: AuthStrengthSource, fleet: FleetState, log: Log) -> None:
        self._book = book
        self._grade = grade
        self._fleet = fleet
        self._clock = fleet.clock
        self._log = log
        self._known: dict[str, _Known] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._wanted: dict[str, _Wanted] = {}  # of the devices in the queue
        self._outdated: set[str] = set()  # of these: their certificates changed after they were asked for
        self._signed: dict[str, bytes] = {}  # newest keys that signed, to be kept

    def keys_for(self, device_id: str) -> Mapping[str, PublicKey] | None:
        """See `DeviceKeys`; what was looked up a while ago is looked up again, and counts meanwhile."""
        known = self._known.get(device_id)
        if known is None:
            return None
        if self._clock.monotonic() - known.at > FRESH:
            self.request_lookup(device_id, "", b"")
            if not known.found.keys:
                return None
        return known.found.keys

    def rejection_reason(self, device_id: str, keyid: str) -> str:
        """See `DeviceKeys`."""
        known = self._known.get(device_id)
        why = None if known is None else known.found.over.get(keyid)
        if why is None:
            return "signed with a key that is not this device's"
        return f"signed with a certificate of this device that does not count: {why}"

    def record_use(self, device_id: str, keyid: str) -> None:
        """See `DeviceKeys`."""
        known = self._known.get(device_id)
        if known is None or keyid not in known.found.keys or next(iter(known.found.keys)) == keyid:
            return  # the usual case: there is no older one
        names = list(known.found.keys)
        former = dict.fromkeys(names[: names.index(keyid)], SUPERSEDED)
        keys = {name: key for name, key in known.found.keys.items() if name not in former}
        self._known[device_id] = replace(known, found=CertifiedKeys(keys, {**known.found.over, **former}))
        self._signed[device_id] = public_key_der(keys[keyid])
        self.request_lookup(device_id, "", b"")

    def changed(self, device_id: str) -> None:
        """The registry has a new certificate of this device, or takes one back: what was known counts no more."""
        if self._known.pop(device_id, None) is None:
            return
        if device_id in self._wanted:
            self._outdated.add(device_id)
        else:
            self.request_lookup(device_id, "", b"")

    def request_lookup(self, device_id: str, keyid: str, offered: bytes, named: str = "") -> None:
        """See `DeviceKeys`."""
        waiting = self._wanted.get(device_id)
        if waiting is not None:
            if keyid and not waiting.keyid:
                self._wanted[device_id] = _Wanted(device_id, keyid, offered, named, self._clock.now())
            return
        if self._queue.full():
            return
        known = self._known.get(device_id)
        if known is not None and keyid and self._clock.monotonic() - known.stranger_at <= FRESH:
            return  # one was looked up a moment ago: whoever sends many does not keep us busy
        self._wanted[device_id] = _Wanted(device_id, keyid, offered, named, self._clock.now())
        self._queue.put_nowait(device_id)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look(await self._queue.get())

    async def drain(self) -> None:
        """Find out what is waiting now."""
        while not self._queue.empty():
            await self.look(self._queue.get_nowait())

    async def forget(self, device_id: str) -> bool:
        """An operator has the key forgotten: the next proven contact brings another."""
        self._known.pop(device_id, None)
        self._signed.pop(device_id, None)
        return await self._book.forget(device_id)

    async def look(self, device_id: str) -> None:
        """Find out one device's keys."""
        try:
            while True:
                self._outdated.discard(device_id)
                await self._keep_signed(device_id)
                found = await self._found(self._wanted[device_id])
                if device_id not in self._outdated:
                    break
        except ControllerError as e:
            self._log("report key not found out", {"device": device_id, "trouble": str(e)})
        else:
            now, before = self._clock.monotonic(), self._known.get(device_id)
            keyid = self._wanted[device_id].keyid
            stranger_at = float("-inf") if before is None else before.stranger_at
            self._known[device_id] = _Known(found, now, now if keyid and keyid not in found.keys else stranger_at)
        finally:
            self._outdated.discard(device_id)
            self._wanted.pop(device_id, None)

    async def _keep_signed(self, device_id: str) -> None:
        """Keep which key signed last, so that a former one does not count again after a restart."""
        key = self._signed.get(device_id)
        if key is not None:
            await self._book.register(device_id, key, self._clock.now())
            if self._signed.get(device_id) == key:
                del self._signed[device_id]

    async def _found(self, wanted: _Wanted) -> CertifiedKeys:
        device_id = wanted.device_id
        certified = await self._book.certified(device_id, self._clock.now())
        if certified is not None:  # the registry knows this device: nothing else counts
            if wanted.keyid and wanted.keyid not in certified.keys:
                await self._disagree(wanted, certified)
            return certified
        return CertifiedKeys(await self._keys(wanted), {})

    async def _disagree(self, wanted: _Wanted, certified: CertifiedKeys) -> None:
        """Tell whose certificate signed what came in this device's branch."""
        owner = await self._book.owner(wanted.keyid)
        detail: dict[str, object] = {
            "topic": wanted.device_id,
            "payload": wanted.named,
            "certificate": owner or "",
            "key": wanted.keyid,
            "why": certified.over.get(wanted.keyid, "the certificate is another device's" if owner else "unknown key"),
        }
        await self._record(AuditKind.REPORT_CERTIFICATE_MISMATCHED, wanted.device_id, detail, alert=True)

    async def _keys(self, wanted: _Wanted) -> Mapping[str, PublicKey]:
        held = await self._book.registered(wanted.device_id)
        if held is not None:
            return await self._held(wanted, held)
        return await self._first_contact(wanted) if wanted.offered else _NONE

    async def _held(self, wanted: _Wanted, held: bytes) -> Mapping[str, PublicKey]:
        key = load_public_key(held)
        if wanted.keyid and wanted.keyid != report_key_id(key):
            detail: dict[str, object] = {"registered": report_key_id(key), "presented": wanted.keyid}
            await self._record(AuditKind.KEY_MISMATCHED, wanted.device_id, detail, alert=True)
        return {report_key_id(key): key}

    async def _first_contact(self, wanted: _Wanted) -> Mapping[str, PublicKey]:
        try:
            key = load_public_key(wanted.offered)
        except ValueError:
            return _NONE
        if report_key_id(key) != wanted.keyid:
            return _NONE
        try:
            async with asyncio.timeout(GRADE_SECONDS):
                grade = await self._grade(wanted.device_id, heard_at=wanted.heard_at)
        except TimeoutError:
            return _NONE
        if grade is not AuthStrength.PROVEN:
            detail: dict[str, object] = {"presented": wanted.keyid, "session": grade.value}
            await self._record(AuditKind.KEY_REGISTRATION_REFUSED, wanted.device_id, detail)
            return _NONE
        await self._book.register(wanted.device_id, public_key_der(key), self._clock.now())
        await self._record(AuditKind.KEY_REGISTERED, wanted.device_id, {"key": wanted.keyid})
        return {wanted.keyid: key}

    async def _record(self, kind: AuditKind, device_id: str, detail: dict[str, object], *, alert: bool = False) -> None:
        if not self._fleet.store.health.trouble:
            await self._fleet.record(AuditEntry(kind, device_id, "cordon", "", detail, alert))
