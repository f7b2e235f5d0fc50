"""How a controller reaches the one that leads."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from controller.ports.errors import ControllerError

Headers = Sequence[tuple[bytes, bytes]]


class PeerError(ControllerError):
    """The other controller could not be asked; `was_sent`: whether it may have got the request nevertheless."""

    def __init__(self, text: str, *, was_sent: bool) -> None:
        self.was_sent = was_sent
        super().__init__(text)


class UnsendableRequestError(ControllerError):
    """The request cannot be sent to another controller exactly as it was received."""

    def __init__(self) -> None:
        super().__init__("this path or query cannot be forwarded as it is: encode its characters")


@dataclass(frozen=True, slots=True)
class PeerRequest:
    """`target`: path and query as they were received. The length of `body` is not among `headers`."""

    method: str
    target: bytes
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """`chunks` are read within the context that gave the answer, and raise `PeerError`."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]


class Peers(Protocol):
    """Sends requests to another controller's API."""

    def send(self, base: str, request: PeerRequest) -> AbstractAsyncContextManager[PeerAnswer]:
        """Sends a request to the API at `base`, once.

        Raises:
            PeerError: there is no answer.
            UnsendableRequestError: nothing was sent.
        """
        ...
