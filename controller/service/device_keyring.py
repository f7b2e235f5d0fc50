"""Finds out by which keys devices sign: from the registry of certificates, else from the first proven contact.

A key that a report brings with it is believed once, while the broker vouches that the device's session came in with a
verified certificate of its name; from then on it is the device's key until an operator has it forgotten.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from controller.domain.effects import AuditEntry
from controller.ports.broker import Grade
from controller.ports.clock import Clock
from controller.ports.errors import ControllerError
from controller.ports.store import Store, Writes
from schemas.report_signing import PublicKey, name_of, public_bytes, read_public

MAX_WAITING: Final = 1024  # devices whose key is being found out; others ask again
FRESH: Final = 30.0  # seconds after which a key is looked up again: certificates are revoked
GRADE_SECONDS: Final = 5.0  # for the broker's word on one session
_NONE: Final[Mapping[str, PublicKey]] = {}
Log = Callable[[str, Mapping[str, object]], None]


class KeyBook(Protocol):
    """Where keys are kept, and where certificates tell of them."""

    async def certified(self, device_id: str, now: float) -> Mapping[str, PublicKey] | None:
        """Keys of certificates of this name that hold; `None` when the registry has never had one of that name."""
        ...

    async def registered(self, device_id: str) -> bytes | None:
        """The key of the first proven contact."""
        ...

    async def register(self, device_id: str, key: bytes, at: float) -> None:
        """Keep it."""
        ...

    async def forget(self, device_id: str) -> bool:
        """Whether there was one."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    keys: Mapping[str, PublicKey]
    at: float  # monotonic seconds


@dataclass(frozen=True, slots=True)
class _Wanted:
    device_id: str
    keyid: str
    offered: bytes


class DeviceKeyring:
    """`DeviceKeys` over a book of keys and the broker's word."""

    def __init__(
        self, book: KeyBook, grade: Callable[[str], Awaitable[Grade]], store: Store, clock: Clock, log: Log
    ) -> None:
        self._book = book
        self._grade = grade
        self._store = store
        self._clock = clock
        self._log = log
        self._known: dict[str, _Known] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._wanted: dict[str, _Wanted] = {}  # of the devices in the queue

    def of(self, device_id: str) -> Mapping[str, PublicKey] | None:
        """See `DeviceKeys`; what was looked up a while ago is looked up again, and counts meanwhile."""
        known = self._known.get(device_id)
        if known is None:
            return None
        if self._clock.monotonic() - known.at > FRESH:
            self.wanted(device_id, "", b"")
            if not known.keys:
                return None
        return known.keys

    def wanted(self, device_id: str, keyid: str, offered: bytes) -> None:
        """See `DeviceKeys`."""
        waiting = self._wanted.get(device_id)
        if waiting is not None:
            if keyid and not waiting.keyid:
                self._wanted[device_id] = _Wanted(device_id, keyid, offered)
            return
        if self._queue.full():
            return
        known = self._known.get(device_id)
        if known is not None and keyid and self._clock.monotonic() - known.at <= FRESH:
            return  # looked up a moment ago, and it is not among them
        self._wanted[device_id] = _Wanted(device_id, keyid, offered)
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
        return await self._book.forget(device_id)

    async def look(self, device_id: str) -> None:
        """Find out one device's keys."""
        wanted = self._wanted[device_id]
        try:
            keys = await self._keys(wanted)
        except ControllerError as e:
            self._log("report key not found out", {"device": device_id, "trouble": str(e)})
        else:
            self._known[device_id] = _Known(keys, self._clock.monotonic())
        finally:
            self._wanted.pop(device_id, None)

    async def _keys(self, wanted: _Wanted) -> Mapping[str, PublicKey]:
        device_id = wanted.device_id
        certified = await self._book.certified(device_id, self._clock.now())
        if certified is not None:
            return certified  # the registry knows this device: nothing else counts
        held = await self._book.registered(device_id)
        if held is not None:
            return await self._held(wanted, held)
        return await self._first_contact(wanted) if wanted.offered else _NONE

    async def _held(self, wanted: _Wanted, held: bytes) -> Mapping[str, PublicKey]:
        key = read_public(held)
        if wanted.keyid and wanted.keyid != name_of(key):
            detail: dict[str, object] = {"registered": name_of(key), "presented": wanted.keyid}
            await self._record("another key signs reports", wanted.device_id, detail, alert=True)
        return {name_of(key): key}

    async def _first_contact(self, wanted: _Wanted) -> Mapping[str, PublicKey]:
        try:
            key = read_public(wanted.offered)
        except ValueError:
            return _NONE
        if name_of(key) != wanted.keyid:
            return _NONE
        try:
            async with asyncio.timeout(GRADE_SECONDS):
                grade = await self._grade(wanted.device_id)
        except TimeoutError:
            return _NONE
        if grade is not Grade.PROVEN:
            detail: dict[str, object] = {"presented": wanted.keyid, "session": grade.value}
            await self._record("report key not registered", wanted.device_id, detail)
            return _NONE
        await self._book.register(wanted.device_id, public_bytes(key), self._clock.now())
        await self._record("report key registered", wanted.device_id, {"key": wanted.keyid})
        return {wanted.keyid: key}

    async def _record(self, kind: str, device_id: str, detail: dict[str, object], *, alert: bool = False) -> None:
        if not self._store.health.trouble:
            entry = AuditEntry(kind, device_id, "cordon", "", detail, alert)
            await self._store.commit(Writes(audit=((self._clock.now(), entry),)))
