"""Checks whether TCP ports are reachable, by connections that are closed without a byte."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

SECONDS: Final = 2.0  # for one connection; a dropped packet is answered by nobody
AT_ONCE: Final = 64
MAX_PROBES: Final = 4096


async def reachable(targets: Sequence[tuple[str, int]], seconds: float = SECONDS) -> dict[tuple[str, int], bool]:
    """Returns for each host and port whether a connection was made."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def probe(host: str, port: int) -> bool:
        async with turns:
            try:
                async with asyncio.timeout(seconds):
                    _, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError):
                return False
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return True

    wanted = list(dict.fromkeys(targets))[:MAX_PROBES]
    answers = await asyncio.gather(*(probe(host, port) for host, port in wanted))
    return dict(zip(wanted, answers, strict=True))
