"""In what the imitated releases of EMQX differ."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from controller.standin.zones import ZONE_DEFAULTS

SecurityProfile = Literal["legacy", "hardened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmqxRelease:
    """One release that the stand-in can answer as; the mappings are keys that it adds to answers."""

    version: str
    no_match: Literal["allow", "deny"]  # default of `authorization.no_match`
    # Whether a client id `+` becomes the wildcard where a rule has `${clientid}`.
    plus_is_wildcard: bool
    # Whether an API key has scopes, and a configuration a security profile.
    has_scopes: bool
    zone_defaults: Mapping[str, dict[str, Any]]
    no_credentials: str  # message of the 401
    expired_ban_as_list: bool  # the message as an Erlang list of characters
    stats: tuple[str, ...] = ()
    client: Mapping[str, Any] = field(default_factory=dict)
    cluster: Mapping[str, Any] = field(default_factory=dict)
    authenticator: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    new_user: Mapping[str, Any] = field(default_factory=dict)
    authorization: Mapping[str, Any] = field(default_factory=dict)
    rule_engine: Mapping[str, Any] = field(default_factory=dict)
    presence_has_properties: bool = False
    caches_subscribe: bool = True  # 6.3 lists no decision about a subscription in a client's cache


_6_3_ZONE: Final[dict[str, dict[str, Any]]] = {
    **ZONE_DEFAULTS,
    "mqtt": {
        **ZONE_DEFAULTS["mqtt"],
        "strict_mode": True,
        "max_session_expiry_interval": "infinity",
        "namespace_as_mountpoint": False,
        "subscription_message_filter": "disable",
    },
    "durable_sessions": {
        "batch_size": 100, "checkpoint_interval": "15s", "enable": False, "message_retention_period": "1d",
        "shared_subs": {
            "checkpoint_interval": "15s", "realloc_interval": "100ms", "revocation_timeout": "10s",
        },
    },
}  # fmt: skip
EMQX_5_8: Final = EmqxRelease(
    version="5.8.9",
    no_match="allow",
    plus_is_wildcard=True,
    has_scopes=False,
    zone_defaults=ZONE_DEFAULTS,
    no_credentials="Support authorization: basic/bearer ",
    expired_ban_as_list=True,
)
EMQX_6_3: Final = EmqxRelease(
    version="6.3.0-beta.2",
    no_match="deny",
    plus_is_wildcard=False,
    has_scopes=True,
    zone_defaults=_6_3_ZONE,
    no_credentials="Missing authorization header. Use Basic auth with API key/secret, or Bearer token from POST "
    "/api/v5/login. API keys can be bootstrapped from config (api_key.bootstrap_file) or created via POST "
    "/api/v5/api_key",
    expired_ban_as_list=False,
    stats=("routes",),
    client={"impl": "emqx_session_mem"},
    cluster={"description": ""},
    authenticator={"precondition": ""},
    source={"precondition": ""},
    new_user={"namespace": None},
    authorization={"ignore_backend_failures": False, "include_mountpoint": False},
    rule_engine={"limit_selects_in_namespace": True},
    presence_has_properties=True,
    caches_subscribe=False,
)
RELEASES: Final[dict[str, EmqxRelease]] = {"5.8": EMQX_5_8, "6.3": EMQX_6_3}
