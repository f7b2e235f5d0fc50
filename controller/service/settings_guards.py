"""What `cordon.toml` says of the guards: how much may be contained at once, and whom policies leave alone."""

from typing import Annotated

from pydantic import Field, StringConstraints

from controller.domain.blast_radius import Bounds
from controller.domain.guards import Protection
from controller.domain.rules import MAX_EXPRESSION
from controller.service.settings_base import Duration, Part
from schemas.base import DEVICE_ID_PATTERN

Id = Annotated[str, StringConstraints(pattern=DEVICE_ID_PATTERN)]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]


class GuardSettings(Part):
    """`[guards]`; a device is protected by its id, by a tag, or where `protected_if` holds."""

    max_devices: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    max_percent: Annotated[float, Field(gt=0.0, le=100.0)] = 10.0
    window: Annotated[Duration, Field(ge=1.0)] = 3600.0
    protected_devices: Annotated[tuple[Id, ...], Field(max_length=10_000)] = ()
    protected_tags: Annotated[tuple[Tag, ...], Field(max_length=100)] = ()
    protected_if: Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION)] | None = None
    by_hand: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    by_hand_window: Annotated[Duration, Field(ge=1.0)] = 3600.0
    request_expiry: Annotated[Duration, Field(ge=60.0)] = 86_400.0

    @property
    def bounds(self) -> Bounds:
        """The blast radius."""
        return Bounds(self.max_devices, self.max_percent, self.window)

    @property
    def protection(self) -> Protection:
        """Who is protected without an expression."""
        return Protection(frozenset(self.protected_devices), frozenset(self.protected_tags))
