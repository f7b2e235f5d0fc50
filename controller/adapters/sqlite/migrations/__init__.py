"""Every version of the tables, one file each, in the order in which they are applied."""

from controller.adapters.sqlite.migrations import (
    m0001_first,
    m0002_guards,
    m0006_token_scopes,
    m0007_rollouts,
)
from controller.adapters.sqlite.migrations.registry import KNOWN, migrations

__all__ = [
    "KNOWN",
    "m0001_first",
    "m0002_guards",
    "m0006_token_scopes",
    "m0007_rollouts",
    "migrations",
]
