"""`/login` and `/api_key`: dashboard login and API keys.

The formats are from EMQX's source and documentation; the recorded API only has the rejection of an API key.
"""

import base64

from controller.standin.api.check import Field, body_object, text
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response

_LOGIN = {"username": Field(text, required=True), "password": Field(text, required=True)}
_WORDS = {"BAD_USERNAME_OR_PWD": "Auth failed", "LOGIN_LOCKED": "Login locked"}


def login(context: RequestContext, request: Request) -> Response:
    """Returns a token for the dashboard user; five wrong passwords in five minutes lock the login for ten minutes."""
    state = context.registry.state
    given = body_object(request, _LOGIN)

    def new_token() -> str:
        return base64.urlsafe_b64encode(state.randbytes(48)).decode()

    token, refusal = state.dashboard.log_in(given["username"], given["password"], state.now(), new_token)
    if refusal:
        raise ApiError(401, refusal, _WORDS[refusal])
    more = {"version": state.release.version, "license": {"edition": "opensource"}, "role": "administrator"}
    return json_response(200, {"token": token, **more})


def api_keys(context: RequestContext, _request: Request) -> Response:
    """Lists the configured API keys; requires a login, API keys are rejected."""
    defaults = {"desc": "", "enable": True, "expired": False, "role": "administrator", "expired_at": "infinity"}
    return json_response(200, [{**defaults, **row} for row in context.registry.state.dashboard.api_keys])


ROUTES = (
    Route("/api/v5/login", {"POST": login}, open=True),
    Route("/api/v5/api_key", {"GET": api_keys}),
)
