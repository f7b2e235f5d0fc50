"""What is done to the controllers and to the database, one after the other, while devices report."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from tests.soak.cluster import Cluster, Member

Fault = Callable[[Cluster, Member, random.Random], Awaitable[None]]


async def kill(_cluster: Cluster, member: Member, _chance: random.Random) -> None:
    """A controller is killed with kill -9."""
    member.signal(signal.SIGKILL)


async def end(_cluster: Cluster, member: Member, _chance: random.Random) -> None:
    """A controller leaves in order, and comes back."""
    member.signal(signal.SIGTERM)


async def halt(_cluster: Cluster, member: Member, chance: random.Random) -> None:
    """A controller gets no processor time, so that the others have to take over; then it goes on."""
    process = member.process
    member.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(chance.uniform(1.0, 9.0))
    finally:
        if member.process is process:
            member.signal(signal.SIGCONT)


async def kick(cluster: Cluster, member: Member, _chance: random.Random) -> None:
    """The broker ends a controller's session, with what was not acknowledged in it."""
    url = f"{cluster.emqx.api_urls[0]}/api/v5/clients/{member.client_id}"
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.delete(url, auth=(cluster.emqx.key, cluster.emqx.secret), timeout=10)


async def lose_commit(_cluster: Cluster, member: Member, chance: random.Random) -> None:
    """A commit of a controller gets lost, or its answer."""
    member.proxy.lost.clear()
    member.proxy.lose_next(after_the_server=chance.random() < 0.7)
    try:
        async with asyncio.timeout(20.0):
            await member.proxy.lost.wait()
    except TimeoutError:
        member.proxy.lose_none()


async def restart_database(cluster: Cluster, _member: Member, _chance: random.Random) -> None:
    """PostgreSQL restarts at once."""
    await asyncio.to_thread(cluster.server.stop)
    await asyncio.to_thread(cluster.server.start)


async def crash_database(cluster: Cluster, _member: Member, chance: random.Random) -> None:
    """PostgreSQL is killed, and away for a while."""
    await asyncio.to_thread(cluster.server.kill)
    await asyncio.sleep(chance.choice([0.0, 2.0, 10.0]))
    await asyncio.to_thread(cluster.server.start)


async def lose_database(cluster: Cluster, _member: Member, _chance: random.Random) -> None:
    """PostgreSQL is away for a minute."""
    await asyncio.to_thread(cluster.server.stop)
    await asyncio.sleep(60.0)
    await asyncio.to_thread(cluster.server.start)


async def pause_database(cluster: Cluster, _member: Member, chance: random.Random) -> None:
    """PostgreSQL does not answer, with open connections."""
    cluster.server.pause()
    await asyncio.sleep(chance.uniform(1.0, 8.0))
    cluster.server.resume()


async def skew_clock(_cluster: Cluster, member: Member, chance: random.Random) -> None:
    """A controller runs for a while with a clock that is wrong by seconds."""
    member.skew = chance.choice([-30.0, -3.0, 3.0, 30.0])
    member.signal(signal.SIGKILL)
    await asyncio.sleep(12.0)
    member.skew = 0.0
    member.signal(signal.SIGKILL)


# How often each comes, of all.
FAULTS: Final[dict[Fault, int]] = {
    kill: 30,
    end: 12,
    halt: 15,
    kick: 10,
    lose_commit: 12,
    restart_database: 7,
    crash_database: 6,
    lose_database: 1,
    pause_database: 4,
    skew_clock: 3,
}
