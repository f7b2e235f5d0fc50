"""Builds what looks after accounts."""

from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.factors import SqlFactors
from controller.app.adapters import Adapters
from controller.service.accounts.authentication import Authentication
from controller.service.accounts.operations import AccountOperations
from controller.service.accounts.services import AccountServices
from controller.service.containment.operator_actions import OperatorActions
from controller.service.fleet_state import FleetState
from controller.service.settings.settings import Settings


def authentication(settings: Settings, adapters: Adapters) -> Authentication:
    """Who calls, by the store and the configured roles."""
    return Authentication(adapters.store, SqlAccounts(adapters.store), settings.accounts.all_roles, adapters.clock)


def account_services(
    adapters: Adapters, callers: Authentication, fleet: FleetState, operators: OperatorActions
) -> AccountServices:
    """Accounts over the store; disabling one ends its open requests."""
    factors = SqlFactors(adapters.store)
    operations = AccountOperations(
        callers.accounts, factors, callers.roles, fleet.publish_committed, operators.end_requests_of
    )
    return AccountServices(callers.accounts, factors, callers, operations)
