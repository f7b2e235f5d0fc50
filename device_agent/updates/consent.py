"""Asks the person at the device: a question in a file, and their answer in another, so that both survive a restart."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from device_agent.host.files import write_whole

_MAX_BYTES: Final = 4096


class ConsentStore:
    """The folder of questions and answers, one of each for a name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, name: str, version: str, command_id: str, until: datetime) -> None:
        """Put the question, once."""
        question = {"name": name, "version": version, "command_id": command_id, "until": until.isoformat()}
        if self._read(f"{name}.question") != question:
            self._write(f"{name}.question", question)

    def answered(self, name: str, command_id: str) -> bool | None:
        """Yes, no, or None while nobody has said."""
        answer = self._read(f"{name}.answer")
        if answer is None or answer.get("command_id") != command_id:
            return None
        return answer.get("agreed") is True

    def answer(self, name: str, *, agreed: bool) -> bool:
        """Say yes or no to the open question; whether there was one."""
        question = self._read(f"{name}.question")
        if question is None:
            return False
        self._write(f"{name}.answer", {"command_id": question["command_id"], "agreed": agreed})
        return True

    def questions(self) -> list[dict[str, Any]]:
        """What waits for an answer."""
        names = sorted(path.name for path in self._folder.glob("*.question")) if self._folder.is_dir() else []
        found = [question for name in names if (question := self._read(name)) is not None]
        return [one for one in found if self.answered(str(one["name"]), str(one["command_id"])) is None]

    def forget(self, name: str) -> None:
        """The question has been settled."""
        for kind in ("question", "answer"):
            (self._folder / f"{name}.{kind}").unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with (self._folder / name).open("rb") as file:
                found = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "command_id" in found else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._folder / name, self._folder / f".{name}.new", json.dumps(content).encode())
