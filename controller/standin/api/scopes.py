"""The scope of an API key that each path needs, from EMQX 6.1.2 on. Pure."""

from typing import Final

_SCOPES: Final = (
    ("/authentication", "access_control"),
    ("/authorization", "access_control"),
    ("/banned", "connections"),
    ("/clients", "connections"),
    ("/subscriptions", "connections"),
    ("/cluster", "cluster_operations"),
    ("/nodes", "cluster_operations"),
    ("/configs", "system"),
    ("/listeners", "system"),
    ("/publish", "publish"),
    ("/rules", "data_integration"),
    ("/metrics", "monitoring"),
    ("/stats", "monitoring"),
)


def is_in_scope(path: str, scopes: frozenset[str] | None) -> bool:
    """Whether a key with these scopes may use a path below `/api/v5`; a key without scopes may use all of them."""
    needed = next((scope for prefix, scope in _SCOPES if path.startswith(prefix)), None)
    return scopes is None or needed is None or needed in scopes
