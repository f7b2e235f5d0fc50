"""The packet filter (section `firewall`): backend, default verdicts, and listening sockets that no rule covers."""

import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.system.firewall_ruleset import FilterChain, default_verdict_at, read_iptables, read_nft
from device_agent.collectors.system.interfaces import addresses
from device_agent.collectors.system.sockets import externally_reachable
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

_BOTH: Final = frozenset({"ip", "ip6"})
_ZONE_TARGETS: Final = {"default": "reject", "%%REJECT%%": "reject", "DROP": "drop", "ACCEPT": "accept"}
_UFW_DEFAULTS: Final = {"deny": "drop", "reject": "reject", "allow": "accept"}


def collect(system: System) -> Section:
    """Collects the `firewall` section.

    Raises:
        FactsUnavailableError: not the running system, not root, or the rules cannot be read.
    """
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
    # An installed but inactive manager does not exclude rules that another program loaded.
    fields = next((fields for fields in sections if fields["active"]), sections[-1])
    section = SectionBuilder(**fields)
    _add_kernel_rules(system, section, chains, families)
    return section.build()


def _families(system: System) -> frozenset[str]:
    """Returns the address families in use; IPv6 counts only if an interface other than loopback has such an address."""
    has_ipv6 = any(":" in address and name != "lo" for address, name in addresses(system).items())
    return _BOTH if has_ipv6 else frozenset({"ip"})


def _read(tools: list[str], families: frozenset[str]) -> tuple[list[FilterChain], list[dict[str, Any]]]:
    chains: list[FilterChain] = []
    sections = []
    for tool in tools:
        if tool in _MANAGERS:
            sections.append(_MANAGERS[tool]())
            continue
        tool_chains, rules = _RULES[tool]()
        chains += tool_chains
        sections.append(backend_fields(_BACKENDS[tool], tool_chains, rules, families))
    return chains, sections


def _add_kernel_rules(
    system: System, section: SectionBuilder, chains: list[FilterChain], families: frozenset[str]
) -> None:
    """Adds the fields that follow from the rules in the kernel, whichever program loaded them."""
    if chains or shutil.which("nft") or shutil.which("iptables-save"):
        with section.capture("uncovered"):
            section.set(uncovered=uncovered_sockets(externally_reachable(system), chains, families))
        section.set(
            default_forward=default_verdict_at(chains, "forward", families),
            default_output=default_verdict_at(chains, "output", families),
        )
    else:
        section.gap("uncovered", reason="neither nft nor iptables-save is installed")
    rows = {(chain.table, chain.name, chain.hook, _known_verdict(chain.default_verdict)) for chain in chains}
    section.set(
        chains=[
            {"table": table, "name": name, "hook": hook, "policy": verdict}
            for table, name, hook, verdict in sorted(rows)
        ]
    )


def uncovered_sockets(
    sockets: set[tuple[str, int, str]], chains: list[FilterChain], families: frozenset[str]
) -> list[str]:
    """Returns `tcp/22` for each socket that packets reach past every rule and every closed default."""
    inputs = [chain for chain in chains if chain.hook == "input"]
    uncovered = {
        (protocol, port)
        for protocol, port, address in sockets
        for family in families & _families_reaching(address)
        if not any(family in chain.families and chain.covers(protocol, port) for chain in inputs)
    }
    return [f"{protocol}/{port}" for protocol, port in sorted(uncovered)]


def _families_reaching(address: str) -> frozenset[str]:
    # A socket on `::` also accepts IPv4 unless IPV6_V6ONLY is set, which /proc does not show.
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
        raise FactsUnavailableError("rules are loaded, but no program to read them is installed")
    section = SectionBuilder(**_fields("none", is_active=False, default_input="accept", rules=0))
    section.set(default_forward="accept", default_output="accept")
    with section.capture("uncovered"):
        section.set(uncovered=uncovered_sockets(externally_reachable(system), [], _families(system)))
    return section.build()


def _fields(backend: str, *, is_active: bool, default_input: str, rules: int) -> dict[str, Any]:
    return {"backend": backend, "active": is_active, "default_input": default_input, "rules": rules}


def backend_fields(backend: str, chains: list[FilterChain], rules: int, families: frozenset[str]) -> dict[str, Any]:
    """Returns the fields of a backend; it is active if a filter chain of the input hook filters anything."""
    is_active = any(chain.hook == "input" and chain.is_filtering for chain in chains)
    default = _known_verdict(default_verdict_at(chains, "input", families))
    return _fields(backend, is_active=is_active, default_input=default, rules=rules)


def _known_verdict(verdict: str) -> str:
    return verdict if verdict in {"accept", "drop", "reject"} else "unknown"


def _nft() -> tuple[list[FilterChain], int]:
    return parse_nft_ruleset(run(["nft", "-j", "list", "ruleset"]).stdout)


def parse_nft_ruleset(text: str) -> tuple[list[FilterChain], int]:
    """Returns the filter chains and the number of rules in the output of `nft -j list ruleset`.

    Raises:
        ValueError, KeyError: the text is not such an output.
    """
    ruleset = json.loads(text or '{"nftables": []}')
    if not isinstance(ruleset, dict) or not isinstance(ruleset["nftables"], list):
        raise ValueError("not an nftables ruleset")  # noqa: TRY004 - bad content, not a caller's error
    return read_nft(ruleset["nftables"])


def _iptables() -> tuple[list[FilterChain], int]:
    chains, rules = read_iptables(run(["iptables-save", "-t", "filter"]).stdout, "ip")
    if shutil.which("ip6tables-save"):
        ip6_chains, ip6_rules = read_iptables(run(["ip6tables-save", "-t", "filter"]).stdout, "ip6")
        return chains + ip6_chains, rules + ip6_rules
    return chains, rules


def _ufw() -> dict[str, Any]:
    return parse_ufw(run(["ufw", "status", "verbose"]).stdout)


def parse_ufw(text: str) -> dict[str, Any]:
    """Parses the output of `ufw status verbose`."""
    lines = text.splitlines()
    is_active = "Status: active" in lines
    default = next((line.split()[1] for line in lines if line.startswith("Default: ") and len(line.split()) > 1), "")
    rules = sum(" ALLOW " in line or " DENY " in line or " REJECT " in line or " LIMIT " in line for line in lines)
    return _fields("ufw", is_active=is_active, default_input=_UFW_DEFAULTS.get(default, "unknown"), rules=rules)


def _firewalld() -> dict[str, Any]:
    # Exit status 252 means "not running".
    if run(["firewall-cmd", "--state"], ok_statuses=frozenset({0, 252})).status != 0:
        return _fields("firewalld", is_active=False, default_input="unknown", rules=0)
    zone = run(["firewall-cmd", "--get-default-zone"]).stdout.strip()
    return parse_zone(run(["firewall-cmd", f"--info-zone={zone}"]).stdout)


def parse_zone(text: str) -> dict[str, Any]:
    """Parses the output of `firewall-cmd --info-zone`."""
    fields = {key.strip(): value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    target = " ".join(fields.get("target", []))
    rules = len(fields.get("services", [])) + len(fields.get("ports", []))
    return _fields("firewalld", is_active=True, default_input=_ZONE_TARGETS.get(target, "unknown"), rules=rules)


_MANAGERS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {"firewall-cmd": _firewalld, "ufw": _ufw}
_RULES: Final[Mapping[str, Callable[[], tuple[list[FilterChain], int]]]] = {"nft": _nft, "iptables-save": _iptables}
_BACKENDS: Final = {"nft": "nftables", "iptables-save": "iptables"}
