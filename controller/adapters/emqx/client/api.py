"""The client of EMQX's API: sends the requests of `requests.py`, reads listings page by page."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, TypeVar

from controller.adapters.emqx.client import models, requests
from controller.adapters.emqx.client.http import ApiRequest, CallOptions, EmqxHttpClient, StepListener
from controller.adapters.emqx.client.models import ListingPage
from controller.adapters.emqx.client.requests import PAGE_ROWS
from controller.adapters.emqx.client.slots import CallRank
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import Ban
from controller.ports.errors import BrokerAnswerError, BrokerWaitsError

MAX_PAGES: Final = 10_000

T = TypeVar("T")


class PageRequest(Protocol[T]):
    """Makes the request for one page of a listing."""

    def __call__(self, page: int, limit: int, /) -> ApiRequest[ListingPage[T]]:
        """`page` counts from 1, `limit` is the most rows of a page."""


class EmqxApi:
    """EMQX's API over one HTTP client; the methods that return an `EmqxApi` give views of the same client.

    Everything that sends raises `BrokerError` and its kinds.
    """

    def __init__(self, http: EmqxHttpClient, options: CallOptions | None = None) -> None:
        """`options`: how every request of this view is sent."""
        self._http = http
        self._options = options or CallOptions()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every configured base address."""
        return self._http.addresses

    @property
    def node(self) -> str:
        """The only address that this view asks, empty for any."""
        return self._options.node

    def with_listener(self, listener: StepListener) -> "EmqxApi":
        return EmqxApi(self._http, replace(self._options, listener=listener))

    def on_node(self, node: str) -> "EmqxApi":
        return EmqxApi(self._http, replace(self._options, node=node))

    def with_priority(self, rank: CallRank = CallRank.URGENT) -> "EmqxApi":
        """Requests of this view go before those of a later rank."""
        return EmqxApi(self._http, replace(self._options, rank=rank))

    def prompt(self) -> "EmqxApi":
        """Requests of this view have the short time limits of calls that protect."""
        return EmqxApi(self._http, replace(self._options, prompt=True))

    async def send(self, request: ApiRequest[T]) -> T:
        try:
            response = await self._http.call(request, self._options)
        except request.answers as e:
            return request.read(e)
        return request.read(response)

    async def pages(self, page_request: PageRequest[T], size: int = PAGE_ROWS) -> AsyncIterator[tuple[T, ...]]:
        """Reads a listing page by page.

        Raises:
            BrokerAnswerError: a listing that does not end.
        """
        for number in range(1, MAX_PAGES + 1):
            page = await self.send(page_request(number, size))
            yield page.data
            if _is_last(page, number, size):
                return
        raise BrokerAnswerError(f"{page_request(1, size).path}: more than {MAX_PAGES} pages")

    async def rows(self, page_request: PageRequest[T]) -> AsyncIterator[T]:
        """Every row of a listing; errors as of `pages`."""
        async for page in self.pages(page_request):
            for row in page:
                yield row


def _is_last(page: ListingPage[T], number: int, size: int) -> bool:
    if not page.data:
        return True
    if page.meta.hasnext is not None:
        return not page.meta.hasnext
    return page.meta.count is not None and number * size >= page.meta.count


async def find_ban(api: EmqxApi, page_request: PageRequest[models.BanRow], subject: Subject) -> Ban | None:
    """The subject's own row, expired or not, of a listing that may hold others."""
    async for row in api.rows(page_request):
        if row.kind == subject.kind.value and row.who == subject.name:
            return row.ban()
    return None


class SessionsRequest(Protocol):
    """Makes the request for one page of a user's sessions, on all nodes or on one."""

    def __call__(self, page: int, limit: int, /, *, node: str = "") -> ApiRequest[ListingPage[models.ClientRow]]:
        """See `requests.list_sessions`."""


async def find_sessions(api: EmqxApi, page_request: SessionsRequest, username: str) -> Sequence[models.ClientRow]:
    """The sessions of the user of a listing that may hold others; while a node hangs, those of the other nodes."""
    try:
        return [row async for row in api.rows(page_request) if row.username == username]
    except BrokerWaitsError:
        names = (await api.send(requests.read_cluster())).nodes
    found: list[models.ClientRow] = []
    for name in names:
        try:
            found += [row async for row in api.rows(partial(page_request, node=name)) if row.username == username]
        except BrokerWaitsError:
            continue  # whoever reads back on every node names this one
    return found
