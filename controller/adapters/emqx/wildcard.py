"""The client id that is a topic wildcard: EMQX before 6.3 fills `${clientid}` in rules with it, which then allow all.

Cordon bans exactly this id, which no client of any application can need. `#`, `+/#` and `a/b` do nothing there, so
other ids that are no device ids are left alone: they are clients of other applications.
"""

from typing import Any, Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.ports.errors import BrokerNotFoundError, BrokerRefusedError

WILDCARD: Final = "+"
MADE_BY: Final = "cordon setup"  # not the mark of a containment, which the reconciler would look after
_LISTED: Final = f"/banned?clientid=%2B&limit={requests.PAGE_ROWS}"
_ROW: Final = "/banned/clientid/%2B"


async def is_wildcard_banned(api: EmqxApi) -> bool | None:
    """Whether the id is banned for ever; `None` if the API key may not read that. Each row counts, whoever made it."""
    try:
        answer = await api.send(requests.json_request("GET", _LISTED, "read ban"))
    except BrokerRefusedError:
        return None
    return is_in(answer)


def is_in(answer: Any) -> bool:
    """Whether the answer to a listing of bans has that ban."""
    rows = answer.get("data", ()) if isinstance(answer, dict) else ()
    return any(
        isinstance(row, dict) and row.get("as") == "clientid" and row.get("who") == WILDCARD and is_endless(row)
        for row in rows
    )


def is_endless(row: dict[str, Any]) -> bool:
    return bool(row.get("until", "infinity") == "infinity")


async def ban_wildcard(api: EmqxApi) -> None:
    """Bans the id and ends its session; a row that ends is replaced."""
    await unban_wildcard(api)
    reason = "the id + is a wildcard in rules with ${clientid}"
    body = {"as": "clientid", "who": WILDCARD, "by": MADE_BY, "reason": reason, "until": "infinity"}
    await api.send(requests.json_request("POST", "/banned", "ban", body=body))


async def unban_wildcard(api: EmqxApi) -> None:
    try:
        await api.send(requests.json_request("DELETE", _ROW, "lift ban"))
    except BrokerNotFoundError:
        return
