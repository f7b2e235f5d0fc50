"""How a call to EMQX is made and its answer read: what every group of typed calls stands on."""

from collections.abc import AsyncIterator, Callable, Sized
from dataclasses import replace
from functools import cache
from typing import Any, Final, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from controller.adapters.emqx import rows
from controller.adapters.emqx.http import Answer, Call, EmqxHttp, Method, Note
from controller.ports.errors import BrokerAnswerError, BrokerNotFoundError

PAGE_ROWS: Final = 1000
MAX_PAGES: Final = 10_000

T = TypeVar("T")


class Sender:
    """Calls over one HTTP client; `noting`, `at` and `urgently` give views of the same client.

    Every method that asks EMQX raises `BrokerError` and its kinds.
    """

    def __init__(self, http: EmqxHttp, *, note: Note | None = None, node: str = "", urgent: bool = False) -> None:
        """Use the given client; `note` gets a step for each exchange, `node` binds to one address."""
        self._http = http
        self._note = note
        self._node = node
        self._urgent = urgent

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every configured base address."""
        return self._http.addresses

    @property
    def node(self) -> str:
        """The address that this view is bound to, empty for any."""
        return self._node

    def noting(self, note: Note) -> Self:
        """The same calls, each exchange told to `note`."""
        return type(self)(self._http, note=note, node=self._node, urgent=self._urgent)

    def at(self, node: str) -> Self:
        """The same calls, to one address only, each tried once."""
        return type(self)(self._http, note=self._note, node=node, urgent=self._urgent)

    def urgently(self) -> Self:
        """The same calls, before all that are not urgent."""
        return type(self)(self._http, note=self._note, node=self._node, urgent=True)

    async def send(self, call: Call) -> Answer:
        """Make a call as this view makes them."""
        return await self._http.call(replace(call, node=self._node, urgent=self._urgent), self._note)

    async def maybe(self, call: Call) -> Answer | None:
        """The same where "not there" is an answer."""
        try:
            return await self.send(call)
        except BrokerNotFoundError:
            return None

    async def listing(self, model: type[T], page_call: Callable[[int], Call]) -> AsyncIterator[T]:
        """Every row of a listing whose pages have `PAGE_ROWS` rows.

        Raises:
            BrokerAnswerError: a listing that does not end.
        """
        for page in range(1, MAX_PAGES + 1):
            call = page_call(page)
            content = read(rows.Page[model], await self.send(call))  # type: ignore[valid-type]  # chosen at run time
            for row in content.data:
                yield row
            if is_last(content.data, content.meta, page, PAGE_ROWS):
                return
        raise BrokerAnswerError(f"{call.path}: more than {MAX_PAGES} pages")

    async def _call(
        self,
        method: Method,
        path: str,
        what: str,
        *,
        query: dict[str, str | int] | None = None,
        body: object = None,
        repeat: bool = True,
    ) -> Answer:
        return await self.send(Call(method, path, what, query=query, body=body, repeat=repeat))

    async def _maybe(self, method: Method, path: str, what: str, *, body: object = None) -> Answer | None:
        return await self.maybe(Call(method, path, what, body=body))

    def _listing(self, model: type[T], path: str, what: str, **filters: str) -> AsyncIterator[T]:
        return self.listing(
            model, lambda page: Call("GET", path, what, query={"page": page, "limit": PAGE_ROWS, **filters})
        )


def is_last(data: Sized, meta: rows.Meta, page: int, size: int) -> bool:
    """Whether a page of `size` rows is the last one of its listing."""
    if not data:
        return True
    if meta.hasnext is not None:
        return not meta.hasnext
    return meta.count is not None and page * size >= meta.count


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)  # building one costs more than using it


def read(model: type[T], answer: Answer) -> T:
    """The answer's rows, validated.

    Raises:
        BrokerAnswerError: of the wrong shape.
    """
    try:
        chosen: Any = model  # a generic type does not count as hashable
        content: T = _adapter(chosen).validate_python(answer.data)
    except ValidationError as e:
        raise BrokerAnswerError(f"{answer.node}: an answer of the wrong shape: {rows.faults(e)}") from e
    return content
