"""What a restricted client may do, as data: the three rules, and whether a topic is inside its own branch. Pure."""

from typing import Final

from controller.adapters.emqx.rows import DATABASE, CacheRow, SourceRow
from controller.ports.broker import restriction
from schemas import topics

__all__ = ["consulted", "outside", "restriction", "wrongly_allowed"]

_SHARED: Final = ("$share/", "$queue/", "$exclusive/")


def outside(client_id: str, filters: tuple[str, ...]) -> tuple[str, ...]:
    """Those subscriptions that a restricted client may not hold."""
    own = topics.down_branch(client_id).removesuffix("#")
    return tuple(each for each in filters if not _real(each).startswith(own))


def wrongly_allowed(client_id: str, cache: tuple[CacheRow, ...]) -> tuple[str, ...]:
    """Topics outside its branch that the client's connection still remembers as allowed."""
    own = {
        "publish": topics.up_branch(client_id).removesuffix("#"),
        "subscribe": topics.down_branch(client_id).removesuffix("#"),
    }
    return tuple(
        row.topic
        for row in cache
        if row.result != "deny" and not _is_own(_real(row.topic), own.get(row.access.action_type))
    )


def consulted(sources: tuple[SourceRow, ...]) -> str:
    """Empty if EMQX asks its built-in database before all others, else what is wrong: rules nobody asks do nothing."""
    asked = [source.type for source in sources if source.enable]
    if not asked or DATABASE not in asked:
        return "EMQX does not ask its built-in database for access: rules have no effect"
    if asked[0] != DATABASE:
        return f"EMQX asks {asked[0]} before its built-in database: rules may have no effect"
    return ""


def _is_own(topic: str, branch: str | None) -> bool:
    return branch is not None and topic.startswith(branch)


def _real(topic: str) -> str:
    """The topic behind a shared or exclusive subscription."""
    if topic.startswith(_SHARED[0]):
        return topic.split("/", 2)[-1]
    for prefix in _SHARED[1:]:
        if topic.startswith(prefix):
            return topic.removeprefix(prefix)
    return topic
