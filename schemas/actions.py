"""The actions of commands with their parameters: one table for policies, the agent and the exported schema.

The agent validates parameters again with further rules, so that a valid policy may still request something that a
device rejects, such as locking root.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_KINDS: Final = {"text": "text", "number": "a whole number", "flag": "true or false", "value": "text or a whole number"}
_ROLLOUT_ID: Final = r"^[A-Za-z0-9_-]{0,64}$"


@dataclass(frozen=True, slots=True)
class ActionParam:
    """A parameter; `kind` is text, number, flag or value (text or number), `low` and `high` bound numbers."""

    description: str
    kind: str = "text"
    required: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""
    low: int = 0
    high: int = 0

    def problem(self, value: object) -> str:
        """Returns why a value is invalid; empty for a valid one."""
        is_number = isinstance(value, int) and not isinstance(value, bool)
        fits = {
            "text": isinstance(value, str),
            "number": is_number,
            "flag": isinstance(value, bool),
            "value": isinstance(value, str | int),
        }[self.kind]
        if not fits:
            return f"must be {_KINDS[self.kind]}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}{_suggestion(str(value), self.choices)}"
        if isinstance(value, str) and self.pattern and re.fullmatch(self.pattern, value) is None:
            return f"must be {self.description}"
        if self.kind == "number" and isinstance(value, int) and not self.low <= value <= self.high:
            return f"must be from {self.low} to {self.high}"
        return ""

    def schema(self) -> dict[str, Any]:
        """Returns the parameter as JSON Schema."""
        types = {"text": "string", "number": "integer", "flag": "boolean", "value": ["string", "integer", "boolean"]}
        schema: dict[str, Any] = {"type": types[self.kind], "description": self.description}
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.pattern:
            schema["pattern"] = self.pattern
        if self.kind == "number":
            schema |= {"minimum": self.low, "maximum": self.high}
        return schema


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """An action; at least one of the parameters `any_of` is required, one of `exclusive` excludes all others."""

    description: str
    params: Mapping[str, ActionParam] = field(default_factory=dict)
    any_of: tuple[str, ...] = ()
    exclusive: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Returns the parameters as JSON Schema."""
        schema: dict[str, Any] = {
            "type": "object",
            "description": self.description,
            "properties": {name: param.schema() for name, param in self.params.items()},
            "required": [name for name, param in self.params.items() if param.required],
            "additionalProperties": False,
        }
        if self.any_of:
            schema["anyOf"] = [{"required": [name]} for name in self.any_of]
        return schema


