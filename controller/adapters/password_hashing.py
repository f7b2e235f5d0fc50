"""Passwords hashed by argon2id: one at a time, in a thread that gives way to everything else."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher as Argon2
from argon2 import Type
from argon2.exceptions import InvalidHashError, VerificationError

from controller.domain.accounts.passwords import normalized
from controller.ports.accounts import PasswordHasher, TooManyLoginsError

T = TypeVar("T")
MEMORY: Final = 19 * 1024  # KiB
PASSES: Final = 2
MAX_WAITING: Final = 20  # hashes that wait or are made; each takes a tenth of a second or less
_NICENESS: Final = 10  # below the event loop and the store's threads


class Argon2Hasher(PasswordHasher):
    """`controller.ports.accounts.PasswordHasher`; `made` counts hashes."""

    def __init__(self) -> None:
        self._argon2 = Argon2(time_cost=PASSES, memory_cost=MEMORY, parallelism=1, type=Type.ID)
        self._thread = ThreadPoolExecutor(1, "passwords", _give_way)
        self._waiting = 0
        self.made = 0

    async def hashed(self, password: str) -> str:
        return await self._run(lambda: self._hash(password))

    async def matches(self, password: str, phc: str) -> bool:
        return await self._run(lambda: self._matches(password, phc))

    def is_outdated(self, phc: str) -> bool:
        try:
            return self._argon2.check_needs_rehash(phc)
        except InvalidHashError:
            return True

    def close(self) -> None:
        """Waits for the hash that is being made; what waits is given up."""
        self._thread.shutdown(cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise TooManyLoginsError("too many people sign in at this moment: try again in a few seconds")
        self._waiting += 1
        future = self._thread.submit(work)
        loop = asyncio.get_running_loop()
        # Counted down when the work is done, not when the caller is gone: its place in the thread stays taken.
        future.add_done_callback(lambda _done: _call(loop, self._leave))
        return await asyncio.wrap_future(future)

    def _leave(self) -> None:
        self._waiting -= 1

    def _hash(self, password: str) -> str:
        self.made += 1
        return self._argon2.hash(_bytes(password))

    def _matches(self, password: str, phc: str) -> bool:
        if not phc:
            self._hash(password)
            return False
        self.made += 1
        try:
            return self._argon2.verify(phc, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False


def _bytes(password: str) -> bytes:
    return normalized(password).encode("utf-8", "surrogatepass")


def _give_way() -> None:
    with contextlib.suppress(OSError):  # on Linux of this thread alone
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _call(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(call)
