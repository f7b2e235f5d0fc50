"""A controller's store on PostgreSQL that takes, keeps and gives away what it holds, beside others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from controller.adapters.postgres.leases import PostgresLeases
from controller.adapters.postgres.store import PostgresStore, open_store
from tests.support.postgres import address_of
from tests.support.store import NOW, QUICK, Logged


@contextlib.asynccontextmanager
async def running(url: str, name: str) -> AsyncIterator[PostgresStore]:
    """A store of a controller that keeps its leases."""
    store = await open_store(address_of(url), name=name, version="1.2", now=lambda: NOW, log=Logged(), options=QUICK)
    task = asyncio.get_running_loop().create_task(store.run())
    try:
        yield store
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ExceptionGroup):
            await task
        await store.close()


def leases_of(store: PostgresStore) -> PostgresLeases:
    assert store.shared_leases is not None
    return store.shared_leases
