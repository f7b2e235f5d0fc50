"""Builds what looks after accounts."""

from controller.adapters.passkeys import WebauthnPasskeys
from controller.adapters.password_hashing import Argon2Hasher
from controller.adapters.sealing import KEY_SUFFIX, open_sealer
from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.factors import SqlFactors
from controller.app.adapters import Adapters
from controller.app.sso import single_sign_on
from controller.packs import common_passwords
from controller.service.accounts.authentication import Authentication
from controller.service.accounts.factor_requirement import FactorRequirement
from controller.service.accounts.factors import FactorService
from controller.service.accounts.grants import GrantsInForce
from controller.service.accounts.operations import AccountOperations
from controller.service.accounts.services import AccountServices
from controller.service.accounts.sign_in import SignIn, everybody
from controller.service.approvals.book import ApprovalBook
from controller.service.fleet_state import FleetState
from controller.service.settings.settings import Settings


def authentication(settings: Settings, adapters: Adapters) -> Authentication:
    """Who calls, by the store and the configured roles."""
    accounts, roles, grants = SqlAccounts(adapters.requests), settings.accounts.all_roles, GrantsInForce()
    return Authentication(adapters.requests, accounts, roles, adapters.clock, grants, _requirement(settings, adapters))


def _requirement(settings: Settings, adapters: Adapters) -> FactorRequirement:
    is_required = settings.accounts.second_factor == "required"
    return FactorRequirement(SqlAccounts(adapters.requests), SqlFactors(adapters.requests), is_required=is_required)


def account_services(
    settings: Settings, adapters: Adapters, callers: Authentication, fleet: FleetState, book: ApprovalBook
) -> AccountServices:
    """Accounts over the store; disabling one, for example, ends its open requests.

    Raises:
        SettingsError: the key of second factors beside the store, or single sign-on, cannot be used as configured.
    """
    factors, path = SqlFactors(adapters.requests), settings.store.beside
    second_factors = FactorService(
        fleet,
        callers.accounts,
        factors,
        WebauthnPasskeys(),
        open_sealer(path.with_name(path.name + KEY_SUFFIX)),
        callers.roles,
        _requirement(settings, adapters),
    )
    operations = AccountOperations(callers.accounts, callers.roles, fleet.publish_committed, book.end_of)
    hasher = Argon2Hasher()
    sso = single_sign_on(settings, adapters, callers, fleet, book.end_of)
    sign_in = SignIn(
        callers.accounts,
        hasher,
        common_passwords(),
        adapters.clock,
        fleet.publish_committed,
        rule=everybody if sso is None else sso.password_rule,
        ends=book.end_of,
    )
    return AccountServices(callers.accounts, factors, callers, operations, second_factors, sign_in, sso)
