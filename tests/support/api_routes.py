"""The routes of an API, and what each says of who may call it."""

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from controller.api.auth import PublicRoute, RequiresLogin, RequiresScope, RequiresSession
from tests.support.api import Api


def routes(api: Api) -> Iterator[tuple[str, frozenset[str], Dependant]]:
    """Path, methods and dependencies of every route of ours; FastAPI's own description is none."""
    for one in iter_route_contexts(api.app.routes):
        if isinstance(one.original_route, APIRoute):
            dependant = one.dependant
            assert isinstance(dependant, Dependant)
            yield one.path or "", frozenset(one.methods or ()), dependant


Check = RequiresScope | RequiresSession | RequiresLogin | PublicRoute


def checks(dependant: Dependant) -> list[Check]:
    """What the route says of who may call it."""
    mine = [dependant.call] if isinstance(dependant.call, Check) else []
    return [*mine, *(found for one in dependant.dependencies for found in checks(one))]
