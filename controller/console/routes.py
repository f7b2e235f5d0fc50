"""All pages, as routes of the API's application."""

from functools import cache

from fastapi import APIRouter
from starlette.routing import BaseRoute

from controller.console import account, login, sso


@cache
def page_routes() -> tuple[BaseRoute, ...]:
    """Returns the routes, which are stateless."""
    top = APIRouter()
    for router in (login.router, sso.router, account.router):
        top.include_router(router)
    return tuple(top.routes)
