"""What every section of a report shares: that it may not be there, and why."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Text, WireModel


class Unavailable(WireModel):
    """A section the device has no facts for, and why."""

    state: Literal["unknown", "notapplicable"]
    reason: Annotated[Text, Field(min_length=1)]
