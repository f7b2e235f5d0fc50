"""The client of EMQX's API: sends the requests of `requests.py`, reads listings page by page."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol, TypeVar

from controller.adapters.emqx.client import models
from controller.adapters.emqx.client.http import ApiRequest, EmqxHttpClient, StepListener
from controller.adapters.emqx.client.models import ListingPage
from controller.adapters.emqx.client.requests import PAGE_ROWS
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import Ban
from controller.ports.errors import BrokerAnswerError

MAX_PAGES: Final = 10_000

T = TypeVar("T")


class PageRequest(Protocol[T]):
    """Makes the request for one page of a listing."""

    def __call__(self, page: int, limit: int, /) -> ApiRequest[ListingPage[T]]:
        """`page` counts from 1, `limit` is the most rows of a page."""


class EmqxApi:
    """EMQX's API over one HTTP client; `with_listener`, `on_node` and `with_priority` give views of the same client.

    Everything that sends raises `BrokerError` and its kinds.
    """

    def __init__(
        self, http: EmqxHttpClient, *, listener: StepListener | None = None, node: str = "", urgent: bool = False
    ) -> None:
        """`listener` gets a step for each exchange; `node` is the only address that is asked, each request once."""
        self._http = http
        self._listener = listener
        self._node = node
        self._urgent = urgent

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every configured base address."""
        return self._http.addresses

    @property
    def node(self) -> str:
        """The only address that this view asks, empty for any."""
        return self._node

    def with_listener(self, listener: StepListener) -> "EmqxApi":
        return EmqxApi(self._http, listener=listener, node=self._node, urgent=self._urgent)

    def on_node(self, node: str) -> "EmqxApi":
        return EmqxApi(self._http, listener=self._listener, node=node, urgent=self._urgent)

    def with_priority(self) -> "EmqxApi":
        """Requests of this view go before those without priority."""
        return EmqxApi(self._http, listener=self._listener, node=self._node, urgent=True)

    async def send(self, request: ApiRequest[T]) -> T:
        try:
            response = await self._http.call(request, node=self._node, urgent=self._urgent, listener=self._listener)
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


async def find_sessions(
    api: EmqxApi, page_request: PageRequest[models.ClientRow], username: str
) -> Sequence[models.ClientRow]:
    """The sessions of the user of a listing that may hold others."""
    return [row async for row in api.rows(page_request) if row.username == username]
