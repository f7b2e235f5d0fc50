"""The settings of rollouts and of the update repository."""

from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from controller.domain.rollout.model import RolloutTerms
from controller.domain.rollout.rings import DEFAULT_RINGS, MAX_RINGS, RolloutRing, parse_ring
from controller.domain.rollout.window import time_zone_named
from controller.service.settings.base import (
    ConfigKeyFile,
    ConfigPath,
    Duration,
    ListenAddress,
    SettingsTable,
    host_of,
    is_loopback,
)

MAX_CLASSES: Final = 64


class RingSettings(SettingsTable):
    """`select` chooses devices among those that no earlier ring has."""

    name: Annotated[str, Field(max_length=32)]
    select: Annotated[str, Field(max_length=500)]


def _check_rings(rings: tuple[RingSettings, ...]) -> tuple[RingSettings, ...]:
    for ring in rings:
        parse_ring(ring.name, ring.select)
    if len({ring.name for ring in rings}) != len(rings):
        raise ValueError("two rings have the same name")
    return rings


def _check_zone(name: str) -> str:
    time_zone_named(name)
    return name


_DEFAULT: Final = tuple(RingSettings(name=name, select=select) for name, select in DEFAULT_RINGS)
_Rings = Annotated[tuple[RingSettings, ...], Field(max_length=MAX_RINGS), AfterValidator(_check_rings)]


class RolloutSettings(SettingsTable):
    """Rings in their order, and the default terms of a rollout.

    `approval`: a second operator approves before the last ring. `time_zone`: of devices without a tag `tz:...`.
    `confirm_classes`: classes of devices where a person confirms the update. `threshold` is a share: 0.05 is 5%.
    """

    rings: _Rings = ()
    soak: Duration = 3600.0
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    min_sample: Annotated[int, Field(ge=1, le=100_000)] = 10
    timeout: Annotated[Duration, Field(ge=1.0, le=604_800.0)] = 1800.0
    approval: bool = True
    rollback_on_error: bool = False
    time_zone: Annotated[str, Field(max_length=64), AfterValidator(_check_zone)] = "UTC"
    confirm_classes: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=MAX_CLASSES)
    ] = ()

    @property
    def in_order(self) -> tuple[RingSettings, ...]:
        """The configured rings, or Cordon's default ones."""
        return self.rings or _DEFAULT

    def terms(self) -> RolloutTerms:
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
        return tuple(parse_ring(ring.name, ring.select) for ring in self.in_order)

    def trial_rings(self, asked: Sequence[tuple[str, str | None]]) -> int:
        """How many of the first rings (name, selector) are configured before the last one, with this selector."""
        known = {ring.name: ring.select for ring in self.in_order[:-1]}
        trial = (name in known and select in (None, known[name]) for name, select in asked)
        return next((number for number, is_trial in enumerate(trial) if not is_trial), len(asked))


class UpdateSettings(SettingsTable):
    """`folder` is made by `cordon update init`; `listen` serves it to devices, unless another web server does.

    `url` is the address for devices; enrolment returns it together with the root metadata. Beyond loopback `listen`
    needs a certificate and key; with `client_ca` clients need a certificate of that CA. `mib_per_second` limits all
    downloads together (0: no limit), `max_downloads` and `max_downloads_per_address` their number at a time.
    """

    folder: ConfigPath | None = None
    listen: ListenAddress | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$", max_length=300)] | None = None
    certificate: ConfigPath | None = None
    key: ConfigKeyFile | None = None
    client_ca: ConfigPath | None = None
    mib_per_second: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    max_downloads: Annotated[int, Field(ge=1, le=10_000)] = 64
    max_downloads_per_address: Annotated[int, Field(ge=1, le=10_000)] = 16
    refresh_every: Annotated[Duration, Field(ge=1.0, le=21_600.0)] = 600.0

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        if self.listen is not None and self.folder is None:
            raise ValueError("listen needs folder")
        if self.listen is not None and self.certificate is None and not is_loopback(host_of(self.listen)):
            raise ValueError("beyond loopback updates are served with certificate and key")
        return self
