"""The two slots of the agent itself: which one runs, and the trial of a new version.

The launcher (`cordon-agent launch`) belongs to the manually installed agent, which no update changes. It replaces
itself by the agent of the selected slot. The trial of a new version has a limited number of launches and a deadline:
an alarm kills the new agent unless it is confirmed, and then the next launch selects the former version again.
"""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_agent.host.files import write_whole

LAUNCHER_VARIABLE: Final = "CORDON_AGENT_LAUNCHER"
MAX_LAUNCHES: Final = 3  # of a version on trial
_FILE: Final = "slots.json"
SlotName = Literal["", "a", "b"]
"""Empty: the manually installed agent."""


class SlotTrial(BaseModel):
    """A version on trial; `deadline` in Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)
    slot: SlotName
    deadline: float
    launch_count: Annotated[int, Field(alias="starts")] = 0


class SlotState(BaseModel):
    """The active slot, the version in each slot, and the running trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    active: SlotName = ""
    versions: dict[str, str] = {}
    trial: SlotTrial | None = None


@dataclass(frozen=True, slots=True)
class LaunchChoice:
    """What to launch: `file` None is the manually installed agent; `kill_after_seconds` 0 is no limit."""

    slot: SlotName
    file: Path | None
    kill_after_seconds: float = 0.0


class AgentSlots:
    """The folder of the slots; `slots.json` has their state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, slot: SlotName) -> Path:
        """Returns the path of the agent in a slot."""
        return self._folder / f"{slot}.pyz"

    def state(self) -> SlotState:
        """Reads the state; a damaged file counts as none, so that the manually installed agent runs."""
        try:
            return SlotState.model_validate_json((self._folder / _FILE).read_bytes())
        except (OSError, ValidationError, json.JSONDecodeError):
            return SlotState()

    def save(self, state: SlotState) -> None:
        """Writes the state; it is on the disk when this returns (OSError)."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._folder / _FILE, self._folder / ".slots.new", state.model_dump_json().encode())

    def inactive_slot(self) -> SlotName:
        """Returns the slot for a new version."""
        return "b" if self.state().active == "a" else "a"

    def select_launch(self, now: float) -> LaunchChoice:
        """Selects what to launch at `now` (Unix seconds); counts a launch of a trial, and ends a trial that is over."""
        state = self.state()
        trial = state.trial
        if trial is not None and (
            trial.launch_count >= MAX_LAUNCHES or now >= trial.deadline or not self._exists(trial.slot)
        ):
            state, trial = state.model_copy(update={"trial": None}), None
            self.save(state)
        if trial is not None:
            self.save(
                state.model_copy(update={"trial": trial.model_copy(update={"launch_count": trial.launch_count + 1})})
            )
            return LaunchChoice(trial.slot, self.file(trial.slot), max(1.0, trial.deadline - now))
        if state.active and self._exists(state.active):
            return LaunchChoice(state.active, self.file(state.active))
        return LaunchChoice("", None)

    def confirm(self) -> None:
        """Makes the version on trial the active one, and cancels the alarm."""
        state = self.state()
        if state.trial is not None:
            self.save(state.model_copy(update={"active": state.trial.slot, "trial": None}))
        signal.setitimer(signal.ITIMER_REAL, 0)

    def activate(self, slot: SlotName) -> None:
        """Makes a slot the active one, and ends a trial."""
        self.save(self.state().model_copy(update={"active": slot, "trial": None}))

    def _exists(self, slot: SlotName) -> bool:
        return self.file(slot).is_file()
