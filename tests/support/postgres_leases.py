"""A controller's store on PostgreSQL that takes, keeps and gives away what it holds, beside others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from controller.adapters.postgres.leases import PostgresLeases
from controller.adapters.postgres.store import PostgresStore
from tests.support.postgres_store import opened
from tests.support.store import QUICK


@contextlib.asynccontextmanager
async def running(url: str, name: str) -> AsyncIterator[PostgresStore]:
    """A store of a controller that keeps its leases."""
    async with opened(url, name, options=QUICK) as store:
        task = asyncio.get_running_loop().create_task(store.run())
        try:
            yield store
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ExceptionGroup):
                await task


def leases_of(store: PostgresStore) -> PostgresLeases:
    assert store.shared_leases is not None
    return store.shared_leases
