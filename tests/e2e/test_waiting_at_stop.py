"""A controller that stops answers the requests that wait."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.certs import Certs
from tests.support.deployment import open_deployment
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

SHORT = 10.0  # seconds; the request would wait for 50, and the server for 10 on top


async def test_sigterm_ends_a_wait_with_an_answer(tmp_path: Path, emqx: StandInProcess, certs: Certs) -> None:
    async with open_deployment(tmp_path, emqx, certs) as deployment:
        await deployment.start_fleet(1)
        # Held until an operator signs it, so it does not end by itself.
        body = {"device_id": "dev-001", "action": "rescan", "hold": True}

        async def is_issued() -> bool:
            return bool((await deployment.operator.call("GET", "/commands?device_id=dev-001"))["items"])

        async with asyncio.TaskGroup() as group:
            request = group.create_task(deployment.operator.call("POST", "/commands?wait=50", body))
            await eventually(is_issued, "the command")
            await asyncio.sleep(0.2)
            assert not request.done()
            os.kill(deployment.controller.pid, signal.SIGTERM)
            async with asyncio.timeout(SHORT):
                await asyncio.wait([request])
        assert (request.result()["state"], request.result()["waited"]) == ("scheduled", "stopping")
