"""Speaks HTTP to EMQX, over `connections`: fail-over between addresses, time-outs, retries, bounds.

Retries of a single call to EMQX are here and nowhere else; the outbox repeats failed effects. `responses.py` maps
answers to errors.
"""

import asyncio
import base64
import json
import math
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar
from urllib.parse import quote, quote_plus

import httpx
import stamina

from controller.adapters.emqx.client.connections import NodeConnections
from controller.adapters.emqx.client.responses import response_data
from controller.adapters.emqx.client.slots import CallRank, PrioritySemaphore
from controller.ports.broker import ProofStep
from controller.ports.clock import Clock
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerUnreachableError, BrokerWaitsError

# The caller reports the error that is left after all retries; stamina would log every retry.
stamina.instrumentation.set_on_retry_hooks(())

API: Final = "/api/v5"
CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 5.0  # between two pieces of an answer
ATTEMPT_SECONDS: Final = 10.0  # one exchange with one node
CALL_SECONDS: Final = 20.0  # one call with all its retries and nodes
# The same two of a call that protects: with one node hung, what takes effect did so within 0.25 s without an answer.
PROMPT_ATTEMPT_SECONDS: Final = 0.4
PROMPT_CALL_SECONDS: Final = 2.0
ATTEMPTS: Final = 3  # rounds over the addresses
WAIT_FIRST_SECONDS: Final = 0.1
WAIT_MOST_SECONDS: Final = 2.0
WAIT_JITTER_SECONDS: Final = 0.2
REST_SECONDS: Final = 5.0  # how long a node that failed is tried last
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024  # a page of 10,000 clients has about 20 MB
AT_ONCE: Final = 16  # exchanges in flight; EMQX's listener takes 512 connections in total
MAX_ADDRESSES: Final = 64

HttpMethod = Literal["GET", "PUT", "POST", "DELETE"]
StepListener = Callable[[ProofStep], None]
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Time-outs in seconds, counts and bytes. Production uses the defaults; tests shorten them."""

    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float = READ_SECONDS
    attempt_seconds: float = ATTEMPT_SECONDS
    call_seconds: float = CALL_SECONDS
    prompt_attempt_seconds: float = PROMPT_ATTEMPT_SECONDS
    prompt_call_seconds: float = PROMPT_CALL_SECONDS
    attempts: int = ATTEMPTS
    wait_first_seconds: float = WAIT_FIRST_SECONDS
    wait_most_seconds: float = WAIT_MOST_SECONDS
    wait_jitter_seconds: float = WAIT_JITTER_SECONDS
    rest_seconds: float = REST_SECONDS
    max_answer_bytes: int = MAX_ANSWER_BYTES
    at_once: int = AT_ONCE

    @property
    def timeout(self) -> httpx.Timeout:
        """The limits of the parts of an exchange."""
        return httpx.Timeout(self.read_seconds, connect=self.connect_seconds)


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A good answer: the address that gave it, its status and its JSON or text (`None` without a body)."""

    node: str
    status: int
    data: object


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[T_co]):
    """One request to EMQX's API, and how its answer becomes a value.

    `what` names the request in receipts. `read` gets the response, or one of the errors in `answers`, which are
    answers to this request too ("not there", "there already"). `repeat`: sending it twice does no harm.
    `asks_others`: the node that gets it asks other nodes, so that a hung one keeps it from answering.
    """

    method: HttpMethod
    path: str
    what: str
    read: Callable[[ApiResponse | BrokerError], T_co]
    query: Mapping[str, str | int | tuple[str, ...]] | None = None  # several values: the name once for each
    body: object = None
    answers: tuple[type[BrokerError], ...] = ()
    repeat: bool = True
    asks_others: bool = False
    bearer: str = ""  # a dashboard login's token, sent instead of the API key
    is_text: bool = False  # asks for text instead of JSON, which is the answer's data then

    @property
    def text(self) -> str:
        """Method and path, as receipts and errors show it."""
        return f"{self.method} {self.path}"


class _NotSentError(BrokerUnreachableError):
    """The connection was not made, so the request cannot have had an effect."""


class _TimedOutError(BrokerUnreachableError):
    """The connection was there, and no answer came in time."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a request is sent.

    `node`: the only address to ask, once: the caller wants this node's answer or its silence. `rank`: which
    requests go first. `prompt`: with the short time limits of calls that protect. `listener`: gets each exchange.
    """

    node: str = ""
    rank: CallRank = CallRank.OTHER
    prompt: bool = False
    listener: StepListener | None = None


