"""What `cordon.toml` says of rollouts: the rings, and the terms where an operator names none."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from controller.domain.rollout_rings import DEFAULT_RINGS, MAX_RINGS, Ring, parse_ring
from controller.domain.rollout_values import Terms
from controller.domain.rollout_window import zone_named
from controller.service.settings_base import Duration, Part

MAX_CLASSES: Final = 64


class RingSettings(Part):
    """One ring: `name`, and which devices it takes of those that no ring before it took."""

    name: Annotated[str, Field(max_length=32)]
    select: Annotated[str, Field(max_length=500)]


def _usable(rings: tuple[RingSettings, ...]) -> tuple[RingSettings, ...]:
    for ring in rings:
        parse_ring(ring.name, ring.select)
    if len({ring.name for ring in rings}) != len(rings):
        raise ValueError("two rings have the same name")
    return rings


def _zone(name: str) -> str:
    zone_named(name)
    return name


_DEFAULT: Final = tuple(RingSettings(name=name, select=select) for name, select in DEFAULT_RINGS)
_Rings = Annotated[tuple[RingSettings, ...], Field(max_length=MAX_RINGS), AfterValidator(_usable)]


class RolloutSettings(Part):
    """Rings in their order, and what holds where a rollout says nothing else.

    `approval`: a second operator approves before the last ring. `time_zone`: of devices without a tag `tz:...`.
    `confirm_classes`: devices where a person agrees first. `threshold` is a share, 0.05 for 5%.
    """

    rings: _Rings = ()
    soak: Duration = 3600.0
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    min_sample: Annotated[int, Field(ge=1, le=100_000)] = 10
    timeout: Annotated[Duration, Field(ge=1.0, le=604_800.0)] = 1800.0
    approval: bool = True
    rollback_on_error: bool = False
    time_zone: Annotated[str, Field(max_length=64), AfterValidator(_zone)] = "UTC"
    confirm_classes: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=MAX_CLASSES)
    ] = ()

    @property
    def in_order(self) -> tuple[RingSettings, ...]:
        """The rings, where none is configured those that Cordon comes with."""
        return self.rings or _DEFAULT

    def terms(self) -> Terms:
        """What holds for a rollout that says nothing else."""
        return Terms(
            soak=self.soak,
            error_threshold=self.threshold,
            min_sample=self.min_sample,
            timeout=self.timeout,
            rollback_on_error=self.rollback_on_error,
            approval=self.approval,
            confirm_classes=self.confirm_classes,
        )

    def all_rings(self) -> tuple[Ring, ...]:
        """The rings in order, ready to divide devices."""
        return tuple(parse_ring(ring.name, ring.select) for ring in self.in_order)

    def is_trial(self, name: str, select: str | None) -> bool:
        """Whether a ring is one of those configured for trying before the fleet, and was not changed."""
        known = {ring.name: ring.select for ring in self.in_order[:-1]}
        return name in known and select in (None, known[name])
