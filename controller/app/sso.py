"""Builds single sign-on, where a provider is configured."""

import ssl

from controller.adapters.files import read_line
from controller.adapters.sql.sso import SqlSsoTrials
from controller.app.adapters import Adapters
from controller.domain.accounts.session import ABSOLUTE
from controller.ports.errors import SettingsError
from controller.service.accounts.authentication import Authentication
from controller.service.accounts.operations import Ends
from controller.service.accounts.sso import SingleSignOn
from controller.service.fleet_state import FleetState
from controller.service.settings.settings import Settings


def single_sign_on(
    settings: Settings, adapters: Adapters, callers: Authentication, fleet: FleetState, ends: Ends
) -> SingleSignOn | None:
    """Single sign-on as configured; nothing is asked of the provider yet.

    Raises:
        SettingsError: its package is missing, or a file cannot be used.
    """
    sso = settings.accounts.sso
    if sso is None:
        return None
    try:  # its package is optional
        from controller.adapters.oidc.provider import CALLBACK, OidcOptions, OidcProvider
    except ImportError as e:
        raise SettingsError("accounts.sso needs a package more: pip install 'emqx-cordon[controller,sso]'") from e
    try:
        tls = ssl.create_default_context(cafile=sso.ca)
    except OSError as e:
        raise SettingsError(f"accounts.sso.ca: {sso.ca} cannot be used: {e}") from e
    options = OidcOptions(
        sso.issuer,
        sso.client_id,
        read_line(sso.client_secret, "accounts.sso.client_secret"),
        f"{settings.accounts.url}{CALLBACK}",
        sso.scopes,
        sso.groups_claim,
        sso.acr_values,
        int(ABSOLUTE) if sso.acr_values or sso.amr_values else 0,
    )
    return SingleSignOn(
        sso.name,
        OidcProvider(options, tls, adapters.clock),
        sso.rules,
        callers.accounts,
        SqlSsoTrials(adapters.store),
        callers.roles,
        fleet,
        adapters.ids,
        adapters.log("accounts"),
        ends,
    )