KEYS_INTRODUCE: Final = "keys.introduce"
KEYS_REVOKE: Final = "keys.revoke"
MIN_OVERLAP: Final = 60  # seconds
MAX_OVERLAP: Final = 366 * 86_400  # seconds
_KEY: Final = r"^ed25519:[A-Za-z0-9+/]{43}=$"
_SERVICE: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,127}$"
_PACKAGE: Final = r"^[a-z0-9][a-z0-9+._-]{0,127}$"
_PATH: Final = r"^/[A-Za-z0-9_+.,@:/ -]{1,240}$"
_PORTS: Final = r"^(\d{1,5}/(tcp|udp)( \d{1,5}/(tcp|udp)){0,30})?$"
_PORT: Final = ActionParam("a port", "number", required=True, low=1, high=65535)
_PROTO: Final = ActionParam("a protocol, tcp by default", choices=("tcp", "udp"))
_WITHIN: Final = ActionParam("seconds until it is undone unless the broker is reached", "number", low=5, high=600)
_ONE_PORT: Final = {"port": _PORT, "proto": _PROTO, "within": _WITHIN}
# The options of sshd that may be set; the agent validates the value of each.
SSH_OPTIONS: Final = (
    *("PasswordAuthentication", "KbdInteractiveAuthentication", "PermitEmptyPasswords", "PermitRootLogin"),
    *("MaxAuthTries", "MaxSessions", "LoginGraceTime", "ClientAliveInterval", "ClientAliveCountMax", "X11Forwarding"),
    *("AllowTcpForwarding", "AllowAgentForwarding", "PermitUserEnvironment", "IgnoreRhosts", "HostbasedAuthentication"),
    *("LogLevel", "UsePAM"),
)
ACTIONS: Final[Mapping[str, ActionSpec]] = {
    "account.lock": ActionSpec(
        "locks an account",
        {"name": ActionParam("the name of an account", required=True, pattern=r"^[a-z_][a-z0-9_.-]{0,31}$")},
    ),
    "audit.enable": ActionSpec("starts auditd now and at boot"),
    "firewall.allow": ActionSpec("allows a port", _ONE_PORT),
    "firewall.deny": ActionSpec("denies a port", _ONE_PORT),
    "firewall.enable": ActionSpec(
        "denies all incoming connections except to the given ports",
        {"allow": ActionParam("a list of ports such as 22/tcp 53/udp", pattern=_PORTS), "within": _WITHIN},
    ),
    "integrity.rebaseline": ActionSpec("takes the current state of the watched files as the new baseline"),
    "key.restrict": ActionSpec(
        "makes a private key readable by its owner only",
        {
            "path": ActionParam("an absolute path", required=True, pattern=_PATH),
            "keep_group": ActionParam("keeps the key readable by its group", "flag"),
            "own": ActionParam("changes the owner to root", "flag"),
        },
    ),
    "keys.introduce": ActionSpec(
        "trusts a further command signing key",
        {
            "key": ActionParam("a public key, ed25519: and base64", required=True, pattern=_KEY),
            "retire": ActionParam("the id of the key to replace", pattern=r"^([0-9a-f]{16})?$"),
            "overlap": ActionParam(
                "seconds for which the replaced key stays trusted", "number", low=MIN_OVERLAP, high=MAX_OVERLAP
            ),
        },
    ),
    "keys.revoke": ActionSpec(
        "permanently distrusts a command signing key",
        {"keyid": ActionParam("the id of a key, 16 hex digits", required=True, pattern=r"^[0-9a-f]{16}$")},
    ),
    "logging.persist": ActionSpec("stores the journal on disk"),
    "mac.enforce": ActionSpec("sets SELinux or AppArmor to enforcing"),
    "package.upgrade": ActionSpec(
        "upgrades one package, or all with a security update",
        {
            "name": ActionParam("the name of a package", pattern=_PACKAGE),
            "security": ActionParam("all with a security update", "flag"),
        },
        any_of=("name", "security"),
        exclusive=("name", "security"),
    ),
    "password.policy": ActionSpec(
        "sets limits for new passwords",
        {
            "min_length": ActionParam("minimum length", "number", low=6, high=128),
            "min_classes": ActionParam("minimum number of character classes", "number", low=1, high=4),
            "max_days": ActionParam("days until a password must be changed", "number", low=1, high=3650),
            "min_days": ActionParam("days until a password may be changed", "number", low=0, high=365),
            "warn_days": ActionParam("days of warning before a password expires", "number", low=0, high=365),
        },
        any_of=("min_length", "min_classes", "max_days", "min_days", "warn_days"),
    ),
    "port.close": ActionSpec("disables the service that listens on a port, or denies the port", _ONE_PORT),
    "rescan": ActionSpec("sends a new full report"),
    "scan.run": ActionSpec(
        "runs a hardening tool", {"tool": ActionParam("a tool", required=True, choices=("lynis", "openscap"))}
    ),
    "service.disable": ActionSpec(
        "stops a service and disables its start at boot",
        {"name": ActionParam("the name of a service", required=True, pattern=_SERVICE)},
    ),
    "source.disable": ActionSpec(
        "disables a package source",
        {
            "source": ActionParam(
                "the URL or id of a package source",
                required=True,
                pattern=r"^[A-Za-z0-9][^\s'\"\\]{1,250}$|^/[^\s'\"\\]{1,250}$",
            )
        },
    ),
    "ssh.set": ActionSpec(
        "sets an option of the SSH server",
        {
            "option": ActionParam("an option of sshd_config", required=True, choices=SSH_OPTIONS),
            "value": ActionParam("the option's value", "value", required=True),
        },
    ),
    "update.install": ActionSpec(
        "installs a signed update; sent by rollouts",
        {
            "target": ActionParam("the path of a target", required=True),
            "version": ActionParam("a version", required=True),
            "sha256": ActionParam("a SHA-256 digest", required=True, pattern=r"^[0-9a-f]{64}$"),
            "length": ActionParam("bytes", "number", required=True, high=2**53 - 1),
            "deadline": ActionParam("the time by which the update must be confirmed", required=True),
            "ask_user": ActionParam("a person at the device must agree", "flag"),
            "rollout": ActionParam("the id of a rollout", pattern=_ROLLOUT_ID),
        },
    ),
    "update.rollback": ActionSpec(
        "returns to the previous version; sent by rollouts",
        {
            "name": ActionParam("the name of a target", required=True),
            "version": ActionParam("the version to roll back", required=True),
            "rollout": ActionParam("the id of a rollout", pattern=_ROLLOUT_ID),
        },
    ),
}


def unknown_action_problem(name: str) -> str:
    """Returns an error text with the most similar action; empty for a known action."""
    return "" if name in ACTIONS else f"there is no action {name!r}{_suggestion(name, ACTIONS)}"


def param_problems(action_name: str, params: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Returns the errors in the parameters of a known action: parameter (empty for all together) and text."""
    action = ACTIONS[action_name]
    problems: list[tuple[str, str]] = []
    for name, value in params.items():
        param = action.params.get(name)
        if param is None:
            problems.append((name, f"{action_name} has no parameter {name!r}{_suggestion(name, action.params)}"))
        elif problem := param.problem(value):
            problems.append((name, f"{name} {problem}"))
    missing = [name for name, param in action.params.items() if param.required and name not in params]
    problems += [("", f"{action_name} needs the parameter {name!r}") for name in missing]
    if action.any_of and not any(name in params for name in action.any_of):
        problems.append(("", f"{action_name} needs at least one of {', '.join(action.any_of)}"))
    if len(params) > 1 and (exclusive := [name for name in action.exclusive if name in params]):
        problems.append(("", f"{exclusive[0]!r} of {action_name} excludes all other parameters"))
    return tuple(problems)


def _suggestion(name: str, known: Iterable[str]) -> str:
    similar = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {similar[0]!r}?" if similar else ""
