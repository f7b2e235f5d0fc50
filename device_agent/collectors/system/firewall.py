"""Whether something filters traffic, and what becomes of a packet that no rule speaks of."""

import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.reading import GapRecorder
from device_agent.collectors.system.firewall_ruleset import FilterChain, default_of, read_iptables, read_nft
from device_agent.collectors.system.interfaces import addresses
from device_agent.collectors.system.sockets import exposed
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

_BOTH: Final = frozenset({"ip", "ip6"})
_TARGETS: Final = {"default": "reject", "%%REJECT%%": "reject", "DROP": "drop", "ACCEPT": "accept"}
_UFW: Final = {"deny": "drop", "reject": "reject", "allow": "accept"}


def collect(system: System) -> Section:
    """The `firewall` section; reading rules needs root, so without it the section is unknown."""
    if not system.is_live:
        raise FactsUnavailableError("only the running system has a firewall")
    tools = [tool for tool in ("firewall-cmd", "ufw", "nft", "iptables-save") if shutil.which(tool)]
    if not tools:
        return _without_tools(system)
    if not system.is_root_user:
        raise FactsUnavailableError("needs root")
    families = _families(system)
    try:
        chains, sections = _read(tools, families)
    except (ExecuteError, ValueError, KeyError) as e:
        raise FactsUnavailableError(f"the rules cannot be read: {e}") from e
    # A manager that is installed and off says nothing of what others have loaded.
    section = next((section for section in sections if section["active"]), sections[-1])
    return {**section, **_coverage(system, chains, families)}


def _families(system: System) -> frozenset[str]:
    """Where packets can come from: IPv6 only counts where an interface beside loopback has an address of it."""
    has_6 = any(":" in address and name != "lo" for address, name in addresses(system).items())
    return _BOTH if has_6 else frozenset({"ip"})


def _read(tools: list[str], families: frozenset[str]) -> tuple[list[FilterChain], list[dict[str, Any]]]:
    chains: list[FilterChain] = []
    sections = []
    for tool in tools:
        if tool in _MANAGERS:
            sections.append(_MANAGERS[tool]())
            continue
        met, rules = _RULES[tool]()
        chains += met
        sections.append(_section_of(_BACKENDS[tool], met, rules, families))
    return chains, sections


def _coverage(system: System, chains: list[FilterChain], families: frozenset[str]) -> dict[str, Any]:
    """What the kernel itself was told, whichever program told it."""
    gaps = GapRecorder()
    more: dict[str, Any] = {"uncovered": None}
    if chains or shutil.which("nft") or shutil.which("iptables-save"):
        with gaps.told("uncovered"):
            more["uncovered"] = uncovered(exposed(system), chains, families)
        more["default_forward"] = default_of(chains, "forward", families)
        more["default_output"] = default_of(chains, "output", families)
    else:
        gaps.add("uncovered", "neither nft nor iptables-save is installed")
    listed = {(chain.table, chain.name, chain.hook, _verdict(chain.end)) for chain in chains}
    more["chains"] = [
        {"table": table, "name": name, "hook": hook, "policy": end} for table, name, hook, end in sorted(listed)
    ]
    return {**more, "gaps": gaps.listed()}


def uncovered(sockets: set[tuple[str, int, str]], chains: list[FilterChain], families: frozenset[str]) -> list[str]:
    """`tcp/22` for each socket that some packet reaches without any rule or closed default having a say."""
    inputs = [chain for chain in chains if chain.hook == "input"]
    open_ones = {
        (protocol, port)
        for protocol, port, address in sockets
        for family in families & _reached_by(address)
        if not any(family in chain.families and chain.covers(protocol, port) for chain in inputs)
    }
    return [f"{protocol}/{port}" for protocol, port in sorted(open_ones)]


def _reached_by(address: str) -> frozenset[str]:
    # A socket on `::` takes IPv4 as well, unless it was told not to, which no file of the kernel's says.
    if address == "::":
        return _BOTH
    return frozenset({"ip6"}) if ":" in address and not address.startswith("::ffff:") else frozenset({"ip"})


def _without_tools(system: System) -> Section:
    loaded = system.path("/proc/net/ip_tables_names")
    try:
        is_loaded = loaded.exists() and bool(loaded.read_bytes())
    except PermissionError as e:
        raise FactsUnavailableError("needs root") from e
    if is_loaded:
        raise FactsUnavailableError("rules are loaded, and no program to read them is installed")
    section = _section("none", is_active=False, default_input="accept", rules=0)
    gaps = GapRecorder()
    with gaps.told("uncovered"):
        section["uncovered"] = uncovered(exposed(system), [], _families(system))
    return {**section, "default_forward": "accept", "default_output": "accept", "gaps": gaps.listed()}


def _section(backend: str, *, is_active: bool, default_input: str, rules: int) -> dict[str, Any]:
    return {"state": "ok", "backend": backend, "active": is_active, "default_input": default_input, "rules": rules}


def _section_of(backend: str, chains: list[FilterChain], rules: int, families: frozenset[str]) -> dict[str, Any]:
    is_active = any(chain.hook == "input" and chain.is_filtering for chain in chains)
    default = _verdict(default_of(chains, "input", families))
    return _section(backend, is_active=is_active, default_input=default, rules=rules)


def _verdict(end: str) -> str:
    return end if end in {"accept", "drop", "reject"} else "unknown"


def _nft() -> tuple[list[FilterChain], int]:
    return _nft_chains(run(["nft", "-j", "list", "ruleset"]).out)


def _nft_chains(text: str) -> tuple[list[FilterChain], int]:
    found = json.loads(text or '{"nftables": []}')
    if not isinstance(found, dict) or not isinstance(found["nftables"], list):
        raise ValueError("not a rule set of nftables")  # noqa: TRY004 - bad content, not a caller's mistake
    return read_nft(found["nftables"])


def parse_nft(text: str, families: frozenset[str] = _BOTH) -> dict[str, Any]:
    """Read `nft -j list ruleset`: active when a filter chain is hooked into input and does something.

    Raises:
        ValueError, KeyError: it is not what nft writes.
    """
    return _section_of("nftables", *_nft_chains(text), families)


def _iptables() -> tuple[list[FilterChain], int]:
    chains, rules = read_iptables(run(["iptables-save", "-t", "filter"]).out, "ip")
    if shutil.which("ip6tables-save"):
        more, further = read_iptables(run(["ip6tables-save", "-t", "filter"]).out, "ip6")
        return chains + more, rules + further
    return chains, rules


def parse_iptables(text: str) -> dict[str, Any]:
    """Read `iptables-save -t filter`."""
    return _section_of("iptables", *read_iptables(text, "ip"), frozenset({"ip"}))


def _ufw() -> dict[str, Any]:
    return parse_ufw(run(["ufw", "status", "verbose"]).out)


def parse_ufw(text: str) -> dict[str, Any]:
    """Read `ufw status verbose`."""
    lines = text.splitlines()
    is_active = "Status: active" in lines
    default = next((line.split()[1] for line in lines if line.startswith("Default: ") and len(line.split()) > 1), "")
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


_MANAGERS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {"firewall-cmd": _firewalld, "ufw": _ufw}
_RULES: Final[Mapping[str, Callable[[], tuple[list[FilterChain], int]]]] = {"nft": _nft, "iptables-save": _iptables}
_BACKENDS: Final = {"nft": "nftables", "iptables-save": "iptables"}
