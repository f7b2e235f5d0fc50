"""What an operator asks of the database: who writes, in which form, and whether another server has every commit."""

from dataclasses import asdict
from typing import Any, Final

import psycopg

from controller.adapters.postgres import errors, registration, schema
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.connection import connect
from controller.adapters.sql import audit_chain, queries
from controller.adapters.sql.connection import SqlConnection

# Without the role pg_monitor the states are hidden: then the number is not known.
_STANDBYS: Final = (
    "SELECT CASE WHEN bool_or(sync_state IS NULL) THEN NULL ELSE count(*) FILTER (WHERE sync_state IN"
    " ('sync', 'quorum')) END FROM pg_stat_replication"
)
_WANTED: Final = "SELECT current_setting('synchronous_standby_names')"


def warnings(connection: SqlConnection) -> tuple[str, ...]:
    """Returns what a failover would cost."""
    if connection.execute(_WANTED).fetchone()[0]:
        return ()
    return ("PostgreSQL has no synchronous standby: a failover loses reports that were acknowledged",)


def status(address: PostgresAddress) -> dict[str, Any]:
    """Returns it as JSON.

    Raises:
        StoreError: no server, or no store of this version in the database.
    """
    try:
        connection = connect(address, "cordon store status", read_only=True)
        try:
            schema.check_level(connection, address.shown)
            version, size, standbys, wanted, schema_level, write_level = (
                connection.execute(query).fetchone()[0]
                for query in (
                    "SELECT current_setting('server_version')",
                    "SELECT pg_database_size(current_database())",
                    _STANDBYS,
                    _WANTED,
                    "SELECT schema_level FROM fleet",
                    "SELECT write_level FROM fleet",
                )
            )
            return {
                "store": address.shown,
                "engine": f"PostgreSQL {version}",
                "controllers": [asdict(one) for one in registration.running(connection)],
                "schema_level": schema_level,
                "write_level": write_level,
                "synchronous_standbys": standbys,
                "synchronous_standby_names": wanted,
                "bytes": size,
                "audit_head": str(audit_chain.heads(connection)),
                "rows": queries.counts(connection),
            }
        finally:
            connection.close()
    except psycopg.Error as error:
        raise errors.as_store_error(error, f"cannot read the store {address.shown}") from error
