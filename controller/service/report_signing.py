"""Everything about signed reports behind one name."""

from dataclasses import dataclass

from controller.domain.events import SignatureForgone
from controller.service.device_keyring import DeviceKeyring
from controller.service.keeper import Keeper
from controller.service.sealing import Seals


@dataclass(frozen=True, slots=True)
class ReportSigning:
    """The keys of devices, and what looks at every report; wired together by the composition root."""

    keyring: DeviceKeyring
    seals: Seals

    async def run(self) -> None:
        """Until cancelled: finds out keys."""
        await self.keyring.run()

    async def forgo(self, keeper: Keeper, device_id: str, by: str, reason: str) -> None:
        """Forget the key of a first contact, and take reports without a signature again."""
        await keeper.handle(device_id, SignatureForgone(keeper.new_id(), by, reason))
        await self.keyring.forget(device_id)
        self.seals.forget(device_id)
