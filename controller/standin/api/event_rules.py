"""`/rules`: rules over events. The only action is `republish`; the format of PUT is from EMQX's documentation."""

from datetime import UTC, datetime
from typing import Any, Final

from controller.standin.api.check import (
    Field,
    FieldError,
    bad_request,
    body_object,
    boolean,
    number,
    one_of,
    page_of,
    problem,
    struct,
    text,
)
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response, no_content
from controller.standin.event_rules import EventRule, Republish, UnsupportedSqlError, parse_select

MAX_RULES: Final = 100
_COUNTERS: Final = (
    *("actions.discarded", "actions.failed", "actions.failed.out_of_service", "actions.failed.unknown"),
    *("actions.success", "actions.total", "failed", "failed.exception", "failed.no_result"),
    *("matched", "matched.rate", "matched.rate.last5m", "matched.rate.max", "passed"),
)


def _mapping(path: str, value: Any) -> dict[str, Any]:
    if value not in ("", {}):
        raise FieldError(problem(path, "the stand-in republishes without properties", value))
    return {}


_ARGS: Final = {
    "topic": Field(text, required=True),
    "payload": Field(text, default="${.}"),
    "qos": Field(number(0, 2), default=0),
    "retain": Field(boolean, default=False),
    "user_properties": Field(_mapping, default={}),
    "mqtt_properties": Field(_mapping, default={}),
    "direct_dispatch": Field(boolean, default=False),
}


def _args(path: str, value: Any) -> Republish:
    given, wrong = struct(path, value, _ARGS)
    if wrong:
        raise FieldError(wrong[0])
    return Republish(given["topic"], given["payload"], given["qos"], given["retain"])


_ACTION: Final = {
    "function": Field(one_of("republish"), required=True),
    "args": Field(_args, required=True),
}


def _actions(path: str, value: Any) -> tuple[Republish, ...]:
    if not isinstance(value, list):
        raise FieldError(problem(path, "bad_array_value", with_value=False))
    actions = []
    for index, item in enumerate(value, 1):
        given, wrong = struct(f"{path}.{index}", item, _ACTION)
        if wrong:
            raise FieldError(wrong[0])
        actions.append(given["args"])
    return tuple(actions)


_BODY: Final = {
    "id": Field(text),
    "name": Field(text, default=""),
    "sql": Field(text, required=True),
    "actions": Field(_actions, default=()),
    "enable": Field(boolean, default=True),
    "description": Field(text, default=""),
}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _shown_action(action: Republish) -> dict[str, Any]:
    args = {
        "direct_dispatch": False,
        "mqtt_properties": {},
        "payload": action.payload,
        "qos": action.qos,
        "retain": action.retain,
        "topic": action.topic,
        "user_properties": "",
    }
    return {"function": "republish", "args": args}


def _row(rule: EventRule) -> dict[str, Any]:
    return {
        "actions": [_shown_action(action) for action in rule.actions],
        "created_at": _time(rule.created_at),
        "description": rule.description,
        "enable": rule.enable,
        "from": list(rule.selection.events),
        "id": rule.id,
        "last_modified_at": _time(rule.modified_at),
        "name": rule.name,
        "sql": rule.sql,
    }


def _rule(context: RequestContext, request: Request) -> EventRule:
    rule = context.registry.state.event_rules.get(request.bindings["id"])
    if rule is None:
        raise ApiError(404, "NOT_FOUND", "Rule Id Not Found")
    return rule


def _made(context: RequestContext, given: dict[str, Any], rule_id: str, created_at: float | None = None) -> EventRule:
    now = context.registry.state.now()
    try:
        selection = parse_select(given["sql"])
    except UnsupportedSqlError as error:
        raise bad_request(str(error)) from error
    return EventRule(
        rule_id,
        given["name"],
        given["sql"],
        selection,
        given["actions"],
        given["enable"],
        given["description"],
        now if created_at is None else created_at,
        now,
    )


def listing(context: RequestContext, request: Request) -> Response:
    """Lists the rules by page."""
    page, rules = page_of(request), list(context.registry.state.event_rules.values())
    return json_response(200, {"data": [_row(rule) for rule in page.slice(rules)], "meta": page.meta(len(rules))})


def create(context: RequestContext, request: Request) -> Response:
    """Makes a rule, with the id of the body or a random one."""
    state, given = context.registry.state, body_object(request, _BODY)
    rule_id = given["id"] or state.randbytes(4).hex()
    if rule_id in state.event_rules:
        raise ApiError(400, "BAD_REQUEST", "rule id already exists")
    if len(state.event_rules) >= MAX_RULES:
        raise bad_request(f"the stand-in has at most {MAX_RULES} rules")
    state.event_rules[rule_id] = _made(context, given, rule_id)
    return json_response(201, _row(state.event_rules[rule_id]))


def read(context: RequestContext, request: Request) -> Response:
    """Returns a rule."""
    return json_response(200, _row(_rule(context, request)))


def replace(context: RequestContext, request: Request) -> Response:
    """Replaces a rule."""
    old, given = _rule(context, request), body_object(request, _BODY)
    rule = context.registry.state.event_rules[old.id] = _made(context, given, old.id, old.created_at)
    return json_response(200, _row(rule))


def delete(context: RequestContext, request: Request) -> Response:
    """Deletes a rule."""
    del context.registry.state.event_rules[_rule(context, request).id]
    return no_content()


def metrics(context: RequestContext, request: Request) -> Response:
    """Returns how often a rule matched, in all and by node."""
    rule = _rule(context, request)
    nodes = [{"node": name, "metrics": _metrics(rule, [name])} for name in context.registry.state.running_nodes()]
    return json_response(200, {"id": rule.id, "metrics": _metrics(rule, list(rule.matched)), "node_metrics": nodes})


def _metrics(rule: EventRule, nodes: list[str]) -> dict[str, float]:
    passed = sum(rule.passed.get(node, 0) for node in nodes)
    matched = sum(rule.matched.get(node, 0) for node in nodes)
    published = passed * len(rule.actions)
    counted = {
        "matched": matched,
        "passed": passed,
        "failed": matched - passed,
        "failed.no_result": matched - passed,
        "actions.total": published,
        "actions.success": published,
    }
    return {name: counted.get(name, 0.0 if "rate" in name else 0) for name in _COUNTERS}


ROUTES = (
    Route("/api/v5/rules", {"GET": listing, "POST": create}),
    Route("/api/v5/rules/:id", {"GET": read, "PUT": replace, "DELETE": delete}),
    Route("/api/v5/rules/:id/metrics", {"GET": metrics}),
)
