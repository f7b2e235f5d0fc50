"""What the API takes of accounts."""

from dataclasses import dataclass

from controller.ports.accounts import AccountStore, FactorStore
from controller.service.accounts.authentication import Authentication
from controller.service.accounts.factors import FactorService
from controller.service.accounts.operations import AccountOperations


@dataclass(frozen=True, slots=True)
class AccountServices:
    store: AccountStore
    factors: FactorStore
    authentication: Authentication
    operations: AccountOperations
    second_factors: FactorService
