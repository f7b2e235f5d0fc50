"""The project's programs as child processes: argument lists, one JSON object a line, a log file each."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from controller.demo.options import DemoError

STOP_SECONDS: Final = 8.0  # between SIGTERM and SIGKILL
MAX_LINE_BYTES: Final = 256 * 1024
_TAIL_LINES: Final = 15
_TAIL_BYTES: Final = 16 * 1024


class ChildProcess:
    """`python -m MODULE` in a session of its own, so that Ctrl-C reaches only the demonstration."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls, name: str, module: str, arguments: Sequence[str], folder: Path, secrets: Mapping[str, str] | None = None
    ) -> "ChildProcess":
        """Starts it; standard error goes to `folder/NAME.log`, `secrets` into its environment.

        Raises:
            DemoError: it cannot be started.
        """
        log = folder / f"{name}.log"
        try:
            with log.open("ab") as errors:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", module, *arguments,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                    env={**os.environ, **(secrets or {})}, start_new_session=True, limit=MAX_LINE_BYTES,
                )  # fmt: skip
        except OSError as e:
            raise DemoError(f"{name} could not be started: {e.strerror}") from e
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """`None` while it runs."""
        return self._process.returncode

    async def line(self) -> dict[str, Any] | None:
        """The next JSON object on standard output, `None` at the end; other lines go to the log."""
        assert self._process.stdout is not None
        while True:
            try:
                raw = await self._process.stdout.readline()
            except ValueError as e:  # a line beyond the limit
                raise DemoError(f"{self.name} wrote a line of more than {MAX_LINE_BYTES} bytes") from e
            if not raw:
                return None
            with contextlib.suppress(ValueError):
                value = json.loads(raw)
                if isinstance(value, dict):
                    return value
            with self.log.open("ab") as log:
                log.write(raw)

    async def first_line(self, seconds: float) -> dict[str, Any]:
        """The line by which it says that it is ready.

        Raises:
            DemoError: none within `seconds`, or it ended.
        """
        try:
            async with asyncio.timeout(seconds):
                line = await self.line()
        except TimeoutError as e:
            raise DemoError(f"{self.name} was not ready within {seconds:g} s") from e
        if line is None:
            raise DemoError(f"{self.name} ended before it was ready")
        return line

    async def finished(self, seconds: float) -> None:
        """Waits until it has succeeded; its output goes to the log.

        Raises:
            DemoError: it failed, or took longer than `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                while await self.line() is not None:
                    pass
                code = await self.wait()
        except TimeoutError as e:
            raise DemoError(f"{self.name} took longer than {seconds:g} s") from e
        if code:
            raise DemoError(f"{self.name} failed with exit code {code}")

    async def send(self, request: Mapping[str, Any]) -> None:
        """Writes one JSON line to standard input.

        Raises:
            DemoError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as e:
            raise DemoError(f"{self.name} has ended") from e

    async def wait(self) -> int:
        """Waits for its end; returns the exit code."""
        return await self._process.wait()

    def kill(self) -> None:
        """Sends SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """Sends SIGTERM, and SIGKILL after `STOP_SECONDS`; waits for the end."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._drain()
            except TimeoutError:
                self.kill()
                await self._drain()
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def _drain(self) -> None:
        # A process with a full output pipe would never end.
        assert self._process.stdout is not None
        while await self._process.stdout.read(MAX_LINE_BYTES):
            pass
        await self._process.wait()


def log_tails(folder: Path) -> str:
    """The end of every log below `folder`."""
    return "\n".join(f"--- {log.stem}\n{_tail(log)}" for log in sorted(folder.rglob("*.log")))


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as e:
        return f"(cannot be read: {e.strerror})"
    return "\n".join(lines[-_TAIL_LINES:]) or "(empty)"
