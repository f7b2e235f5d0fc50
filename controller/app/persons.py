"""Further people of demonstrations, stored on the controller's machine."""

from collections.abc import Sequence
from pathlib import Path

from controller.app.offline_accounts import new_account_with_token, open_accounts
from controller.domain.accounts.roles import ADMIN_ROLE, Roles
from controller.domain.scopes import Scope
from controller.service.accounts.operations import SETTING_UP


async def add_person(path: Path, name: str, scopes: Sequence[Scope]) -> str:
    """Stores an account that nobody made, so that it counts as a person of its own; returns the secret of its token.

    Raises:
        ControllerError: the name is taken, or the store cannot be opened.
    """
    async with open_accounts(path, Roles()) as accounts:
        return await new_account_with_token(accounts, name, ADMIN_ROLE, scopes, SETTING_UP)
