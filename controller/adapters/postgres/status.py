"""What an operator asks of the database: who writes, in which form, and whether another server has every commit."""

from typing import Any, Final

import psycopg

from controller.adapters.postgres import errors, registration, schema
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.connection import connect
from controller.adapters.sql import audit_chain, queries

_STANDBYS: Final = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"


def status(address: PostgresAddress) -> dict[str, Any]:
    """Returns it as JSON.

    Raises:
        StoreError: no server, or no store of this version in the database.
    """
    try:
        connection = connect(address, "cordon store status", read_only=True)
        try:
            schema.check_level(connection, address.shown)
            found = registration.running(connection)
            version, size, standbys, schema_level, write_level = (
                connection.execute(query).fetchone()[0]
                for query in (
                    "SELECT current_setting('server_version')",
                    "SELECT pg_database_size(current_database())",
                    _STANDBYS,
                    "SELECT schema_level FROM fleet",
                    "SELECT write_level FROM fleet",
                )
            )
            return {
                "store": address.shown,
                "engine": f"PostgreSQL {version}",
                "controller": None
                if found is None
                else {"name": found.name, "since": found.since.timestamp(), "live": found.is_live},
                "schema_level": schema_level,
                "write_level": write_level,
                "synchronous_standbys": standbys,
                "bytes": size,
                "audit_head": str(audit_chain.heads(connection)),
                "rows": queries.counts(connection),
            }
        finally:
            connection.close()
    except psycopg.Error as error:
        raise errors.as_store_error(error, f"cannot read the store {address.shown}") from error
