"""Tokens that are stored on the controller's machine, beside a running controller or before its start."""

import time
from collections.abc import Sequence
from pathlib import Path

from controller.api.auth import digest_of, new_token
from controller.api.tokens import MAX_TOKENS
from controller.app.offline import open_store
from controller.domain.scopes import Scope
from controller.ports.errors import StoreError
from controller.ports.store import ApiToken, StoreWrites, TokenChange


async def add_person(path: Path, name: str, scopes: Sequence[Scope]) -> str:
    """Stores a token that no other token made, so that it counts as a person of its own; returns its secret.

    Raises:
        StoreError: the name is taken, or the store cannot be opened.
    """
    secret = new_token()
    async with open_store(path) as store:
        token = ApiToken(name, digest_of(secret), time.time(), tuple(scopes))
        change = await store.add_token(token, MAX_TOKENS, StoreWrites())
    if change is not TokenChange.DONE:
        raise StoreError(f"the token {name} cannot be added: {change.value}")
    return secret
