"""`/configs` and `/mqtt/auto_subscribe`: the zone, system topics, subscriptions of every client.

`GET /configs` answers in HOCON text unless the request accepts JSON alone; the JSON has fewer sections.
"""

import re
from typing import Any, Final

from controller.standin.api.check import Field, bad_request, body_objects, number, problem, text
from controller.standin.api.cluster import listeners_section
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response
from controller.standin.zones import InvalidSettingError

MAX_AUTO_SUBSCRIBE: Final = 20  # EMQX: topics of `auto_subscribe`
_PLAIN_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_AUTO_SUBSCRIBE: Final = {
    "topic": Field(text, required=True),
    "qos": Field(number(0, 2), default=0),
    "rh": Field(number(0, 2), default=0),
    "rap": Field(number(0, 1), default=0),
    "nl": Field(number(0, 1), default=0),
}


def _changes(request: Request) -> dict[str, Any]:
    given = request.json()
    if not isinstance(given, dict):
        raise bad_request(problem("root", "bad_value_for_struct", with_value=False))
    return given


def _setting_error(error: InvalidSettingError) -> ApiError:
    return bad_request(problem(error.path, error.reason, error.value, with_value=error.reason != "required_field"))


def zone(context: RequestContext, _request: Request) -> Response:
    """Returns the global zone."""
    return json_response(200, context.registry.state.settings.zone)


def change_zone(context: RequestContext, request: Request) -> Response:
    """Replaces the global zone as a whole, for new connections; an unknown section is an internal error, as in EMQX."""
    settings, given = context.registry.state.settings, _changes(request)
    try:
        changed = settings.put_zone(given)
    except InvalidSettingError as error:
        raise _setting_error(error) from error
    unknown = next((name for name in given if name not in changed), None)
    if unknown is not None:
        raise ApiError(500, "INTERNAL_ERROR", f'error, {{badkey,<<"{unknown}">>}}')
    return json_response(200, changed)


def sys_topics(context: RequestContext, _request: Request) -> Response:
    """Returns the settings of system topics."""
    return json_response(200, context.registry.state.settings.sys_topics)


def change_sys_topics(context: RequestContext, request: Request) -> Response:
    """Replaces the settings of system topics."""
    try:
        return json_response(200, context.registry.state.settings.put_sys_topics(_changes(request)))
    except InvalidSettingError as error:
        raise _setting_error(error) from error


def broker(context: RequestContext, _request: Request) -> Response:
    """Returns the settings of the broker's core that the stand-in has: share groups. From EMQX's source."""
    return json_response(200, {"shared_subscription_group": context.registry.state.settings.share_groups})


def change_broker(context: RequestContext, request: Request) -> Response:
    """Replaces these settings."""
    try:
        context.registry.state.settings.put_share_groups(_changes(request).get("shared_subscription_group", {}))
    except InvalidSettingError as error:
        raise _setting_error(error) from error
    return broker(context, request)


def auto_subscribe(context: RequestContext, _request: Request) -> Response:
    """Lists the subscriptions that every client gets when it connects."""
    return json_response(200, context.registry.state.auto_subscribe)


def change_auto_subscribe(context: RequestContext, request: Request) -> Response:
    """Replaces these subscriptions, for clients that connect from then on."""
    rows = body_objects(request, _AUTO_SUBSCRIBE, MAX_AUTO_SUBSCRIBE)
    context.registry.state.auto_subscribe = rows
    return json_response(200, rows)


def configs(context: RequestContext, request: Request) -> Response:
    """Returns the configuration, or the section that the query's `key` names."""
    state = context.registry.state
    if request.accepts_only("application/json"):
        return json_response(200, {"sys_topics": state.settings.sys_topics})
    sections: dict[str, Any] = {
        "listeners": listeners_section(context),
        "node": _node(context),
        "rule_engine": {"ignore_sys_message": True, **state.release.rule_engine, **state.rule_engine},
        "sys_topics": state.settings.sys_topics,
        "zones": state.settings.named_zones,
        **state.settings.zone,
    }
    key = request.first("key")
    if key is not None and key not in sections:
        raise bad_request(problem("key", "not_a_enum_symbol", key))
    shown = sections if key is None else {key: sections[key]}
    return Response(200, hocon_text(shown).encode(), "text/plain")


def _node(context: RequestContext) -> dict[str, Any]:
    return {
        "cookie": context.registry.state.dashboard.cookie,
        "data_dir": "none/stand-in",
        "db_backend": "mnesia",
        "dist_buffer_size": 8192,
        "global_gc_interval": "disabled",
        "max_ports": 1_048_576,
        "name": context.node.name,
        "role": "core",
    }


def hocon_text(sections: dict[str, Any]) -> str:
    """Returns sections in the form in which EMQX prints them."""
    return "".join(_hocon(name, value, "") for name, value in sections.items())


def _hocon(name: str, value: Any, indent: str) -> str:
    if isinstance(value, dict):
        inner = "".join(_hocon(key, part, indent + "  ") for key, part in value.items())
        return f"{indent}{name} {{\n{inner}{indent}}}\n"
    return f"{indent}{name} = {_hocon_value(value)}\n"


def _hocon_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_hocon_value(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) or _PLAIN_TEXT.fullmatch(str(value)):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


ROUTES = (
    Route("/api/v5/configs", {"GET": configs}),
    Route("/api/v5/configs/broker", {"GET": broker, "PUT": change_broker}),
    Route("/api/v5/configs/global_zone", {"GET": zone, "PUT": change_zone}),
    Route("/api/v5/configs/sys_topics", {"GET": sys_topics, "PUT": change_sys_topics}),
    Route("/api/v5/mqtt/auto_subscribe", {"GET": auto_subscribe, "PUT": change_auto_subscribe}),
)
