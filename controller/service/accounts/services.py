"""What the API takes of accounts."""

from dataclasses import dataclass

from controller.ports.accounts import AccountStore, FactorStore
from controller.service.accounts.authentication import Authentication
from controller.service.accounts.factors import FactorService
from controller.service.accounts.operations import AccountOperations
from controller.service.accounts.sign_in import SignIn
from controller.service.accounts.sso import SingleSignOn


@dataclass(frozen=True, slots=True)
class AccountServices:
    """`sso` is absent where no provider is configured."""

    store: AccountStore
    factors: FactorStore
    authentication: Authentication
    operations: AccountOperations
    second_factors: FactorService
    sign_in: SignIn
    sso: SingleSignOn | None

    async def warnings(self) -> tuple[str, ...]:
        """What is not as it should be about the ways in which people log in."""
        factors = await self.second_factors.warning()
        return (*((factors,) if factors else ()), *(() if self.sso is None else await self.sso.warnings()))
