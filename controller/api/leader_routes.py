"""Which requests any controller answers, and which only the leader: those that change something or read its memory."""

import re
from functools import cache
from typing import Final

from starlette.routing import compile_path

RELOAD: Final = "/api/v1/policies/reload"  # takes the files of the host that is asked, which the store makes all take
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# They read what only the leader holds, wait for what it hears of first, or begin what a later request goes on with.
LEADER: Final = (
    "/api/v1/access/diff",
    "/api/v1/access/grants",
    "/api/v1/accounts",
    "/api/v1/accounts/{name}",
    "/api/v1/accounts/{name}/sessions",
    "/api/v1/approvals/grants",
    "/api/v1/approvals/{request_id}",
    "/api/v1/broker",
    "/api/v1/broker/drift",
    "/api/v1/broker/ports",
    "/api/v1/certificates/authority",
    "/api/v1/commands/{command_id}",
    "/api/v1/factors",
    "/api/v1/guard",
    "/api/v1/me",
    "/api/v1/me/tokens",
    "/api/v1/notifications/log",
    "/api/v1/notifications/sinks",
    "/api/v1/quarantine/{device_id}/plan",
    "/api/v1/quarantine/{device_id}/proof",
    "/api/v1/rollouts",
    "/api/v1/rollouts/{rollout_id}",
    "/api/v1/rollouts/{rollout_id}/devices",
    "/api/v1/sessions",
    "/api/v1/tokens",
    "/api/v1/updates",
    "/api/v1/updates/status",
    "/api/v1/updates/{name}/{version}",
    "/api/v1/users",
    "/api/v1/users/plan",
    "/api/v1/users/receipt",
    "/api/v1/users/sessions",
    "/login",
    "/login/factor",
    "/login/sso",
    "/login/sso/callback",
    "/me",
    "/me/passkeys/new",
    "/setup",
)


def needs_leader(method: str, path: str) -> bool:
    """Whether another controller hands this request to the leader; a path that nobody serves needs none."""
    if method not in _READS:
        return path != RELOAD
    exact, patterns = _compiled()
    return path in exact or any(one.match(path) for one in patterns)


@cache
def _compiled() -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    exact = frozenset(path for path in LEADER if "{" not in path)
    return exact, tuple(compile_path(path)[0] for path in LEADER if "{" in path)
