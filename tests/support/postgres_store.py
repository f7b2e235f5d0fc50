"""A store on PostgreSQL, as a controller opens it."""

import contextlib
from collections.abc import AsyncIterator

from controller.adapters.postgres.store import PostgresStore, open_store
from controller.adapters.sql.options import StoreOptions
from tests.support.postgres import address_of
from tests.support.store import NOW, QUICK, Logged


@contextlib.asynccontextmanager
async def opened(
    url: str, name: str | None = "first", log: Logged | None = None, options: StoreOptions = QUICK
) -> AsyncIterator[PostgresStore]:
    """`name`: of the controller, `None` for a command."""
    store = await open_store(
        address_of(url), name=name, version="1.2", now=lambda: NOW, log=log or Logged(), options=options
    )
    try:
        yield store
    finally:
        await store.close()