_DEFAULT_OPTIONS: Final = CallOptions()
# Every node answers it from what it knows itself.
_PROBE: Final = ApiRequest("GET", "/cluster", "probe", lambda _answer: None)


def address(text: str) -> str:
    """Normalises a configured base address.

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

    The node that answered last is tried first; a node that failed is tried last for a while. Use it as an async
    context manager.
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
        lease_left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """Connects to nothing yet.

        Args:
            addresses: base URLs without a path, at least one.
            key: API key.
            secret: its secret; no text that this class makes contains it.
            clock: measures durations and rests.
            limits: time-outs and bounds.
            tls: for https addresses; without it the system's certificate authorities are trusted.
            transport: replaces the network in tests.
            lease_left: seconds for which nobody else changes anything at EMQX; no request that does is sent after them.

        Raises:
            ValueError: no address, too many, or a malformed one.
        """
        self.addresses = tuple(dict.fromkeys(address(text) for text in addresses))
        if not 0 < len(self.addresses) <= MAX_ADDRESSES:
            raise ValueError(f"between 1 and {MAX_ADDRESSES} EMQX API addresses are needed")
        self._limits = limits or HttpLimits()
        self._clock = clock
        # Basic authentication has the secret in base64 after the key.
        self._secrets = (*_forms(f"{key}:{secret}"), *_forms(secret)) if secret else ()
        self._favourite = self.addresses[0]
        self._resting: dict[str, float] = {}
        self._slots = PrioritySemaphore(self._limits.at_once)
        basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "cordon",
            "authorization": f"Basic {basic}",
        }
        self._timeouts = {"timeout": self._limits.timeout.as_dict()}
        # Below httpx's client: its redirects, cookies and proxies are not wanted (a proxy from the environment would
        # be handed the secret), and they take a third of a call's time.
        make = self._connection_maker(tls) if transport is None else lambda: transport
        size = self._limits.max_answer_bytes
        self._nodes = {base: NodeConnections(make, size, lease_left) for base in self.addresses}

    @staticmethod
    def _connection_maker(tls: ssl.SSLContext | None) -> Callable[[], httpx.AsyncBaseTransport]:
        context = tls or httpx.create_ssl_context(trust_env=False)  # once: it reads the system's authorities
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        return lambda: httpx.AsyncHTTPTransport(limits=one, trust_env=False, verify=context)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes.values():
            await node.aclose()

    async def call(self, request: ApiRequest[Any], options: CallOptions = _DEFAULT_OPTIONS) -> ApiResponse:
        """Sends the request, fails over to other nodes and retries where that is safe; its `read` is not used here.

        Raises:
            BrokerWaitsError: the node answers, but this request waits for another one.
            BrokerError: and its kinds, see `responses.response_data`.
        """
        seconds = self._limits.prompt_call_seconds if options.prompt else self._limits.call_seconds
        async with self._slots.acquire(options.rank):
            try:
                async with asyncio.timeout(seconds):
                    return await self._attempts(request, options, seconds)
            except TimeoutError as e:
                raise BrokerUnreachableError(f"{request.text}: no answer in {seconds:g} s") from e

    async def _attempts(self, request: ApiRequest[Any], options: CallOptions, seconds: float) -> ApiResponse:
        def is_retried(error: Exception) -> bool:
            if isinstance(error, BrokerWaitsError):
                return False
            return isinstance(error, BrokerError) and error.transient and _is_repeatable(request, error)

        limits = self._limits
        async for attempt in stamina.retry_context(
            on=is_retried,
            attempts=1 if options.node else limits.attempts,
            timeout=seconds,
            wait_initial=limits.wait_first_seconds,
            wait_max=limits.wait_most_seconds,
            wait_jitter=limits.wait_jitter_seconds,
        ):
            with attempt:
                return await self._attempt(request, options)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, request: ApiRequest[Any], options: CallOptions) -> ApiResponse:
        """Asks one node after the other until one answers."""
        failures: list[BrokerError] = []
        for base in (options.node,) if options.node else self._address_order():
            try:
                response = await self._recorded(request, base, options)
            except BrokerError as e:
                if not e.transient:
                    raise
                if request.asks_others and isinstance(e, _TimedOutError) and await self._answers(base):
                    raise BrokerWaitsError(f"{e}; it waits for a node that does not answer") from e
                self._resting[base] = self._clock.monotonic() + self._limits.rest_seconds
                failures.append(e)
                if not _is_repeatable(request, e):
                    raise
                continue
            self._resting.pop(base, None)
            if not options.node:
                self._favourite = base
            return response
        raise _combine_errors(failures)

    async def _answers(self, base: str) -> bool:
        """Whether the node answers what it knows itself."""
        try:
            await self._exchange(_PROBE, base, self._limits.prompt_attempt_seconds)
        except BrokerError as e:
            return not e.transient
        return True

    def _address_order(self) -> list[str]:
        now = self._clock.monotonic()
        return sorted(self.addresses, key=lambda base: (self._resting.get(base, 0.0) > now, base != self._favourite))

    async def _recorded(self, request: ApiRequest[Any], base: str, options: CallOptions) -> ApiResponse:
        begun = self._clock.monotonic()
        response, outcome = None, ""
        limits = self._limits
        try:
            limit = limits.prompt_attempt_seconds if options.prompt else limits.attempt_seconds
            response = await self._exchange(request, base, limit)
            outcome = str(response.status)
        except BrokerError as e:
            outcome = str(e)
            raise
        finally:
            if options.listener is not None:
                seconds = self._clock.monotonic() - begun
                options.listener(ProofStep(request.what, request.text, base, outcome or "cancelled", seconds))
        return response

    async def _exchange(self, request: ApiRequest[Any], base: str, seconds: float) -> ApiResponse:
        text = f"{base}: {request.text}"
        try:
            status, kind, raw = await self._nodes[base].send(self._built(request, base), text, seconds)
        except (httpx.ConnectError, httpx.ConnectTimeout) as e:
            raise _NotSentError(f"{text}: no connection ({self._describe(e, request)})") from e
        except (TimeoutError, httpx.TimeoutException) as e:
            raise _TimedOutError(f"{text}: no answer in time ({type(e).__name__})") from e
        except (httpx.RemoteProtocolError, httpx.DecodingError) as e:
            raise BrokerAnswerError(f"{text}: broken answer ({self._describe(e, request)})") from e
        except httpx.HTTPError as e:
            raise BrokerUnreachableError(f"{text}: {self._describe(e, request)}") from e
        # An error page may echo the request's credentials: they must not get into any text.
        body = self._without_secrets(raw.decode("latin-1"), request).encode("latin-1") if status >= 400 else raw
        data = response_data(text, request.path, status, kind, body, is_text=request.is_text)
        if data is None and request.method == "GET":
            raise BrokerAnswerError(f"{text}: an empty answer")
        return ApiResponse(node=base, status=status, data=data)

    def _built(self, request: ApiRequest[Any], base: str) -> httpx.Request:
        headers = self._headers
        if request.bearer:
            headers = {**headers, "authorization": f"Bearer {request.bearer}"}
        if request.is_text:
            headers = {**headers, "accept": "text/plain"}
        return httpx.Request(
            request.method,
            f"{base}{API}{request.path}",
            params=request.query,
            headers=headers,
            json=request.body,
            extensions=self._timeouts,
        )

    def _describe(self, error: Exception, request: ApiRequest[Any]) -> str:
        return self._without_secrets(str(error) or type(error).__name__, request)

    def _without_secrets(self, text: str, request: ApiRequest[Any]) -> str:
        """Replaces the credentials of this request in each form in which an answer may quote them."""
        for secret in (*self._secrets, *_forms(request.bearer)):
            text = text.replace(secret, "***")
        return text


def _forms(secret: str) -> tuple[str, ...]:
    """Returns a secret as such, in JSON, in a URL and in base64, as UTF-8 seen byte by byte; longest first."""
    if not secret:
        return ()
    raw = secret.encode()
    in_json = {json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)}
    forms = {raw.decode("latin-1"), quote(secret, safe=""), quote_plus(secret), *in_json}
    forms |= {text.replace("/", "\\/") for text in in_json}
    forms |= {encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return tuple(sorted(forms, key=len, reverse=True))


def _is_repeatable(request: ApiRequest[Any], error: BrokerError) -> bool:
    return request.repeat or isinstance(error, _NotSentError)


def _combine_errors(failures: Sequence[BrokerError]) -> BrokerError:
    """One error for an attempt in which every node failed: the kind of a node that did answer, the texts of all."""
    chosen = next((e for e in failures if not isinstance(e, BrokerUnreachableError)), failures[-1])
    if len(failures) == 1:
        return chosen
    text = "; ".join(str(e) for e in failures)
    kind = type(chosen)
    if isinstance(chosen, BrokerUnreachableError) and not all(isinstance(e, kind) for e in failures):
        kind = BrokerUnreachableError
    combined = kind(text)
    combined.__cause__ = chosen
    return combined
