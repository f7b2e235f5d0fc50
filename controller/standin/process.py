"""Runs a stand-in as a process of its own until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from controller.standin.options import StandInOptions
from controller.standin.server import StandIn


def describe(standin: StandIn) -> dict[str, object]:
    """The addresses of a started stand-in, as the line that a parent process reads."""
    tls = standin.tls_addresses
    return {
        "standin": True,
        "nodes": [
            {
                "name": name,
                "mqtt": "{}:{}".format(*standin.mqtt_addresses[index]),
                "tls": "{}:{}".format(*tls[index]) if tls else None,
                "api": standin.api_urls[index],
            }
            for index, name in enumerate(standin.node_names)
        ],
    }


async def _serve(options: StandInOptions, ready: Callable[[dict[str, object]], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with StandIn(options) as standin:
        ready(describe(standin))
        await stop.wait()


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    run: Callable[[Coroutine[Any, Any, None]], None] = uvloop.run
    return run


def run(options: StandInOptions, ready: Callable[[dict[str, object]], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called once with the addresses.

    Raises:
        OSError: when a port cannot be opened.
    """
    _runner()(_serve(options, ready))
