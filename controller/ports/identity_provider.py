"""Single sign-on: the provider that says who signs in."""

from collections.abc import Mapping
from typing import Protocol

from controller.domain.accounts.sso import ProvedIdentity, SignInAttempt
from controller.ports.errors import ControllerError


class IdentityProviderError(ControllerError):
    """A sign-in through the provider failed; the text is for operators and holds nothing that the provider wrote."""


class ProviderUnavailableError(IdentityProviderError):
    """The provider does not answer as it should, or refuses this controller: nobody can sign in through it."""


class ProviderBusyError(IdentityProviderError):
    """As many sign-ins are under way as may; nothing was asked."""


class SignInDeclinedError(IdentityProviderError):
    """The provider ended this sign-in: the person gave up, or the code is not valid any more."""


class IdentityNotProvedError(IdentityProviderError):
    """What the provider, or somebody in its place, sent proves no identity."""


class IdentityProvider(Protocol):
    """One configured OpenID provider."""

    async def authorization_url(self, attempt: SignInAttempt) -> str:
        """Where to send the browser.

        Raises:
            ProviderUnavailableError: the provider's metadata cannot be had.
        """
        ...

    async def identity(self, answer: Mapping[str, str], attempt: SignInAttempt) -> ProvedIdentity:
        """Redeems what the provider sent back through the browser; the caller has compared the `state`.

        Raises:
            IdentityProviderError: nobody is signed in; its kinds say why.
        """
        ...
