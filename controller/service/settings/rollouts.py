"""What `cordon.toml` says of rollouts: the rings, and the terms where an operator names none."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from controller.domain.rollout.model import RolloutTerms
from controller.domain.rollout.rings import DEFAULT_RINGS, MAX_RINGS, RolloutRing, parse_ring
from controller.domain.rollout.window import time_zone_named
from controller.service.settings.base import Duration, SettingsTable

MAX_CLASSES: Final = 64


class RingSettings(SettingsTable):
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
    time_zone_named(name)
    return name


_DEFAULT: Final = tuple(RingSettings(name=name, select=select) for name, select in DEFAULT_RINGS)
_Rings = Annotated[tuple[RingSettings, ...], Field(max_length=MAX_RINGS), AfterValidator(_usable)]


class RolloutSettings(SettingsTable):
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

    def terms(self) -> RolloutTerms:
        """What holds for a rollout that says nothing else."""
        return RolloutTerms(
            soak=self.soak,
            error_threshold=self.threshold,
            min_sample=self.min_sample,
            timeout=self.timeout,
            rollback_on_error=self.rollback_on_error,
            approval=self.approval,
            confirm_classes=self.confirm_classes,
        )

    def all_rings(self) -> tuple[RolloutRing, ...]:
        """The rings in order, ready to divide devices."""
        return tuple(parse_ring(ring.name, ring.select) for ring in self.in_order)

    def is_trial(self, name: str, select: str | None) -> bool:
        """Whether a ring is one of those configured for trying before the fleet, and was not changed."""
        known = {ring.name: ring.select for ring in self.in_order[:-1]}
        return name in known and select in (None, known[name])


_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UpdateSettings(SettingsTable):
    """`folder` is made by `cordon update init`; `listen` serves it to devices, where no other web server does.

    `url` is the address as devices see it: whoever enrols is told it, with the root.

    Beyond loopback certificate and key are needed; with `client_ca` only devices with a certificate of that CA get in.
    `mib_per_second` bounds all downloads together (0: no bound), `max_downloads` how many there are at a time.
    """

    folder: Path | None = None
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")] | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$", max_length=300)] | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    mib_per_second: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    max_downloads: Annotated[int, Field(ge=1, le=10_000)] = 64
    refresh_every: Annotated[Duration, Field(ge=1.0, le=21_600.0)] = 600.0

    @property
    def host(self) -> str:
        """The host part of `listen`, without brackets."""
        return (self.listen or "").rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of `listen`; 0 takes a free one."""
        return int((self.listen or ":0").rpartition(":")[2])

    @model_validator(mode="after")
    def _served_safely(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        if self.listen is not None and self.folder is None:
            raise ValueError("listen needs folder")
        if self.listen is not None and self.certificate is None and self.host not in _LOOPBACK:
            raise ValueError("beyond loopback updates are served with certificate and key")
        return self
