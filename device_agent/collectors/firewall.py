"""Whether something filters traffic, and what becomes of a packet that no rule speaks of."""

import json
import shutil
from typing import Any, Final

from device_agent.collectors.base import CannotTellError, Section
from device_agent.execute import ExecuteError, run
from device_agent.system import System

_TARGETS: Final = {"default": "reject", "%%REJECT%%": "reject", "DROP": "drop", "ACCEPT": "accept"}
_UFW: Final = {"deny": "drop", "reject": "reject", "allow": "accept"}


def collect(system: System) -> Section:
    """The `firewall` section; reading rules needs root, so without it the section is unknown."""
    if not system.is_live:
        raise CannotTellError("only the running system has a firewall")
    tools = [tool for tool in ("firewall-cmd", "ufw", "nft", "iptables-save") if shutil.which(tool)]
    if not tools:
        return _without_tools(system)
    if not system.is_root_user:
        raise CannotTellError("needs root")
    try:
        found = [_READERS[tool]() for tool in tools]
    except (ExecuteError, ValueError, KeyError) as e:
        raise CannotTellError(f"the rules cannot be read: {e}") from e
    # A manager that is installed and off says nothing of what others have loaded.
    return next((section for section in found if section["active"]), found[-1])


def _without_tools(system: System) -> Section:
    loaded = system.path("/proc/net/ip_tables_names")
    try:
        is_loaded = loaded.exists() and bool(loaded.read_bytes())
    except PermissionError as e:
        raise CannotTellError("needs root") from e
    if is_loaded:
        raise CannotTellError("rules are loaded, and no program to read them is installed")
    return _section("none", is_active=False, default_input="accept", rules=0)


def _section(backend: str, *, is_active: bool, default_input: str, rules: int) -> dict[str, Any]:
    return {"state": "ok", "backend": backend, "active": is_active, "default_input": default_input, "rules": rules}


def _nft() -> dict[str, Any]:
    return parse_nft(run(["nft", "-j", "list", "ruleset"]).out)


def parse_nft(text: str) -> dict[str, Any]:
    """Read `nft -j list ruleset`: active when a filter chain is hooked into input and does something.

    Raises:
        ValueError, KeyError: it is not what nft writes.
    """
    objects = json.loads(text or '{"nftables": []}')["nftables"]
    chains = [item["chain"] for item in objects if "chain" in item]
    rules = [item["rule"] for item in objects if "rule" in item]
    inputs = [chain for chain in chains if chain.get("hook") == "input" and chain.get("type") == "filter"]
    ruled = {(rule["family"], rule["table"], rule["chain"]) for rule in rules}
    policies = {chain.get("policy", "accept") for chain in inputs}
    is_active = "drop" in policies or any((c["family"], c["table"], c["name"]) in ruled for c in inputs)
    return _section(
        "nftables", is_active=is_active, default_input="drop" if "drop" in policies else "accept", rules=len(rules)
    )


def _iptables() -> dict[str, Any]:
    return parse_iptables(run(["iptables-save", "-t", "filter"]).out)


def parse_iptables(text: str) -> dict[str, Any]:
    """Read `iptables-save -t filter`."""
    lines = text.splitlines()
    policy = next((line.split()[1] for line in lines if line.startswith(":INPUT ")), "ACCEPT")
    rules = sum(line.startswith("-A ") for line in lines)
    is_active = policy == "DROP" or any(line.startswith("-A INPUT ") for line in lines)
    return _section(
        "iptables", is_active=is_active, default_input="drop" if policy == "DROP" else "accept", rules=rules
    )


def _ufw() -> dict[str, Any]:
    return parse_ufw(run(["ufw", "status", "verbose"]).out)


def parse_ufw(text: str) -> dict[str, Any]:
    """Read `ufw status verbose`."""
    lines = text.splitlines()
    is_active = "Status: active" in lines
    default = next((line.split()[1] for line in lines if line.startswith("Default: ")), "")
    rules = sum(" ALLOW " in line or " DENY " in line or " REJECT " in line or " LIMIT " in line for line in lines)
    return _section("ufw", is_active=is_active, default_input=_UFW.get(default, "unknown"), rules=rules)


def _firewalld() -> dict[str, Any]:
    # Status 252 is its word for "not running".
    if run(["firewall-cmd", "--state"], ok=frozenset({0, 252})).status != 0:
        return _section("firewalld", is_active=False, default_input="unknown", rules=0)
    zone = run(["firewall-cmd", "--get-default-zone"]).out.strip()
    return parse_zone(run(["firewall-cmd", f"--info-zone={zone}"]).out)


def parse_zone(text: str) -> dict[str, Any]:
    """Read `firewall-cmd --info-zone`."""
    fields = {key.strip(): value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    target = " ".join(fields.get("target", []))
    rules = len(fields.get("services", [])) + len(fields.get("ports", []))
    return _section("firewalld", is_active=True, default_input=_TARGETS.get(target, "unknown"), rules=rules)


_READERS: Final = {"firewall-cmd": _firewalld, "ufw": _ufw, "nft": _nft, "iptables-save": _iptables}
