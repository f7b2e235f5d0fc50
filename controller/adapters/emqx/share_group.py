"""How the broker chooses the member of the controllers' share group that gets a message."""

from collections.abc import Mapping
from typing import Any, Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.ports.errors import BrokerAnswerError, BrokerNotFoundError, BrokerRefusedError
from schemas.topics import SHARE_GROUP

HASH_CLIENTID: Final = "hash_clientid"
_BROKER: Final = "/configs/broker"


async def read_share_strategy(api: EmqxApi, mqtt: Mapping[str, Any] | None) -> str:
    """Returns the strategy; empty where this EMQX does not show it, or the key may not read it.

    `mqtt`: this section of the global zone, whose strategy holds for groups without one of their own.

    Raises:
        BrokerError: no answer.
    """
    try:
        section = await api.send(requests.json_request("GET", _BROKER, "read share groups"))
    except (BrokerRefusedError, BrokerNotFoundError, BrokerAnswerError):
        return ""
    groups = section.get("shared_subscription_group") if isinstance(section, dict) else None
    own = groups.get(SHARE_GROUP) if isinstance(groups, dict) else None
    strategy = own.get("strategy") if isinstance(own, dict) else (mqtt or {}).get("shared_subscription_strategy")
    return strategy if isinstance(strategy, str) else ""
