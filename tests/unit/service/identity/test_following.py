"""What another controller revoked reaches this one, however long its commit took."""

from collections.abc import Sequence
from typing import cast

from controller.ports.certificates import PublishedCrl, SharedRevocations
from controller.service.identity.crl_publisher import CrlPublisher
from controller.service.identity.following import RevocationFollower
from tests.support.clocks import ManualClock


class _Shared:
    def __init__(self) -> None:
        self.revoked: dict[str, tuple[float, str]] = {}

    async def revoked_since(self, at: float) -> Sequence[tuple[str, str]]:
        return [(serial, name) for serial, (when, name) in self.revoked.items() if when > at]


class _Crls:
    def __init__(self) -> None:
        self.lists: tuple[PublishedCrl, ...] = ()

    async def follow(self) -> None:
        """The test sets `lists`."""


async def test_a_revocation_is_taken_once_also_if_its_commit_took_longer_than_the_window() -> None:
    shared, crls, clock = _Shared(), _Crls(), ManualClock()
    changed: list[str] = []
    follower = RevocationFollower(
        cast("SharedRevocations", shared), cast("CrlPublisher", crls), changed.append, clock, lambda *_: None
    )
    await follower.run_once()
    shared.revoked["1"] = (clock.now() - 5.0, "soon")
    await follower.run_once()
    shared.revoked["2"] = (clock.now() - 3600.0, "late")
    await follower.run_once()
    assert changed == ["soon"]
    crls.lists = (PublishedCrl("issuer", b"der", b"pem", clock.now() + 60.0),)
    for _ in range(2):
        await follower.run_once()
    assert changed == ["soon", "late"]
