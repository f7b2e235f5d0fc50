"""A process of its own that uses the store in a way that only a process can: it is killed, starved or has no rights."""

import asyncio
import os
import resource
import sys
from itertools import count
from pathlib import Path

from controller.ports.errors import StoreError
from tests.support.store import Logged, commit_all, line, opened
from tests.support.waiting import eventually

NOBODY = 65534
ROOM = 256 * 1024  # bytes the starved process may still write to a file


async def commit(path: Path, prefix: str) -> None:
    """Say each name as soon as its commit returned, from several callers at once, until killed."""
    async with opened(path) as store, asyncio.TaskGroup() as group:

        async def caller(number: int) -> None:
            for step in count():
                name = f"{prefix}-{number}-{step}"
                await store.commit(line(name))
                print(name, flush=True)

        for number in range(8):
            group.create_task(caller(number))


async def starve(path: Path) -> None:
    """Run out of room, say why, go on when told that there is room again."""
    log = Logged()
    async with opened(path, log=log) as store:
        await commit_all(store, ["before"])
        # The shared memory beside the database is as large as it will be; only the log has to grow.
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
        async with asyncio.TaskGroup() as group:
            group.create_task(commit_all(store, [f"name-{number}" for number in range(3000)]))
            await eventually(lambda: store.health.trouble != "")
            print(store.health.trouble, flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.health.trouble == ""
        print(",".join(log.events), flush=True)


async def try_open(path: Path) -> None:
    """Open without the rights that root has; say what came of it."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        async with opened(path):
            print("opened", flush=True)
    except StoreError as error:
        print(error, flush=True)


def main() -> None:
    what, path, *more = sys.argv[1:]
    match what:
        case "commit":
            asyncio.run(commit(Path(path), *more))
        case "starve":
            asyncio.run(starve(Path(path)))
        case "open":
            asyncio.run(try_open(Path(path)))
        case _:
            raise SystemExit(f"no such thing to do: {what}")


if __name__ == "__main__":
    main()
