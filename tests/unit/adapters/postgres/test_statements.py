"""What several callers write is merged into what one after the other would have left."""

from controller.adapters.postgres.connection import numbered


def test_placeholders_are_numbered() -> None:
    assert numbered("SELECT ?, a FROM t WHERE b = ? LIMIT ?") == "SELECT $1, a FROM t WHERE b = $2 LIMIT $3"
    assert numbered("SELECT 1") == "SELECT 1"
