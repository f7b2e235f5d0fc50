"""Waiting for what another thread, process or machine does in its own time; no measurement depends on it."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, overload

WAIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01

T = TypeVar("T")
What = str | Callable[[], str]
"""What is waited for, for the message of a failure."""


def wait_for(check: Callable[[], T], what: What = "", seconds: float = WAIT_SECONDS) -> T:
    """The first true value of `check`; `what` describes it in the failure message.

    Raises:
        AssertionError: there is none in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, _message(what, seconds)
        time.sleep(_POLL_SECONDS)
    return value


@overload
async def eventually(check: Callable[[], Awaitable[T]], what: What = "", seconds: float = WAIT_SECONDS) -> T: ...


@overload
async def eventually(check: Callable[[], T], what: What = "", seconds: float = WAIT_SECONDS) -> T: ...


async def eventually(check: Callable[[], object], what: What = "", seconds: float = WAIT_SECONDS) -> object:
    """The first true value of `check`, which may be a coroutine function.

    Raises:
        AssertionError: there is none in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        made = check()
        value = await made if inspect.isawaitable(made) else made
        if value:
            return value
        assert time.monotonic() < deadline, _message(what, seconds)
        await asyncio.sleep(_POLL_SECONDS)


def _message(what: What, seconds: float) -> str:
    return f"not within {seconds:g} s: {what if isinstance(what, str) else what()}"
