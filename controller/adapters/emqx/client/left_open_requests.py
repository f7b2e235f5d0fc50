"""The requests that tell what rules do not reach: routes, settings of access, delayed messages, auto_subscribe."""

from controller.adapters.emqx.client import models, requests
from controller.adapters.emqx.client.http import ApiRequest
from controller.adapters.emqx.client.models import ListingPage


def list_routes(page: int = 1, limit: int = requests.PAGE_ROWS) -> ApiRequest[ListingPage[models.RouteRow]]:
    """Lists the topic filters that have subscribers, as the answering node routes them."""
    return requests.list_rows("/topics", "list routes", models.RouteRow, page, limit)


def read_access_settings() -> ApiRequest[models.AccessSettingsRow]:
    """Reads what EMQX does where no rule matches."""
    return requests.read_value("/authorization/settings", "read settings of access", models.AccessSettingsRow)


def read_auto_subscribe() -> ApiRequest[tuple[models.RouteRow, ...]]:
    """Reads the subscriptions that EMQX makes for each client that connects, past the rules."""
    return requests.read_value("/mqtt/auto_subscribe", "read auto_subscribe", tuple[models.RouteRow, ...])


def list_delayed(page: int = 1, limit: int = requests.PAGE_ROWS) -> ApiRequest[ListingPage[models.DelayedRow]]:
    """Lists `$delayed` messages that are not due yet, without their payloads."""
    return requests.list_rows("/mqtt/delayed/messages", "list delayed messages", models.DelayedRow, page, limit)
