"""Two slots for the agent itself: which one runs, which one is being tried, and when trying is over.

The launcher (`cordon-agent launch`) is part of the agent that was installed by hand, and stays as it is. It replaces
itself by the agent of the chosen slot. A new one is tried a few times and until a deadline: it is killed by an alarm
that only its confirmation takes away, and when it was not confirmed the next start takes the old one again.
"""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from device_agent.host.files import write_whole

LAUNCHER_VARIABLE: Final = "CORDON_AGENT_LAUNCHER"
MAX_STARTS: Final = 3  # of a version that is being tried
_FILE: Final = "slots.json"
SlotName = Literal["", "a", "b"]
"""Empty: the agent that was installed by hand."""


class SlotTrial(BaseModel):
    """A version that is being tried; `deadline` in Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    slot: SlotName
    deadline: float
    starts: int = 0


class SlotState(BaseModel):
    """What is in the slots."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    active: SlotName = ""
    versions: dict[str, str] = {}
    trial: SlotTrial | None = None


@dataclass(frozen=True, slots=True)
class LaunchChoice:
    """What to start: the file of a slot (None: the agent installed by hand), and in how many seconds it is killed."""

    slot: SlotName
    file: Path | None
    alarm: float = 0.0


class AgentSlots:
    """The folder of the slots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, slot: SlotName) -> Path:
        """Where the agent of a slot lies."""
        return self._folder / f"{slot}.pyz"

    def state(self) -> SlotState:
        """What is in the slots; a damaged file counts as none, so that the agent installed by hand runs."""
        try:
            return SlotState.model_validate_json((self._folder / _FILE).read_bytes())
        except (OSError, ValidationError, json.JSONDecodeError):
            return SlotState()

    def save(self, state: SlotState) -> None:
        """Write it; on the disk when this returns (OSError)."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._folder / _FILE, self._folder / ".slots.new", state.model_dump_json().encode())

    def free(self) -> SlotName:
        """The slot that a new version goes to."""
        return "b" if self.state().active == "a" else "a"

    def choose(self, now: float) -> LaunchChoice:
        """What to start at `now` (Unix seconds); a trial that is over is ended, one that goes on is counted."""
        state = self.state()
        trial = state.trial
        if trial is not None and (
            trial.starts >= MAX_STARTS or now >= trial.deadline or not self._is_there(trial.slot)
        ):
            state, trial = state.model_copy(update={"trial": None}), None
            self.save(state)
        if trial is not None:
            self.save(state.model_copy(update={"trial": trial.model_copy(update={"starts": trial.starts + 1})}))
            return LaunchChoice(trial.slot, self.file(trial.slot), max(1.0, trial.deadline - now))
        if state.active and self._is_there(state.active):
            return LaunchChoice(state.active, self.file(state.active))
        return LaunchChoice("", None)

    def confirm(self) -> None:
        """What is being tried is the active one from here on."""
        state = self.state()
        if state.trial is not None:
            self.save(state.model_copy(update={"active": state.trial.slot, "trial": None}))
        signal.setitimer(signal.ITIMER_REAL, 0)

    def go_back(self, to: SlotName) -> None:
        """Nothing is tried any more, and this slot is the active one."""
        self.save(self.state().model_copy(update={"active": to, "trial": None}))

    def _is_there(self, slot: SlotName) -> bool:
        return self.file(slot).is_file()
