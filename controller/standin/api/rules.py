"""`/authorization`: settings, cache, and the built-in database's rules for clients, users and all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from controller.standin.api.check import (
    Field,
    FieldError,
    bad_request,
    body_object,
    body_objects,
    one_of,
    page_of,
    problem,
    struct,
    text,
)
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response, no_content
from controller.standin.authz import AuthzRule, AuthzRuleStore, Verdict
from controller.standin.options import MAX_PAGE_ROWS, MAX_RULE_OWNERS, MAX_RULES_PER_OWNER
from controller.standin.zones import InvalidSettingError

_RULES = "/api/v5/authorization/sources/built_in_database/rules"
_SOURCE = "built_in_database"


def _qos(path: str, value: Any) -> tuple[int, ...]:
    levels = value if isinstance(value, list) else [value]
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 2 for v in levels):
        raise FieldError(problem(path, "not_a_enum_symbol", value))
    return tuple(levels)


def _retain(path: str, value: Any) -> bool | Literal["all"]:
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    if value == "all":
        return "all"
    raise FieldError(problem(path, "matched_no_union_member", value))


_RULE = {
    "topic": Field(text, required=True),
    "permission": Field(one_of("allow", "deny"), required=True),
    "action": Field(one_of("publish", "subscribe", "all"), required=True),
    "qos": Field(_qos, default=(0, 1, 2)),
    "retain": Field(_retain, default="all"),
}


def _rules(path: str, value: Any) -> tuple[AuthzRule, ...]:
    if not isinstance(value, list):
        raise FieldError(problem(path, "bad_array_value", value))
    rules: list[AuthzRule] = []
    for index, item in enumerate(value, 1):
        given, wrong = struct(f"{path}.{index}", item, _RULE)
        if wrong:
            raise FieldError(wrong[0])
        rules.append(
            AuthzRule(Verdict(given["permission"]), given["action"], given["topic"], given["qos"], given["retain"])
        )
    return tuple(rules)


def _rule_row(rule: AuthzRule) -> dict[str, Any]:
    return {
        "action": rule.action,
        "permission": rule.permission.value,
        "qos": list(rule.qos),
        "retain": rule.retain,
        "topic": rule.topic,
    }


def _source_present(context: RequestContext) -> None:
    if context.registry.state.authz_source is None:
        raise ApiError(404, "NOT_FOUND", f"Not found: {_SOURCE}")


@dataclass(frozen=True, slots=True)
class _RuleOwnerHandlers:
    """The handlers for rules of clients or of users."""

    key: Literal["clientid", "username"]
    title: str
    absent: str
    table: Callable[[AuthzRuleStore], dict[str, tuple[AuthzRule, ...]]]

    def fields(self) -> dict[str, Field]:
        return {self.key: Field(text, required=True), "rules": Field(_rules, required=True)}

    def row(self, owner: str, rules: tuple[AuthzRule, ...]) -> dict[str, Any]:
        return {self.key: owner, "rules": [_rule_row(rule) for rule in rules]}

    def listing(self, context: RequestContext, request: Request) -> Response:
        _source_present(context)
        page = page_of(request)
        like = request.first(f"like_{self.key}")
        table = self.table(context.registry.state.rules)
        hidden = context.node.hidden
        owned = list(table.items())
        if like is not None or hidden:
            owned = [(o, r) for o, r in owned if (like is None or like in o) and (self.key, o) not in hidden]
        rows = [self.row(o, r) for o, r in page.slice(owned)]
        return json_response(200, {"data": rows, "meta": page.meta(len(owned), counted=like is None)})

    def create(self, context: RequestContext, request: Request) -> Response:
        _source_present(context)
        table = self.table(context.registry.state.rules)
        given = body_objects(request, self.fields(), MAX_PAGE_ROWS)
        for item in given:
            owner = item[self.key]
            if owner in table:
                raise ApiError(409, "ALREADY_EXISTS", f"{self.title} '{owner}' already exist")
            if len(item["rules"]) > MAX_RULES_PER_OWNER:
                raise bad_request(f"The rules length of {self.title} '{owner}' exceeds the maximum limit.")
        _check_capacity(table, len(given))
        for item in given:
            table[item[self.key]] = item["rules"]
        return no_content()

    def show(self, context: RequestContext, request: Request) -> Response:
        _source_present(context)
        owner = request.bindings[self.key]
        rules = self.table(context.registry.state.rules).get(owner)
        if rules is None or (self.key, owner) in context.node.hidden:
            raise ApiError(404, "NOT_FOUND", "Not Found")
        return json_response(200, self.row(owner, rules))

    def replace(self, context: RequestContext, request: Request) -> Response:
        _source_present(context)
        given = body_object(request, self.fields())
        owner = request.bindings[self.key]
        if given[self.key] != owner:
            raise ApiError(500, "INTERNAL_ERROR", f"error, function_clause, {self.key} in path and body differ")
        if len(given["rules"]) > MAX_RULES_PER_OWNER:
            raise bad_request("The rules length exceeds the maximum limit.")
        table = self.table(context.registry.state.rules)
        context.node.hidden.discard((self.key, owner))
        if owner not in table:
            _check_capacity(table, 1)
        table[owner] = given["rules"]
        return no_content()

    def delete(self, context: RequestContext, request: Request) -> Response:
        _source_present(context)
        table = self.table(context.registry.state.rules)
        if table.pop(request.bindings[self.key], None) is None:
            raise ApiError(404, "NOT_FOUND", self.absent)
        return no_content()


def _check_capacity(table: dict[str, tuple[AuthzRule, ...]], more: int) -> None:
    if len(table) + more > MAX_RULE_OWNERS:
        raise ApiError(500, "INTERNAL_ERROR", f"the stand-in holds rules of {MAX_RULE_OWNERS} owners at most")


_CLIENTS = _RuleOwnerHandlers("clientid", "Client", "ClientID Not Found", lambda book: book.clients)
_USERS = _RuleOwnerHandlers("username", "User", "Username Not Found", lambda book: book.users)


def show_all(context: RequestContext, _request: Request) -> Response:
    """Returns the rules for all clients."""
    _source_present(context)
    return json_response(200, {"rules": [_rule_row(rule) for rule in context.registry.state.rules.everybody]})


def set_all(context: RequestContext, request: Request) -> Response:
    """Replaces the rules for all clients."""
    _source_present(context)
    rules = body_object(request, {"rules": Field(_rules, required=True)})["rules"]
    if len(rules) > MAX_RULES_PER_OWNER:
        raise bad_request("The length of rules exceeds the maximum limit.")
    context.registry.state.rules.everybody = rules
    return no_content()


def delete_all(context: RequestContext, _request: Request) -> Response:
    """Removes the rules for all clients."""
    _source_present(context)
    context.registry.state.rules.everybody = ()
    return no_content()


def purge(context: RequestContext, _request: Request) -> Response:
    """Removes every rule; only while the source is disabled."""
    state = context.registry.state
    _source_present(context)
    if state.authz_source:
        raise bad_request(f"'{_SOURCE}' type source must be disabled before purge.")
    state.rules = AuthzRuleStore()
    return no_content()


def settings(context: RequestContext, _request: Request) -> Response:
    """Returns the authorization settings."""
    return json_response(200, context.registry.state.settings.authz)


def change_settings(context: RequestContext, request: Request) -> Response:
    """Replaces the authorization settings."""
    given = request.json()
    if not isinstance(given, dict):
        raise bad_request(problem("root", "bad_value_for_struct", with_value=False))
    try:
        return json_response(200, context.registry.state.settings.put_authz(given))
    except InvalidSettingError as error:
        raise bad_request(problem(error.path, error.reason, error.value)) from error


def clear_caches(context: RequestContext, _request: Request) -> Response:
    """Clears the authorization caches of all clients."""
    for client in context.registry.state.clients.values():
        client.cache.clear()
    return no_content()


def _owner_routes(kind: str, owners: _RuleOwnerHandlers) -> tuple[Route, ...]:
    return (
        Route(f"{_RULES}/{kind}", {"GET": owners.listing, "POST": owners.create}),
        Route(
            f"{_RULES}/{kind}/:{owners.key}",
            {"GET": owners.show, "PUT": owners.replace, "DELETE": owners.delete},
        ),
    )


ROUTES = (
    *_owner_routes("clients", _CLIENTS),
    *_owner_routes("users", _USERS),
    Route(f"{_RULES}/all", {"GET": show_all, "POST": set_all, "DELETE": delete_all}),
    Route(_RULES, {"DELETE": purge}),
    Route("/api/v5/authorization/settings", {"GET": settings, "PUT": change_settings}),
    Route("/api/v5/authorization/cache", {"DELETE": clear_caches}),
)
