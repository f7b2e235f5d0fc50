"""Asks the person at the device: the request and the answer are files, so that both survive a restart."""

import json
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from device_agent.errors import StoppedError
from device_agent.host.files import write_whole
from device_agent.updates.errors import UpdateError
from device_agent.updates.order_time import OrderTime
from schemas.updates import UpdateRefusalCode

CONSENT_POLL_SECONDS: Final = 1.0
_MAX_BYTES: Final = 4096


class ConsentStore:
    """The folder of consent requests and answers, one of each for a name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def request(self, name: str, version: str, command_id: str, until: datetime) -> None:
        """Writes a request; repeating it changes nothing."""
        request = {"name": name, "version": version, "command_id": command_id, "until": until.isoformat()}
        if self._read(f"{name}.question") != request:
            self._write(f"{name}.question", request)

    def wait_for(self, name: str, command_id: str, time: OrderTime, stopping: threading.Event) -> None:
        """Returns once the person agreed.

        Raises:
            UpdateError: the person declined, or the deadline passed.
            StoppedError: the agent stops.
        """
        while (agreed := self.answer_for(name, command_id)) is None:
            if time.seconds_left <= CONSENT_POLL_SECONDS:
                raise UpdateError(UpdateRefusalCode.DEADLINE, "no person at the device agreed in time")
            if stopping.wait(CONSENT_POLL_SECONDS):
                raise StoppedError
        if not agreed:
            raise UpdateError(UpdateRefusalCode.DECLINED, "the person at the device declined")

    def answer_for(self, name: str, command_id: str) -> bool | None:
        """Returns whether the person agreed, None without an answer."""
        answer = self._read(f"{name}.answer")
        if answer is None or answer.get("command_id") != command_id:
            return None
        return answer.get("agreed") is True

    def record_answer(self, name: str, *, agreed: bool) -> bool:
        """Writes the answer to the request for a name; returns whether there is a request."""
        request = self._read(f"{name}.question")
        if request is None:
            return False
        self._write(f"{name}.answer", {"command_id": request["command_id"], "agreed": agreed})
        return True

    def pending(self) -> list[dict[str, Any]]:
        """Returns the requests without an answer, with `name`, `version`, `command_id` and `until`."""
        files = sorted(path.name for path in self._folder.glob("*.question")) if self._folder.is_dir() else []
        requests = [request for file in files if (request := self._read(file)) is not None]
        return [item for item in requests if self.answer_for(str(item["name"]), str(item["command_id"])) is None]

    def clear(self, name: str) -> None:
        """Removes request and answer."""
        for kind in ("question", "answer"):
            (self._folder / f"{name}.{kind}").unlink(missing_ok=True)

    def _read(self, file_name: str) -> dict[str, Any] | None:
        try:
            with (self._folder / file_name).open("rb") as file:
                content = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and "command_id" in content else None

    def _write(self, file_name: str, content: dict[str, Any]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._folder / file_name, self._folder / f".{file_name}.new", json.dumps(content).encode())
