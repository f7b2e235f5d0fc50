"""The only file that speaks HTTP to EMQX: several addresses, time-outs, repeats, bounds, and one family of errors."""

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

import httpx
import stamina

from controller.adapters.emqx.client.responses import meaning
from controller.ports.broker import ProofStep
from controller.ports.clock import Clock
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerUnreachableError

# What failed in the end is told where it matters; each repeat by itself says nothing to an operator.
stamina.instrumentation.set_on_retry_hooks(())

API: Final = "/api/v5"
CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 5.0  # between two pieces of an answer
ATTEMPT_SECONDS: Final = 10.0  # one whole exchange with one node
CALL_SECONDS: Final = 20.0  # one call with all its repeats and nodes
ATTEMPTS: Final = 3  # rounds over the addresses
WAIT_FIRST_SECONDS: Final = 0.1
WAIT_MOST_SECONDS: Final = 2.0
WAIT_JITTER_SECONDS: Final = 0.2
REST_SECONDS: Final = 5.0  # how long a node that failed is asked last
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024  # a page of 10,000 clients has about 20 MB
AT_ONCE: Final = 16  # exchanges in flight; EMQX's listener takes 512 connections of everybody
MAX_ADDRESSES: Final = 64

HttpMethod = Literal["GET", "PUT", "POST", "DELETE"]
StepListener = Callable[[ProofStep], None]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long and how often: seconds, counts and bytes. Production uses the defaults; tests shorten them."""

    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float = READ_SECONDS
    attempt_seconds: float = ATTEMPT_SECONDS
    call_seconds: float = CALL_SECONDS
    attempts: int = ATTEMPTS
    wait_first_seconds: float = WAIT_FIRST_SECONDS
    wait_most_seconds: float = WAIT_MOST_SECONDS
    wait_jitter_seconds: float = WAIT_JITTER_SECONDS
    rest_seconds: float = REST_SECONDS
    max_answer_bytes: int = MAX_ANSWER_BYTES
    at_once: int = AT_ONCE


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request as the API layer wants it.

    `repeat` says that doing it twice is as good as once. `node` binds it to one address, tried once: who asks a
    certain node wants that node's word, and decides what its silence means. `urgent` goes before what is not: a client
    is cut off before others are looked at.
    """

    method: HttpMethod
    path: str
    what: str
    query: Mapping[str, str | int | tuple[str, ...]] | None = None  # several values: the name once for each
    body: object = None
    repeat: bool = True
    node: str = ""
    urgent: bool = False
    bearer: str = ""  # a dashboard login's token in the place of the API key

    @property
    def text(self) -> str:
        """Method and path, as receipts and errors show it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A good answer: the address that gave it, its status and its JSON (`None` without a body)."""

    node: str
    status: int
    data: object


class PrioritySemaphore:
    """At most so many at a time; of those who wait, the urgent ones first, each kind in the order of its coming."""

    def __init__(self, at_once: int) -> None:
        """All are free."""
        self._free = at_once
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for a turn and have it until the end of the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._urgent if urgent else self._others)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, queue: deque[asyncio.Future[None]]) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._pass_on()  # it came in the same moment
            raise

    def _pass_on(self) -> None:
        for queue in (self._urgent, self._others):
            while queue:
                following = queue.popleft()
                if not following.done():
                    following.set_result(None)
                    return
        self._free += 1


class _NotSentError(BrokerUnreachableError):
    """The connection was not made, so the request cannot have had an effect."""


def address(text: str) -> str:
    """A configured base address in one spelling, without a path.

    Raises:
        ValueError: not http or https, no host, a path, or credentials in it (they would end up in logs).
    """
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL as e:
        raise ValueError(f"not an address: {e}") from e
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("an EMQX API address starts with http:// or https:// and has a host")
    if url.userinfo:
        raise ValueError("an EMQX API address holds no user name or password")
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("an EMQX API address has no path: /api/v5 is added")
    return str(url.copy_with(path="/")).rstrip("/")


