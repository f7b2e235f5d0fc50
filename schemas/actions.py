"""What a device can be ordered to do, and the parameters of each: one table for policies, agents and readers.

The agent checks the parameters itself again, and knows more than a table can say: a policy that is well written may
still ask for something that a device refuses, such as to lock root.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_KINDS: Final = {"text": "text", "number": "a whole number", "flag": "true or false", "value": "text or a whole number"}
_WORD: Final = r"^[A-Za-z0-9_-]{0,64}$"


@dataclass(frozen=True, slots=True)
class ActionParam:
    """A parameter: `kind` is text, number, flag or value (text or number); bounds where the kind has them."""

    meaning: str
    kind: str = "text"
    required: bool = False
    words: tuple[str, ...] = ()
    pattern: str = ""
    low: int = 0
    high: int = 0

    def problem(self, value: object) -> str:
        """What is wrong with a value; empty when nothing is."""
        is_number = isinstance(value, int) and not isinstance(value, bool)
        fits = {
            "text": isinstance(value, str),
            "number": is_number,
            "flag": isinstance(value, bool),
            "value": isinstance(value, str | int),
        }[self.kind]
        if not fits:
            return f"has to be {_KINDS[self.kind]}"
        if self.words and value not in self.words:
            return f"is one of {', '.join(self.words)}{_similar(str(value), self.words)}"
        if isinstance(value, str) and self.pattern and re.fullmatch(self.pattern, value) is None:
            return f"is no {self.meaning}"
        if self.kind == "number" and isinstance(value, int) and not self.low <= value <= self.high:
            return f"is from {self.low} to {self.high}"
        return ""

    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        types = {"text": "string", "number": "integer", "flag": "boolean", "value": ["string", "integer", "boolean"]}
        found: dict[str, Any] = {"type": types[self.kind], "description": self.meaning}
        if self.words:
            found["enum"] = list(self.words)
        if self.pattern:
            found["pattern"] = self.pattern
        if self.kind == "number":
            found |= {"minimum": self.low, "maximum": self.high}
        return found


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """An action: `one_of` are parameters of which at least one is needed, `alone` those that bear no other beside."""

    meaning: str
    params: Mapping[str, ActionParam] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """The parameters as JSON Schema."""
        found: dict[str, Any] = {
            "type": "object",
            "description": self.meaning,
            "properties": {name: param.schema() for name, param in self.params.items()},
            "required": [name for name, param in self.params.items() if param.required],
            "additionalProperties": False,
        }
        if self.one_of:
            found["anyOf"] = [{"required": [name]} for name in self.one_of]
        return found


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
_PROTO: Final = ActionParam("a protocol, tcp without it", words=("tcp", "udp"))
_WITHIN: Final = ActionParam("seconds until it is put back unless the broker is reached", "number", low=5, high=600)
_ONE_PORT: Final = {"port": _PORT, "proto": _PROTO, "within": _WITHIN}
# The options of sshd that may be set; which values each takes, the agent knows.
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
    "audit.enable": ActionSpec("starts auditd now and by itself"),
    "firewall.allow": ActionSpec("admits a port", _ONE_PORT),
    "firewall.deny": ActionSpec("refuses a port", _ONE_PORT),
    "firewall.enable": ActionSpec(
        "refuses everything that comes in but the ports named",
        {"allow": ActionParam("list of ports such as 22/tcp 53/udp", pattern=_PORTS), "within": _WITHIN},
    ),
    "integrity.rebaseline": ActionSpec("takes the watched files as they are now for good"),
    "key.restrict": ActionSpec(
        "lets only its owner read a private key",
        {
            "path": ActionParam("absolute path", required=True, pattern=_PATH),
            "keep_group": ActionParam("its group goes on reading", "flag"),
            "own": ActionParam("it belongs to root then", "flag"),
        },
    ),
    "keys.introduce": ActionSpec(
        "trusts another key that signs commands",
        {
            "key": ActionParam("a public key, ed25519: and base64", required=True, pattern=_KEY),
            "retire": ActionParam("name of the key that it takes the place of", pattern=r"^([0-9a-f]{16})?$"),
            "overlap": ActionParam("seconds for which the old one counts", "number", low=MIN_OVERLAP, high=MAX_OVERLAP),
        },
    ),
    "keys.revoke": ActionSpec(
        "never again trusts a key that signs commands",
        {"keyid": ActionParam("name of a key, 16 hex digits", required=True, pattern=r"^[0-9a-f]{16}$")},
    ),
    "logging.persist": ActionSpec("keeps the journal on the disk"),
    "mac.enforce": ActionSpec("has SELinux or AppArmor enforce"),
    "package.upgrade": ActionSpec(
        "upgrades one package, or all with a security update",
        {
            "name": ActionParam("the name of a package", pattern=_PACKAGE),
            "security": ActionParam("all with a security update", "flag"),
        },
        one_of=("name", "security"),
        alone=("name", "security"),
    ),
    "password.policy": ActionSpec(
        "sets limits for new passwords",
        {
            "min_length": ActionParam("shortest password", "number", low=6, high=128),
            "min_classes": ActionParam("kinds of letters", "number", low=1, high=4),
            "max_days": ActionParam("days until it has to be changed", "number", low=1, high=3650),
            "min_days": ActionParam("days until it may be changed", "number", low=0, high=365),
            "warn_days": ActionParam("days of warning", "number", low=0, high=365),
        },
        one_of=("min_length", "min_classes", "max_days", "min_days", "warn_days"),
    ),
    "port.close": ActionSpec("disables the service behind a port, or refuses the port", _ONE_PORT),
    "rescan": ActionSpec("sends a fresh full report"),
    "scan.run": ActionSpec(
        "runs a hardening tool", {"tool": ActionParam("a tool", required=True, words=("lynis", "openscap"))}
    ),
    "service.disable": ActionSpec(
        "stops a service and keeps it from starting by itself",
        {"name": ActionParam("the name of a service", required=True, pattern=_SERVICE)},
    ),
    "source.disable": ActionSpec(
        "switches a package source off",
        {
            "source": ActionParam(
                "address or id of a package source",
                required=True,
                pattern=r"^[A-Za-z0-9][^\s'\"\\]{1,250}$|^/[^\s'\"\\]{1,250}$",
            )
        },
    ),
    "ssh.set": ActionSpec(
        "sets an option of the SSH server",
        {
            "option": ActionParam("an option of sshd_config", required=True, words=SSH_OPTIONS),
            "value": ActionParam("its value", "value", required=True),
        },
    ),
    "update.install": ActionSpec(
        "puts a signed update in place; ordered by rollouts",
        {
            "target": ActionParam("path of a target", required=True),
            "version": ActionParam("version", required=True),
            "sha256": ActionParam("digest", required=True, pattern=r"^[0-9a-f]{64}$"),
            "length": ActionParam("bytes", "number", required=True, high=2**53 - 1),
            "deadline": ActionParam("time until which it has to be confirmed", required=True),
            "ask_user": ActionParam("a person at the device has to agree", "flag"),
            "rollout": ActionParam("id of a rollout", pattern=_WORD),
        },
    ),
    "update.rollback": ActionSpec(
        "goes back to the version before; ordered by rollouts",
        {
            "name": ActionParam("what is updated", required=True),
            "version": ActionParam("version to go back from", required=True),
            "rollout": ActionParam("id of a rollout", pattern=_WORD),
        },
    ),
}


def unknown_action(name: str) -> str:
    """What is wrong with the name of an action; empty when there is such an action."""
    return "" if name in ACTIONS else f"there is no action {name!r}{_similar(name, ACTIONS)}"


def problems_of(name: str, params: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """What is wrong with the parameters of a known action: the parameter (empty: of all of them), and what it is."""
    action = ACTIONS[name]
    found: list[tuple[str, str]] = []
    for given, value in params.items():
        param = action.params.get(given)
        if param is None:
            found.append((given, f"{name} has no parameter {given!r}{_similar(given, action.params)}"))
        elif problem := param.problem(value):
            found.append((given, f"{given} {problem}"))
    missing = [given for given, param in action.params.items() if param.required and given not in params]
    found += [("", f"{name} needs the parameter {given!r}") for given in missing]
    if action.one_of and not any(given in params for given in action.one_of):
        found.append(("", f"{name} needs at least one of {', '.join(action.one_of)}"))
    if len(params) > 1 and (alone := [given for given in action.alone if given in params]):
        found.append(("", f"{alone[0]!r} of {name} bears no other parameter beside it"))
    return tuple(found)


def _similar(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f": did you mean {near[0]!r}?" if near else ""
