"""The project's programs as asyncio child processes, with one JSON object a line on standard input and output."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

STOP_SECONDS: Final = 30.0  # between SIGTERM and SIGKILL
MAX_LINE_BYTES: Final = 256 * 1024
_LOG_SHOWN: Final = 6000  # characters


class ModuleProcess:
    """`python -m MODULE ARGUMENTS`; standard error goes to `log`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls,
        name: str,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> "ModuleProcess":
        """Starts the module; its log is `folder/NAME.log`."""
        log = folder / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                limit=MAX_LINE_BYTES,
            )  # fmt: skip
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """`None` while the process runs."""
        return self._process.returncode

    async def line(self) -> dict[str, Any] | None:
        """The next object on standard output, `None` at the end."""
        assert self._process.stdout is not None
        raw = await self._process.stdout.readline()
        if not raw:
            return None
        found: dict[str, Any] = json.loads(raw)
        return found

    async def answer(self, seconds: float) -> dict[str, Any]:
        """The next object, which has to come within `seconds`.

        Raises:
            AssertionError: the time is over, or the process ended.
        """
        try:
            async with asyncio.timeout(seconds):
                found = await self.line()
        except TimeoutError:
            found = None
        assert found is not None, f"{self.name} wrote no line within {seconds:g} s:\n{self.log_tail()}"
        return found

    async def send(self, request: Mapping[str, Any]) -> None:
        """Writes one object to standard input."""
        await self.write(json.dumps(request).encode())

    async def write(self, line: bytes) -> None:
        """Writes one line to standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

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

    def log_tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-_LOG_SHOWN:]
