"""`/authentication`: the chain of authenticators, at most the built-in database, and its users."""

from typing import Any

from controller.standin.api.check import Field, bad_request, body_object, boolean, one_of, page_of, text
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response, no_content
from controller.standin.options import MAX_USERS
from controller.standin.state import ClusterState, User

_ID = "password_based:built_in_database"
_USER = {
    "user_id": Field(text, required=True),
    "password": Field(text, required=True),
    "is_superuser": Field(boolean, default=False),
}
_CHANGED_USER = {"password": Field(text), "is_superuser": Field(boolean)}
_AUTHENTICATOR: dict[str, Field] = {
    "mechanism": Field(one_of("password_based"), required=True),
    "backend": Field(one_of("built_in_database"), required=True),
    "enable": Field(boolean, default=True),
    "user_id_type": Field(one_of("username"), default="username"),
    "password_hash_algorithm": Field(lambda _path, value: value),
    "bootstrap_file": Field(text),
    "bootstrap_type": Field(text),
}


def _row(state: ClusterState, enabled: bool) -> dict[str, Any]:
    return {
        **state.release.authenticator,
        "id": _ID,
        "backend": "built_in_database",
        "bootstrap_file": "${EMQX_ETC_DIR}/auth-built-in-db-bootstrap.csv",
        "bootstrap_type": "plain",
        "enable": enabled,
        "mechanism": "password_based",
        "password_hash_algorithm": {"name": "sha256", "salt_position": "suffix"},
        "user_id_type": "username",
    }


def chain(context: RequestContext, _request: Request) -> Response:
    """Lists the authenticators, in order."""
    enabled = context.registry.state.authn
    return json_response(200, [] if enabled is None else [_row(context.registry.state, enabled)])


def add(context: RequestContext, request: Request) -> Response:
    """Adds the built-in database to the empty chain; anonymous clients are rejected from then on."""
    given = body_object(request, _AUTHENTICATOR)
    if context.registry.state.authn is not None:
        raise ApiError(409, "ALREADY_EXISTS", f"Authenticator:{_ID} already exists")
    context.registry.state.authn = given["enable"]
    return json_response(200, _row(context.registry.state, given["enable"]))


def _present(context: RequestContext, request: Request) -> None:
    name = request.bindings["id"]
    if name != _ID or context.registry.state.authn is None:
        raise ApiError(404, "NOT_FOUND", f"Authenticator:{name} not found in chain 'mqtt:global'")


def show(context: RequestContext, request: Request) -> Response:
    """Returns the authenticator."""
    _present(context, request)
    return json_response(200, _row(context.registry.state, bool(context.registry.state.authn)))


def change(context: RequestContext, request: Request) -> Response:
    """Enables or disables the authenticator."""
    _present(context, request)
    context.registry.state.authn = body_object(request, _AUTHENTICATOR)["enable"]
    return json_response(200, _row(context.registry.state, bool(context.registry.state.authn)))


def delete(context: RequestContext, request: Request) -> Response:
    """Deletes the authenticator and its users."""
    _present(context, request)
    context.registry.state.authn = None
    context.registry.state.users.clear()
    return no_content()


def _user_row(user: User) -> dict[str, Any]:
    return {"is_superuser": user.is_superuser, "user_id": user.user_id}


def users(context: RequestContext, request: Request) -> Response:
    """Lists users."""
    _present(context, request)
    page = page_of(request)
    like, superuser = request.first("like_user_id"), request.first("is_superuser")
    matching = [
        user
        for user in context.registry.state.users.values()
        if (like is None or like in user.user_id) and (superuser is None or user.is_superuser == (superuser == "true"))
    ]
    rows = [_user_row(user) for user in page.slice(matching)]
    return json_response(200, {"data": rows, "meta": page.meta(len(matching), counted=like is None)})


def add_user(context: RequestContext, request: Request) -> Response:
    """Adds a user."""
    _present(context, request)
    given = body_object(request, _USER)
    state = context.registry.state
    if given["user_id"] in state.users:
        raise ApiError(409, "ALREADY_EXISTS", "User already exists")
    if len(state.users) >= MAX_USERS:
        raise bad_request(f"the stand-in holds no more than {MAX_USERS} users")
    user = state.add_user(given["user_id"], given["password"], is_superuser=given["is_superuser"])
    return json_response(201, {**_user_row(user), **state.release.new_user})


def _user(context: RequestContext, request: Request) -> User:
    _present(context, request)
    user = context.registry.state.users.get(request.bindings["user_id"])
    if user is None:
        raise ApiError(404, "NOT_FOUND", "User not found")
    return user


def show_user(context: RequestContext, request: Request) -> Response:
    """Returns a user."""
    return json_response(200, _user_row(_user(context, request)))


def change_user(context: RequestContext, request: Request) -> Response:
    """Changes the password or the superuser flag of a user."""
    user = _user(context, request)
    given = body_object(request, _CHANGED_USER)
    superuser = user.is_superuser if given["is_superuser"] is None else given["is_superuser"]
    if given["password"] is None:
        changed = User(user.user_id, user.salt, user.digest, superuser)
        context.registry.state.users[user.user_id] = changed
    else:
        changed = context.registry.state.add_user(user.user_id, given["password"], is_superuser=superuser)
    return json_response(200, _user_row(changed))


def delete_user(context: RequestContext, request: Request) -> Response:
    """Deletes a user; existing connections stay."""
    del context.registry.state.users[_user(context, request).user_id]
    return no_content()


ROUTES = (
    Route("/api/v5/authentication", {"GET": chain, "POST": add}),
    Route("/api/v5/authentication/:id", {"GET": show, "PUT": change, "DELETE": delete}),
    Route("/api/v5/authentication/:id/users", {"GET": users, "POST": add_user}),
    Route(
        "/api/v5/authentication/:id/users/:user_id",
        {"GET": show_user, "PUT": change_user, "DELETE": delete_user},
    ),
)
