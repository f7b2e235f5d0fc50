"""What every part of `cordon.toml` is made of, so that a part can live beside the code that it sets."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from schemas.durations import parse_duration


def _seconds(value: Any) -> float:
    return parse_duration(value if isinstance(value, str) else repr(value))


Duration = Annotated[float, BeforeValidator(_seconds)]  # seconds; written as 90s, 10m, 2h, 1d


class SettingsTable(BaseModel):
    """A table of the file: unknown keys are mistakes, and nothing changes after the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")
