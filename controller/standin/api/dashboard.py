"""`/login`, `/api_key` and `/configs`: what a dashboard login is needed for, and the configuration as JSON.

Shapes by EMQX's source and documentation, not from the recording: that has only the refusal of an API key.
"""

import base64

from controller.standin.api.check import Field, body_object, text
from controller.standin.api.cluster import EMQX_VERSION
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, as_json

_LOGIN = {"username": Field(text, required=True), "password": Field(text, required=True)}
_WORDS = {"BAD_USERNAME_OR_PWD": "Auth failed", "LOGIN_LOCKED": "Login locked"}


def login(context: RequestContext, request: Request) -> Response:
    """A token for the dashboard's user; after five wrong passwords in five minutes nobody gets in for ten."""
    state = context.registry.state
    given = body_object(request, _LOGIN)

    def new_token() -> str:
        return base64.urlsafe_b64encode(state.randbytes(48)).decode()

    token, refusal = state.dashboard.log_in(given["username"], given["password"], state.now(), new_token)
    if refusal:
        raise ApiError(401, refusal, _WORDS[refusal])
    more = {"version": EMQX_VERSION, "license": {"edition": "opensource"}, "role": "administrator"}
    return as_json(200, {"token": token, **more})


def api_keys(context: RequestContext, _request: Request) -> Response:
    """The keys that the stand-in was told to have; an API key never gets here."""
    defaults = {"desc": "", "enable": True, "expired": False, "role": "administrator", "expired_at": "infinity"}
    return as_json(200, [{**defaults, **row} for row in context.registry.state.dashboard.api_keys])


def configs(context: RequestContext, _request: Request) -> Response:
    """The whole configuration; of it the stand-in has the node's cookie and the zone."""
    state = context.registry.state
    return as_json(200, {"node": {"cookie": state.dashboard.cookie}, **state.settings.zone})


ROUTES = (
    Route("/api/v5/login", {"POST": login}, open=True),
    Route("/api/v5/api_key", {"GET": api_keys}),
    Route("/api/v5/configs", {"GET": configs}),
)
