"""A device that does not have the time: it waits, installs nothing, and names the clock."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from controller.ports.updates import PublishedUpdate
from device_agent.updates import tuf_client
from schemas.commands import COMMAND_PAYLOAD_TYPE, WRONG_CLOCK, Command, CommandState
from schemas.signing import sign
from schemas.updates import INSTALL
from tests.support.update_device import DEVICE, UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, archive, order


def app(version: str) -> bytes:
    return archive({"version": version})


@pytest.fixture
def new(made: Repository, device: UpdateDevice) -> PublishedUpdate:
    """Version 1.1, on a device that has verified and installed 1.0."""
    assert device.install(order(made.publish("edge-app", "1.0", app("1.0")))).state is CommandState.SUCCEEDED
    device.results.clear()
    return made.publish("edge-app", "1.1", app("1.1"))


@pytest.mark.parametrize("behind", [timedelta(days=3), timedelta(days=20_000)])
def test_a_clock_that_is_not_set_yet_is_waited_for(
    device: UpdateDevice, new: PublishedUpdate, behind: timedelta
) -> None:
    device.clock.shift = -behind
    device.send(INSTALL, order(new).params())
    deadline = time.monotonic() + 10.0
    while not any(result.detail.get("phase") == "offered" for result in device.results):
        assert time.monotonic() < deadline, "it was not begun"
        time.sleep(0.01)
    device.clock.shift = timedelta()
    assert device.ended().detail["phase"] == "confirmed"


def test_without_a_verification_before_a_clock_that_was_never_set_installs_nothing(
    made: Repository, device: UpdateDevice, server: UpdateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuf_client, "CLOCK_WAIT", 0.1)
    device.clock.shift = -timedelta(days=20_000)
    result = device.install(order(made.publish("edge-app", "1.0", app("1.0"))))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "clock")
    assert "not set yet" in result.reason
    assert server.requests == []


def test_a_command_of_another_time_names_the_clock(device: UpdateDevice, new: PublishedUpdate) -> None:
    now = datetime.now(UTC)
    command = Command(
        command_id="late", device_id=DEVICE, action=INSTALL, params=order(new).params(), counter=100,
        issued_at=now - timedelta(days=9), expires_at=now - timedelta(days=8),
    )  # fmt: skip
    device.commands.on_envelope(sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, device.key))
    result = device.ended()
    assert (result.state, result.detail) == (CommandState.EXPIRED, WRONG_CLOCK)


def test_waiting_for_the_time_ends_with_the_agent(device: UpdateDevice, new: PublishedUpdate) -> None:
    device.clock.shift = -timedelta(days=20_000)
    device.send(INSTALL, order(new).params())
    device.stop()
    device.clock.shift = timedelta()
    device.start()
    assert device.ended().detail["phase"] == "confirmed"


def leaping(device: UpdateDevice, at: str, by: timedelta) -> None:
    """Lets the clock leap when the next update reaches a step."""

    def step(name: str) -> None:
        if name == at:
            device.clock.shift += by

    device.step = step


@pytest.mark.parametrize("step", ["phase:offered", "phase:downloading", "download:chunk"])
def test_a_clock_that_leaps_past_the_deadline_names_itself(
    device: UpdateDevice, new: PublishedUpdate, step: str
) -> None:
    leaping(device, step, timedelta(days=20))
    result = device.install(order(new))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "clock")
    assert "was set, or the device slept, since the order began" in result.reason
    assert device.entry().version == "1.0"


@pytest.mark.parametrize("step", ["install:before", "health:before"])
def test_a_clock_that_leaps_once_the_system_is_modified_takes_no_time_from_the_update(
    device: UpdateDevice, made: Repository, new: PublishedUpdate, step: str
) -> None:
    leaping(device, step, timedelta(days=20))
    assert device.install(order(new)).detail["phase"] == "confirmed"
