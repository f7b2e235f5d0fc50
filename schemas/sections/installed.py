"""The section `software`: targets installed by updates; it confirms a version, a command's result does not."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from schemas.base import CollectedSection, Counter, Keyword, Text, Timestamp, WireModel
from schemas.updates import MAX_HARDWARE, UpdatePhase, known_phase

MAX_UPDATED: Final = 48  # entries of a report; `truncated` counts the omitted ones


class UpdatedSoftware(WireModel):
    """A target that updates installed, in its current state.

    `version` was read from the system (package database, link and file hashes of a file set, hook of an image); empty
    when the target is missing or damaged. `health` is the result of the target's health check, run for this report.
    `outcome` is the phase of the last update, to the version `attempted`, by the command `command_id`.
    """

    name: Keyword
    version: Text = ""
    kind: Keyword
    previous: Text = ""
    """The version that a rollback would return to; empty for none."""
    health: Literal["ok", "failed", "unknown"] = "unknown"
    health_reason: Text = ""
    outcome: Annotated[UpdatePhase, BeforeValidator(known_phase)] = UpdatePhase.UNKNOWN
    attempted: Text = ""
    reason: Text = ""
    command_id: Text = ""
    at: Timestamp | None = None


class SoftwareSection(CollectedSection):
    """The installed targets, the device's class and hardware ids, and the version of the trusted TUF root."""

    device_class: Text = ""
    hardware: Annotated[tuple[Text, ...], Field(max_length=MAX_HARDWARE, fail_fast=True)] = ()
    root_version: Counter | None = None
    entries: Annotated[tuple[UpdatedSoftware, ...], Field(max_length=MAX_UPDATED, fail_fast=True)] = ()
    truncated: Counter = 0
