"""Builds what looks after accounts."""

from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.factors import SqlFactors
from controller.app.adapters import Adapters
from controller.service.accounts.authentication import Authentication
from controller.service.accounts.grants import GrantsInForce
from controller.service.accounts.operations import AccountOperations
from controller.service.accounts.services import AccountServices
from controller.service.approvals.book import ApprovalBook
from controller.service.fleet_state import FleetState
from controller.service.settings.settings import Settings


def authentication(settings: Settings, adapters: Adapters) -> Authentication:
    """Who calls, by the store and the configured roles."""
    accounts, roles = SqlAccounts(adapters.store), settings.accounts.all_roles
    return Authentication(adapters.store, accounts, roles, adapters.clock, GrantsInForce())


def account_services(
    adapters: Adapters, callers: Authentication, fleet: FleetState, book: ApprovalBook
) -> AccountServices:
    """Accounts over the store; disabling one ends its open requests."""
    factors = SqlFactors(adapters.store)
    operations = AccountOperations(callers.accounts, factors, callers.roles, fleet.publish_committed, book.end_of)
    return AccountServices(callers.accounts, factors, callers, operations)
