"""Tells systemd how the agent is: ready, reloading, alive, stopping; without systemd it says nothing."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

_MICROSECONDS: Final = 1_000_000
_PER_PERIOD: Final = 3  # signs of life in one watchdog period, so that one may be late


class SystemdNotifier:
    """The other end of systemd's notification socket."""

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        """`address` is a path, or a name in the abstract namespace with `@` before it; empty: nobody listens."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every = watchdog_seconds / _PER_PERIOD
        self._last = float("-inf")

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """As systemd put it into the environment of the process that it started."""
        micro = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        seconds = int(micro) / _MICROSECONDS if is_ours and micro.isascii() and micro.isdigit() else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), seconds)

    def ready(self, status: str) -> None:
        """Started, or done with reloading."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """About to take a new configuration."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """About to end."""
        self._send("STOPPING=1")

    def alive(self, now: float, status: str) -> None:
        """A sign of life at `now` (monotonic seconds), as often as the watchdog wants one."""
        if self._every > 0 and now >= self._last + self._every:
            self._last = now
            self._send(f"WATCHDOG=1\nSTATUS={status}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)
                sender.sendto(text.encode(), self._address)
        except OSError:
            return  # whoever does not listen is not told
