"""Requests that wait for what they asked for: bounded in time and number, woken by commits, ended by the controller's
stop.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import StrEnum
from typing import Final

from controller.domain.containment.proof import DecisionProof, ProofState
from controller.service.unit_of_work import UnitOfWork

MAX_WAITERS: Final = 64
MAX_WAITERS_PER_CALLER: Final = 8
# Seconds of trouble that end a wait: the first retry follows within 0.2 s, so one failed call is no failure yet.
TROUBLE_GRACE: Final = 3.0
_RECHECK: Final = 1.0  # seconds; nothing wakes a waiter when the grace is over

Watch = Callable[[float], bool]  # whether the wait for one subject is over, at these seconds of the loop's clock


class WaitEnd(StrEnum):
    """How a wait ended. `no`: nothing was waited for."""

    NO = "no"
    SETTLED = "settled"
    TIMED_OUT = "timed_out"
    STOPPING = "stopping"
    TOO_MANY = "too_many"
    DISCONNECTED = "disconnected"


class ProofWatch:
    """Over once a decision is proven, superseded, or in trouble or partial for `TROUBLE_GRACE` without a break."""

    def __init__(self, proof: Callable[[], DecisionProof]) -> None:
        self._proof = proof
        self._troubled_since: float | None = None

    def __call__(self, now: float) -> bool:
        state = self._proof().state
        if state not in (ProofState.IN_TROUBLE, ProofState.PARTIAL):
            self._troubled_since = None
            return state is not ProofState.PENDING
        self._troubled_since = now if self._troubled_since is None else self._troubled_since
        return now - self._troubled_since >= TROUBLE_GRACE


class _Waiter:
    def __init__(self, watches: Mapping[str, Watch]) -> None:
        self._left = dict(watches)
        self._changed = set(watches)
        self._woken = asyncio.Event()

    def wake(self, subject: str) -> None:
        self._changed.add(subject)
        self._woken.set()

    def stop(self) -> None:
        self._woken.set()

    def is_settled(self, now: float) -> bool:
        for subject in self._changed & self._left.keys():
            if self._left[subject](now):
                del self._left[subject]
        self._changed.clear()
        return not self._left

    async def changed(self) -> None:
        """Returns after a subject has changed or `_RECHECK` seconds have passed."""
        try:
            async with asyncio.timeout(_RECHECK):
                await self._woken.wait()
        except TimeoutError:
            self._changed.update(self._left)
        self._woken.clear()


class Waiters:
    """The waits under way, by what they wait for: device ids, or `username:NAME`. A commit listener."""

    def __init__(self) -> None:
        self._by_subject: dict[str, set[_Waiter]] = {}
        self._by_caller: Counter[str] = Counter()
        self._stopping = False

    def __len__(self) -> int:
        """The number of waits under way."""
        return self._by_caller.total()

    @property
    def subjects(self) -> Collection[str]:
        """What is waited for."""
        return self._by_subject.keys()

    def on_commit(self, batch: UnitOfWork) -> None:
        if not self._by_subject:
            return
        for subject in self._by_subject.keys() & batch.devices.keys():
            self.wake(subject)
        for _, entry in batch.audit:
            if not entry.device_id and entry.detail:
                self.wake(str(entry.detail.get("identity", "")))

    def wake(self, subject: str) -> None:
        """The state of the subject has changed: its waits check it again."""
        for waiter in self._by_subject.get(subject, ()):
            waiter.wake(subject)

    def close(self) -> None:
        """Ends every wait: the controller stops."""
        self._stopping = True
        for waiters in self._by_subject.values():
            for waiter in waiters:
                waiter.stop()

    async def wait(self, watches: Mapping[str, Watch], seconds: float, caller: str) -> WaitEnd:
        """Returns when every watch is over, by subject, or after `seconds`; `caller` has a share of the waits."""
        if len(self) >= MAX_WAITERS or self._by_caller[caller] >= MAX_WAITERS_PER_CALLER:
            return WaitEnd.TOO_MANY
        waiter, clock = _Waiter(watches), asyncio.get_running_loop().time
        with self._registered(waiter, watches, caller):
            try:
                async with asyncio.timeout(seconds):
                    # Registered before the first look: what changes in between wakes it.
                    while not waiter.is_settled(clock()):
                        if self._stopping:
                            return WaitEnd.STOPPING
                        await waiter.changed()
            except TimeoutError:
                return WaitEnd.TIMED_OUT
        return WaitEnd.SETTLED

    @contextlib.contextmanager
    def _registered(self, waiter: _Waiter, subjects: Mapping[str, Watch], caller: str) -> Iterator[None]:
        self._by_caller[caller] += 1
        for subject in subjects:
            self._by_subject.setdefault(subject, set()).add(waiter)
        try:
            yield
        finally:
            self._by_caller -= Counter([caller])
            for subject in subjects:
                self._by_subject[subject].discard(waiter)
                if not self._by_subject[subject]:
                    del self._by_subject[subject]
