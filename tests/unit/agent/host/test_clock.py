"""The agent's clocks."""

import time

import pytest

from device_agent.host.clock import Clock


def test_the_time_since_boot_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 5.0, time.CLOCK_MONOTONIC: 3.0}.__getitem__)
    assert Clock().since_boot() == 5.0
