"""The processes of a demonstration: started with argument lists, logged to files, ended whatever happens."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from controller.demo.options import DemoError

STOP_SECONDS: Final = 8.0  # after SIGTERM, before SIGKILL
MAX_LINE_BYTES: Final = 256 * 1024
TAIL_LINES: Final = 15
_TAIL_BYTES: Final = 16 * 1024


class ChildProcess:
    """One process of the project itself, `python -m MODULE`, in a session of its own: Ctrl-C reaches only us."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        """Use `start`."""
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
        secrets: Mapping[str, str] | None = None,
    ) -> "ChildProcess":
        """Start it; what it says on standard error goes to `folder/NAME.log`, `secrets` into its environment.

        Raises:
            DemoError: it cannot be started at all.
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
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; `None` while it runs."""
        return self._process.returncode

    async def line(self) -> dict[str, Any] | None:
        """The next JSON object on its standard output, `None` at the end; other lines go to its log."""
        assert self._process.stdout is not None
        while True:
            try:
                raw = await self._process.stdout.readline()
            except ValueError as e:  # a line beyond the limit
                raise DemoError(f"{self.name} wrote a line of more than {MAX_LINE_BYTES} bytes") from e
            if not raw:
                return None
            with contextlib.suppress(ValueError):
                found = json.loads(raw)
                if isinstance(found, dict):
                    return found
            with self.log.open("ab") as log:
                log.write(raw)

    async def first_line(self, seconds: float) -> dict[str, Any]:
        """What it says when it is ready.

        Raises:
            DemoError: nothing within `seconds`, or it ended.
        """
        try:
            async with asyncio.timeout(seconds):
                found = await self.line()
        except TimeoutError as e:
            raise DemoError(f"{self.name} was not ready within {seconds:g} s") from e
        if found is None:
            raise DemoError(f"{self.name} ended before it was ready")
        return found

    async def finished(self, seconds: float) -> None:
        """Wait until it has done its work; what it says goes to its log.

        Raises:
            DemoError: it failed, or took longer than `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                while await self.line() is not None:
                    pass
                code = await self._process.wait()
        except TimeoutError as e:
            raise DemoError(f"{self.name} took longer than {seconds:g} s") from e
        if code:
            raise DemoError(f"{self.name} failed with exit code {code}")

    async def tell(self, order: dict[str, Any]) -> None:
        """Write one JSON line to its standard input.

        Raises:
            DemoError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as e:
            raise DemoError(f"{self.name} has ended") from e

    async def ended(self) -> int:
        """Wait for its end, whoever brings it about; its exit code."""
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when it does not listen."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._drained()
            except TimeoutError:
                self.kill()
                await self._drained()
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _drained(self) -> None:
        # A process whose output nobody reads would wait for room in the pipe for ever.
        assert self._process.stdout is not None
        while await self._process.stdout.read(MAX_LINE_BYTES):
            pass
        await self._process.wait()


def tail_of(log: Path) -> str:
    """The end of a process's log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as e:
        return f"(no log: {e.strerror})"
    return "\n".join(lines[-TAIL_LINES:]) or "(it said nothing)"
