"""Notifies systemd: ready, reloading, watchdog, stopping."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

_MICROSECONDS: Final = 1_000_000
_PER_PERIOD: Final = 3  # notifications in one watchdog period, so that one may be late


class SystemdNotifier:
    """A client of systemd's notification socket."""

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        """`address` is a path, or a name in the abstract namespace with `@` before it; empty: nothing is sent."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every = watchdog_seconds / _PER_PERIOD
        self._last = float("-inf")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads the variables that systemd sets for the process that it starts."""
        micro = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        seconds = int(micro) / _MICROSECONDS if is_ours and micro.isascii() and micro.isdigit() else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), seconds)

    def ready(self, status: str) -> None:
        """The start, or a reload, is done."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The agent stops."""
        self._send("STOPPING=1")

    def watchdog(self, now: float, status: str) -> None:
        """Resets the watchdog at `now` (monotonic seconds), no more often than it needs."""
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
            return  # nothing listens at the socket