class EmqxHttpClient:
    """A JSON client over the API addresses of one EMQX cluster.

    The node that answered last is asked first; one that failed rests for a moment. Use as an async context manager.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        key: str,
        secret: str,
        *,
        clock: Clock,
        limits: HttpLimits | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Describe the cluster; nothing is connected yet.

        Args:
            addresses: base URLs without a path, at least one.
            key: API key.
            secret: its secret; it appears in no text.
            clock: for resting nodes and durations.
            limits: time-outs and bounds.
            tls: for https addresses; the system's authorities otherwise.
            transport: another way to send, for tests.

        Raises:
            ValueError: no address, too many, or one that is none.
        """
        self.addresses = tuple(dict.fromkeys(address(text) for text in addresses))
        if not 0 < len(self.addresses) <= MAX_ADDRESSES:
            raise ValueError(f"between 1 and {MAX_ADDRESSES} EMQX API addresses are needed")
        self._limits = limits or HttpLimits()
        self._clock = clock
        self._secret = secret
        self._favourite = self.addresses[0]
        self._resting: dict[str, float] = {}
        self._turns = PrioritySemaphore(self._limits.at_once)
        basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "cordon",
            "authorization": f"Basic {basic}",
        }
        seconds = httpx.Timeout(self._limits.read_seconds, connect=self._limits.connect_seconds)
        self._timeouts = {"timeout": seconds.as_dict()}
        # Below httpx's client: its redirects, cookies and proxies are not wanted (one from the environment would be
        # handed the secret), and they take a third of a call's time.
        # A pool for each node: one for all closes connections to open others, and looks at all of them with each call.
        self._transports = {base: transport or self._pool(tls) for base in self.addresses}

    def _pool(self, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        at_once = self._limits.at_once
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        return httpx.AsyncHTTPTransport(limits=limits, trust_env=False, verify=tls if tls is not None else True)

    async def __aenter__(self) -> Self:
        """Give itself: connections are made when they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        for transport in self._transports.values():
            await transport.aclose()

    async def call(self, call: ApiRequest, note: StepListener | None = None) -> ApiResponse:
        """Make the call, over to other nodes and again where that is safe; each exchange goes to `note`.

        Raises:
            BrokerError: and its kinds, see `controller.adapters.emqx.client.responses.meaning`.
        """
        async with self._turns.turn(urgent=call.urgent):
            try:
                async with asyncio.timeout(self._limits.call_seconds):
                    return await self._rounds(call, note)
            except TimeoutError as e:
                raise BrokerUnreachableError(f"{call.text}: no answer in {self._limits.call_seconds:g} s") from e

    async def _rounds(self, call: ApiRequest, note: StepListener | None) -> ApiResponse:
        def again(error: Exception) -> bool:
            return isinstance(error, BrokerError) and error.transient and _repeatable(call, error)

        limits = self._limits
        async for attempt in stamina.retry_context(
            on=again,
            attempts=1 if call.node else limits.attempts,
            timeout=limits.call_seconds,
            wait_initial=limits.wait_first_seconds,
            wait_max=limits.wait_most_seconds,
            wait_jitter=limits.wait_jitter_seconds,
        ):
            with attempt:
                return await self._round(call, note)
        raise AssertionError("the last attempt returns or raises")

    async def _round(self, call: ApiRequest, note: StepListener | None) -> ApiResponse:
        """Ask one node after the other until one answers."""
        failures: list[BrokerError] = []
        for base in (call.node,) if call.node else self._order():
            try:
                answer = await self._noted(call, base, note)
            except BrokerError as e:
                if not e.transient:
                    raise
                self._resting[base] = self._clock.monotonic() + self._limits.rest_seconds
                failures.append(e)
                if not _repeatable(call, e):
                    raise
                continue
            self._resting.pop(base, None)
            if not call.node:
                self._favourite = base
            return answer
        raise _together(failures)

    def _order(self) -> list[str]:
        now = self._clock.monotonic()
        return sorted(self.addresses, key=lambda base: (self._resting.get(base, 0.0) > now, base != self._favourite))

    async def _noted(self, call: ApiRequest, base: str, note: StepListener | None) -> ApiResponse:
        begun = self._clock.monotonic()
        answer, seen = None, ""
        try:
            answer = await self._exchange(call, base)
            seen = str(answer.status)
        except BrokerError as e:
            seen = str(e)
            raise
        finally:
            if note is not None:
                took = self._clock.monotonic() - begun
                note(ProofStep(what=call.what, call=call.text, node=base, answer=seen or "cancelled", seconds=took))
        return answer

    async def _exchange(self, call: ApiRequest, base: str) -> ApiResponse:
        try:
            async with asyncio.timeout(self._limits.attempt_seconds):
                status, kind, raw = await self._send(call, base)
        except (httpx.ConnectError, httpx.ConnectTimeout) as e:
            raise _NotSentError(f"{base}: {call.text}: no connection ({self._words(e)})") from e
        except (TimeoutError, httpx.TimeoutException) as e:
            raise BrokerUnreachableError(f"{base}: {call.text}: no answer in time ({type(e).__name__})") from e
        except (httpx.RemoteProtocolError, httpx.DecodingError) as e:
            raise BrokerAnswerError(f"{base}: {call.text}: broken answer ({self._words(e)})") from e
        except httpx.HTTPError as e:
            raise BrokerUnreachableError(f"{base}: {call.text}: {self._words(e)}") from e
        # A node that answers 401 without being asked for a password may echo what it got: never let that through.
        body = raw.replace(self._secret.encode(), b"***") if self._secret and status >= 400 else raw
        data = meaning(f"{base}: {call.text}", call.path, status, kind, body)
        if data is None and call.method == "GET":
            raise BrokerAnswerError(f"{base}: {call.text}: an empty answer")
        return ApiResponse(node=base, status=status, data=data)

    async def _send(self, call: ApiRequest, base: str) -> tuple[int, str, bytes]:
        headers = {**self._headers, "authorization": f"Bearer {call.bearer}"} if call.bearer else self._headers
        request = httpx.Request(
            call.method,
            f"{base}{API}{call.path}",
            params=call.query,
            headers=headers,
            json=call.body,
            extensions=self._timeouts,
        )
        response = await self._transports[base].handle_async_request(request)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise BrokerAnswerError(f"{base}: {call.text}: an encoded answer that was not asked for")
            raw = bytearray()
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for piece in response.stream:
                raw += piece
                if len(raw) > self._limits.max_answer_bytes:
                    raise BrokerAnswerError(f"{base}: {call.text}: more than {self._limits.max_answer_bytes} bytes")
            return response.status_code, response.headers.get("content-type", ""), bytes(raw)
        finally:
            await response.aclose()

    def _words(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        return text.replace(self._secret, "***") if self._secret else text


def _repeatable(call: ApiRequest, error: BrokerError) -> bool:
    return call.repeat or isinstance(error, _NotSentError)


def _together(failures: Sequence[BrokerError]) -> BrokerError:
    """One error for a round in which every node failed: the kind of one that did answer, the texts of all."""
    chosen = next((e for e in failures if not isinstance(e, BrokerUnreachableError)), failures[-1])
    if len(failures) == 1:
        return chosen
    text = "; ".join(str(e) for e in failures)
    kind = type(chosen)
    if kind is _NotSentError and not all(isinstance(e, _NotSentError) for e in failures):
        kind = BrokerUnreachableError
    together = kind(text)
    together.__cause__ = chosen
    return together
