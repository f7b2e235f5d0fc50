"""The section about what was put in place by updates: this, and not a device's word, confirms a version."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from schemas.base import Counter, Keyword, Text, Timestamp, WireModel
from schemas.updates import MAX_HARDWARE, UpdatePhase, known_phase

MAX_UPDATED: Final = 48  # entries of a report; what is cut is counted in `truncated`


class UpdatedSoftware(WireModel):
    """One name that updates were put in place for, as it is found now.

    `version` was looked up where it lies (package database, link of a file set and the hashes of its files, the hook of
    an image); empty when nothing usable of it is there. `health` is of the version's own health check, run again for
    this report. `outcome` is how far the last update of it got, to `attempted`, by the command `command_id`.
    """

    name: Keyword
    version: Text = ""
    kind: Keyword
    previous: Text = ""
    """What going back would lead to; empty: nothing."""
    health: Literal["ok", "failed", "unknown"] = "unknown"
    health_reason: Text = ""
    outcome: Annotated[UpdatePhase, BeforeValidator(known_phase)] = UpdatePhase.UNKNOWN
    attempted: Text = ""
    reason: Text = ""
    command_id: Text = ""
    at: Timestamp | None = None


class SoftwareSection(WireModel):
    """What updates have put in place here, and what this device is to them; `root_version` of the trusted TUF root."""

    state: Literal["ok"] = "ok"
    device_class: Text = ""
    hardware: Annotated[tuple[Text, ...], Field(max_length=MAX_HARDWARE)] = ()
    root_version: Counter | None = None
    entries: Annotated[tuple[UpdatedSoftware, ...], Field(max_length=MAX_UPDATED)] = ()
    truncated: Counter = 0
