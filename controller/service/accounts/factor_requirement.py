"""Who needs a second factor."""

from controller.domain.accounts.caller import SignedIn
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.second_factor import gate_of
from controller.ports.accounts import AccountStore, FactorStore


class FactorRequirement:
    """`is_required`: whether everybody needs a factor, once the first administrator has one."""

    def __init__(self, accounts: AccountStore, factors: FactorStore, *, is_required: bool) -> None:
        self._accounts = accounts
        self._factors = factors
        self._is_required = is_required

    async def is_in_force(self) -> bool:
        """Whether everybody needs a second factor now."""
        return self._is_required and await self._factors.are_required()

    async def warning(self) -> str:
        """What is wrong as long as people log in and no administrator has a factor; else empty."""
        if not self._is_required or await self._factors.are_required():
            return ""
        if not any(one.enabled and (one.password or one.subject) for one in await self._accounts.accounts()):
            return ""
        return "people log in without a second factor, until an administrator registers one at /me"

    async def gate(self, who: SignedIn) -> FactorGate:
        """What the session has to do about its second factor before it may do anything else."""
        if who.session.factor_at > 0:
            return FactorGate.OPEN
        has_factor = (await self._factors.factors(who.account.account_id)).exist
        required = not has_factor and await self.is_in_force()
        return gate_of(has_factor=has_factor, factor_at=who.session.factor_at, required=required)
