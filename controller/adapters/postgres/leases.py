"""What this controller holds beside others: buckets and leadership, taken and given away in fenced transactions.

A connection of its own listens and looks each second at who is there; what follows is written by the writer, so that a
run whose lease is over can neither take nor give. A lease lasts as long as the writer renews it, which it does only
while the event loop lives.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor

from controller.adapters.postgres import errors, registration
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.connection import numbered, session_settings
from controller.adapters.postgres.registration import Held, Registration
from controller.adapters.postgres.statements import HANDED_OVER
from controller.adapters.postgres.writer import PostgresWriter
from controller.adapters.sql.connection import WriteJob
from controller.ports.errors import StoreError
from controller.ports.leases import BUCKETS, ControllerInfo, Quiesce, bucket_of
from controller.ports.log import Log

T = TypeVar("T")
LOOK_EVERY: Final = 1.0  # seconds
_PULSE: Final = 0.25  # seconds between two looks at the own lease
# Leases count as over only for who could have seen their renewal: nobody renews while the server is away or halted.
_SEEN_FOR: Final = registration.LEASE + registration.GRACE  # seconds
_ANSWER: Final = 5.0  # seconds for the server's answer
_BREAK: Final = 2.5  # seconds between two looks, by either clock, in which others may have been kept from renewing
# After a lost connection others may take longer to notice it (tcp_user_timeout), and to find the server that is there.
_OTHERS_BACK: Final = 10.0  # seconds
_STATE: Final = (
    "SELECT extract(epoch FROM clock_timestamp())::float8,"  # noqa: S608 - constants
    " array(SELECT writer FROM writers WHERE (ready OR writer = ?) AND NOT fenced ORDER BY writer),"
    f" array(SELECT writer FROM writers WHERE {registration.OVER}),"
    " array(SELECT bucket FROM buckets WHERE writer = ?),"
    " (SELECT count(*) FROM buckets WHERE writer = 0), leader, leader_epoch,"
    " coalesce((SELECT url FROM writers WHERE writer = leader AND NOT fenced), '') FROM fleet"
)


@dataclass(frozen=True, slots=True)
class StoreState:
    """Who is there: runs that have a share (and this one), others whose lease is over, own buckets, number of free
    buckets, leader, its epoch and URL.
    """

    live: tuple[int, ...]
    over: tuple[int, ...]
    mine: frozenset[int]
    free: int
    leader: int
    epoch: int
    url: str


class PostgresLeases:
    """`controller.ports.leases.Leases` of one run, as registered in the beginning."""

    is_shared: Final = True

    def __init__(
        self,
        address: PostgresAddress,
        writer: PostgresWriter,
        run: Registration,
        read: Callable[[Callable[[Any], Any]], Awaitable[Any]],
        now: Callable[[], float],
        log: Log,
    ) -> None:
        self._address = address
        self._writer = writer
        self._read = read
        self._now = now
        self._log = log
        self.run_number = run.writer
        self._leads = self._epoch = 0
        self._is_ready = False  # whether the others leave it its share
        self._leaving: frozenset[int] = frozenset()
        self._quiesce: list[Quiesce] = []
        self._watchers: set[asyncio.Event] = set()
        self._told: tuple[frozenset[int], bool, int] = (frozenset(), False, 0)
        self._handed: set[int] = set()
        self._has_handed = asyncio.Event()
        self._named: set[str] = set()
        self._has_named = asyncio.Event()
        self._turn = 0  # the bucket that is read again with the next look
        self._is_away = False
        self._looked: tuple[float, float] | None = None  # the last look, by the monotonic and by the server's clock
        self._judges_from = 0.0  # monotonic
        self.fenced = 0
        self.leader_url = ""
        self.buckets: frozenset[int] = frozenset()

    @property
    def is_leader(self) -> bool:
        return self._leads > 0 and self.lease_left() > 0

    @property
    def leader_epoch(self) -> int:
        return self._epoch

    @property
    def clock_offset(self) -> float:
        return self._writer.clock_offset

    def lease_left(self) -> float:
        return self._writer.lease_end - time.monotonic()

    async def changes(self) -> AsyncIterator[None]:
        changed = asyncio.Event()
        changed.set()
        self._watchers.add(changed)
        try:
            while True:
                await changed.wait()
                changed.clear()
                yield
        finally:
            self._watchers.discard(changed)

    async def handed_over(self) -> AsyncIterator[frozenset[int]]:
        while True:
            await self._has_handed.wait()
            self._has_handed.clear()
            found, self._handed = self.buckets & self._handed, set()
            if found:
                yield found

    async def devices_handed_over(self) -> AsyncIterator[frozenset[str]]:
        while True:
            await self._has_named.wait()
            self._has_named.clear()
            found, self._named = frozenset(self._named), set()
            yield found

    async def announce(self, url: str) -> None:
        def change(connection: Any) -> None:
            connection.execute("UPDATE writers SET url = ? WHERE writer = ?", (url, self.run_number))
            registration.tell(connection)

        await self._submit(change)

    def before_release(self, quiesce: Quiesce) -> None:
        self._quiesce.append(quiesce)

    async def controllers(self) -> Sequence[ControllerInfo]:
        found: list[ControllerInfo] = await self._read(registration.running)
        return found

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pulse(), name="lease pulse")
            while True:
                try:
                    await self._follow(group)
                except (psycopg.Error, StoreError, TimeoutError) as error:
                    if not self._is_away:
                        self._log("leases cannot be read", {"trouble": errors.words(error)})
                    self._is_away, self._looked = True, None
                await asyncio.sleep(LOOK_EVERY)

    async def _pulse(self) -> None:
        """Shows the writer that the loop lives, and tells when the lease ends or is there again."""
        while True:
            self._writer.loop_seen_at = time.monotonic()
            self._tell()
            await asyncio.sleep(_PULSE)

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        connection = await AsyncConnection.connect(
            **self._address.with_name(f"cordon leases {self.run_number}"),  # type: ignore[arg-type]  # all are texts
            autocommit=True,
        )
        try:
            async with asyncio.timeout(_ANSWER):
                await connection.execute(session_settings(read_only=False))
                await connection.execute(f"LISTEN {HANDED_OVER}; LISTEN {registration.CHANGED}")
            if self._is_away:
                self._judges_from = time.monotonic() + _SEEN_FOR + _OTHERS_BACK
            self._is_away = False
            self._hand_over(self.buckets)  # what was said while nobody listened
            while True:
                async with asyncio.timeout(_ANSWER):
                    state = await self._look(connection)
                    if state.over:
                        await self._terminate(connection)
                await self._act(state, group)
                self._turn = (self._turn + 1) % BUCKETS
                self._hand_over(self.buckets & {self._turn})
                await self._listen(connection)
        finally:
            await connection.close()

    async def _look(self, connection: AsyncConnection[Any]) -> StoreState:
        cursor: AsyncRawCursor[Any] = AsyncRawCursor(connection)
        await cursor.execute(numbered(_STATE), (self.run_number, self.run_number))
        row = await cursor.fetchone()
        assert row is not None
        told, live, over, mine, free, leader, epoch, url = row
        others = tuple(one for one in over if one != self.run_number) if self._may_judge(told) else ()
        return StoreState(tuple(live), others, frozenset(mine), free, leader, epoch, url)

    def _may_judge(self, told: float) -> bool:
        """Whether others had the time to renew their leases: the server answered, and its clock made no leap.

        `told`: the server's clock, in Unix seconds.
        """
        now = (time.monotonic(), told)
        if self._looked is None or max(now[0] - self._looked[0], now[1] - self._looked[1]) > _BREAK:
            self._judges_from = max(self._judges_from, now[0] + _SEEN_FOR)
        self._looked = now
        return now[0] >= self._judges_from

    async def _terminate(self, connection: AsyncConnection[Any]) -> None:
        """Ends the connections of runs whose lease is over: one within a transaction keeps its row locked."""
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # then the server ends it in time
            await AsyncRawCursor(connection).execute(numbered(registration.TERMINATE), (self.run_number,))

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        """Takes what other controllers say for `LOOK_EVERY`, or until one of them came, went or gave away."""
        end = time.monotonic() + LOOK_EVERY
        has_changed = False
        while not has_changed and (left := end - time.monotonic()) > 0:
            # All that came at once: what is left of it when the generator ends is lost.
            async for note in connection.notifies(timeout=left, stop_after=1):
                if note.channel == registration.CHANGED:
                    has_changed = True
                elif bucket_of(note.payload) in self.buckets:
                    self._named.add(note.payload)
                    self._has_named.set()

    async def _act(self, state: StoreState, group: asyncio.TaskGroup) -> None:
        if self.run_number not in state.live:
            return  # fenced: the writer finds out when it renews the lease
        self._epoch, self.leader_url = state.epoch, state.url
        # Somebody may have changed the rows, as by a restore of the database.
        self._hold(self.buckets & state.mine)
        self._leads = self._leads if state.leader == self.run_number else 0
        wanted = registration.share(self.run_number, [one for one in state.live if one not in state.over])
        if not self._is_ready or state.over or state.leader == 0 or (state.free and len(state.mine) < wanted):
            await self._take(state.over)
        elif len(state.mine) > wanted and not self._leaving:
            self._leaving = frozenset(sorted(state.mine)[wanted:])
            self._hold(state.mine)
            group.create_task(self._give_away(self._leaving), name="release of buckets")
        self._tell()

    async def _take(self, over: Sequence[int]) -> None:
        """Fences those of `over` whom nobody fenced yet, and takes what is free."""
        now, run = self._now(), self.run_number

        def take(connection: Any) -> tuple[list[str], Held]:
            fenced = registration.fence(connection, over, now)
            return fenced, registration.claim(connection, run)

        fenced, held = await self._submit(take)
        self._is_ready = True
        self.fenced += len(fenced)
        for one in fenced:
            self._log("a controller whose lease was over was fenced", {"name": one})
        if held.leads and held.leads != self._leads:
            self._log("this controller leads", {"epoch": held.leads})
        self._leads, self._epoch = held.leads, max(self._epoch, held.leads)
        self._hold(held.buckets)

    async def _give_away(self, buckets: frozenset[int]) -> None:
        try:
            for quiesce in self._quiesce:
                await quiesce(buckets)
            mine = await self._submit(lambda connection: registration.give_away(connection, self.run_number, buckets))
        except StoreError:
            return  # fenced, or closed
        finally:
            self._leaving = frozenset()
        self._hold(mine)
        self._tell()

    def _submit(self, change: Callable[[Any], T]) -> "asyncio.Future[T]":
        return self._writer.submit(WriteJob(change, alone=False))

    def _hold(self, mine: frozenset[int]) -> None:
        before, self.buckets = self.buckets, mine - self._leaving
        self._writer.held = self.buckets
        self._hand_over(self.buckets - before)

    def _hand_over(self, buckets: "frozenset[int] | set[int]") -> None:
        if buckets:
            self._handed |= buckets
            self._has_handed.set()

    def _tell(self) -> None:
        present = (self.buckets, self.is_leader, self._epoch)
        if present != self._told:
            self._told = present
            for changed in self._watchers:
                changed.set()
