"""A controller killed between decision and delivery: every message arrives, a second time with the same id."""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.certs import Certs
from tests.support.deployment import Deployment, open_deployment
from tests.support.http_receiver import OK, HttpReceiver, ReceivedRequest, http_receiver
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

DECIDED = "containment.decided"
DEVICES = 8
SECRETS = '\n[notifications.secrets]\nhook = "hook.key"\n'
Round = Callable[[Deployment, HttpReceiver, str], Awaitable[None]]


async def _contain(deployment: Deployment, device: str) -> None:
    body = {"level": "restricted", "reason": "crash test"}
    await deployment.operator.call("PUT", f"/quarantine/{device}", body)


async def _after_the_decision(deployment: Deployment, _receiver: HttpReceiver, device: str) -> None:
    await _contain(deployment, device)
    await deployment.kill_controller()


async def _killed_by_the_receiver(
    deployment: Deployment, receiver: HttpReceiver, device: str, *, answers: bool
) -> None:
    """The receiver kills the controller when it has the message, or when it has answered."""
    is_killed = asyncio.Event()

    async def answer(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        is_it = request.json["device"] == device and request.json["kind"] == DECIDED and not is_killed.is_set()
        if answers or not is_it:
            writer.write(OK)
            await writer.drain()
        if is_it:
            os.kill(deployment.controller.pid, signal.SIGKILL)
            is_killed.set()

    receiver.answer = answer
    await _contain(deployment, device)
    await is_killed.wait()
    receiver.answer = None
    await deployment.kill_controller()


async def _before_the_answer(deployment: Deployment, receiver: HttpReceiver, device: str) -> None:
    await _killed_by_the_receiver(deployment, receiver, device, answers=False)


async def _after_the_answer(deployment: Deployment, receiver: HttpReceiver, device: str) -> None:
    await _killed_by_the_receiver(deployment, receiver, device, answers=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_each_decision_is_told_at_least_once_and_twice_only_with_the_same_id(tmp_path: Path) -> None:
    certs = Certs(tmp_path / "certs")
    with StandInProcess(nodes=1, certs=certs) as emqx:
        async with open_deployment(tmp_path, emqx, certs, more=SECRETS) as deployment, http_receiver() as receiver:
            fleet = await deployment.start_fleet(DEVICES)
            key = deployment.config.parent / "hook.key"
            key.touch(mode=0o600)
            key.write_text("a secret that signs")
            sink = {"name": "ops", "kind": "webhook", "url": receiver.url, "secret": "hook"}
            await deployment.operator.call("POST", "/notifications/sinks", sink)
            rounds: list[Round] = [_after_the_decision, _before_the_answer, _after_the_answer, _after_the_decision]
            for device, kill in zip(fleet.device_ids, rounds * 2, strict=True):
                await kill(deployment, receiver, device)
                await deployment.start_controller()

            def told() -> dict[str, list[ReceivedRequest]]:
                found = defaultdict(list)
                for request in receiver.got:
                    if request.json["kind"] == DECIDED:
                        found[request.json["device"]].append(request)
                return found

            await eventually(lambda: set(told()) == set(fleet.device_ids), lambda: f"told were {sorted(told())}")
            assert deployment.starts == DEVICES + 1
            for device, requests in told().items():
                assert len({request.key for request in requests}) == 1, device
                assert len({request.json["audit_id"] for request in requests}) == 1, device
            twice = [device for device, requests in told().items() if len(requests) > 1]
            assert set(twice) >= {fleet.device_ids[1], fleet.device_ids[5]}, "killed before the answer"
            log = (await deployment.operator.call("GET", "/notifications/log"))["items"]
            assert {one["state"] for one in log if one["kind"] == DECIDED} <= {"delivered", "pending"}
