"""Reads the output of `iptables-save` and `ip6tables-save`. [iptables(8), iptables-extensions(8)]"""

import re
import shlex
from dataclasses import dataclass, field, replace
from typing import Final

from device_agent.collectors.system.firewall_iptables_matches import (
    CHOSEN_OPTIONS,
    DETAILS,
    READERS,
    MatchContext,
    flags_chance,
)
from device_agent.collectors.system.firewall_ruleset import (
    ALWAYS,
    CHOSEN,
    LISTED_LATER,
    NEVER,
    UNCLEAR,
    BaseChain,
    Condition,
    Rule,
    Ruleset,
)
from device_agent.host.reading import ReadingGap

_HOOKS: Final = {
    "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "PREROUTING": "prerouting",
}  # fmt: skip
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_VERDICTS: Final = frozenset({"accept", "drop", "reject", "return"})
# Targets after which the next rule follows.
_PASSING: Final = frozenset(
    {
        "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "SET", "CLASSIFY", "DSCP", "TOS", "TTL",
        "HL", "CHECKSUM", "TRACE", "AUDIT", "SECMARK", "CONNSECMARK", "TEE", "IDLETIMER", "LED", "RATEEST", "TPROXY",
    }
)  # fmt: skip
_TRANSLATIONS: Final = frozenset({"DNAT", "REDIRECT", "SNAT", "MASQUERADE", "NETMAP"})
_REDIRECTION: Final = re.compile(r" (?:-j|--jump) (?:DNAT|REDIRECT|NETMAP|TPROXY)(?: |$)")
_FEW_PORTS: Final = re.compile(r"(?<!! )--dports? [\d,]+(?: |$)")
_READDRESSING: Final = frozenset({"DNAT", "NETMAP"})
_SPECIAL: Final = frozenset({"--tcp-flags", "--update", "--rcheck", "--remove", "--invert", "--match-set"})
_MAX_LINES: Final = 100_000


def read_iptables(text: str, family: str) -> Ruleset:
    """Reads the output of `iptables-save` (family `ip`) or `ip6tables-save` (`ip6`); what it does not know is a gap."""
    ruleset = Ruleset()
    lines = text.splitlines()
    if len(lines) > _MAX_LINES:
        ruleset.gaps.append(ReadingGap("too many rules", f"{family} tables"))
    context = _context_of(text, family)
    ruleset.redirects = any(_redirects(line) for line in text.splitlines())
    table, is_open = f"{family} filter", False
    for line in lines[:_MAX_LINES]:
        if line.startswith("*"):
            table, is_open = f"{family} {line[1:].strip()}", True
        elif line.startswith(":"):
            _add_chain(ruleset, family, table, line[1:].split())
        elif line.startswith("# Table `"):
            ruleset.missing.append(ReadingGap("a table that iptables does not show", line[8:60]))
        elif line.startswith(("-A ", "[")):
            _add_rule(ruleset, table, line, context)
        elif line.strip() == "COMMIT":
            is_open = False
        elif line.strip() and not line.startswith("#"):
            ruleset.gaps.append(ReadingGap("a line of an unknown form", table))
            _not_certain(ruleset, table)
    if is_open:
        ruleset.gaps.append(ReadingGap("the listing ends before the table does", table))
        _not_certain(ruleset, table)
    _resolve_targets(ruleset)
    return ruleset


def _redirects(line: str) -> bool:
    return bool(_REDIRECTION.search(line))


def _context_of(text: str, family: str) -> MatchContext:
    targets = set(re.findall(r"(?:-j|--jump) (\S+)", text))
    return MatchContext(
        family,
        untracks="NOTRACK" in targets or "--notrack" in text,
        marks=bool(targets & {"MARK", "CONNMARK"}),
        redirects_widely=any(not _FEW_PORTS.search(line) for line in text.splitlines() if _redirects(line)),
    )


def _add_chain(ruleset: Ruleset, family: str, table: str, words: list[str]) -> None:
    if not words:
        return
    ruleset.rules.setdefault((table, words[0]), [])
    hook, name = _HOOKS.get(words[0]), table.partition(" ")[2]
    if hook and len(words) > 1 and words[1] != "-":
        policy = words[1].lower()
        ruleset.base_chains.append(
            BaseChain(
                frozenset({family}), table, words[0], hook, _PRIORITIES.get(name, 0),
                policy if policy in {"accept", "drop"} else "unknown", kind="nat" if name == "nat" else "filter",
            )
        )  # fmt: skip


def _not_certain(ruleset: Ruleset, table: str) -> None:
    """Lets a line that was not understood do anything, at the end of every chain of its table."""
    for (name, _), rules in ruleset.rules.items():
        if name == table:
            rules.append(Rule((Condition("chance", chance=UNCLEAR),), "unknown", source=table))


def _add_rule(ruleset: Ruleset, table: str, line: str, context: MatchContext) -> None:
    ruleset.count += 1
    try:
        words = shlex.split(line.partition("] ")[2] if line.startswith("[") else line)
    except ValueError:
        words = []
    if words[:1] != ["-A"] or len(words) < 2 or (table, words[1]) not in ruleset.rules:
        ruleset.gaps.append(ReadingGap("a rule of an unknown form", table))
        _not_certain(ruleset, table)
        return
    parser = _RuleParser(words[2:], context)
    rule = parser.parse()
    source = f"{table} {words[1]}"
    ruleset.gaps += [ReadingGap(reason, source) for reason in parser.gaps]
    ruleset.rules[table, words[1]].append(replace(rule, source=source))


def _resolve_targets(ruleset: Ruleset) -> None:
    """Replaces jumps to what is no chain: targets that are not known."""
    for (table, _), rules in ruleset.rules.items():
        for at, rule in enumerate(rules):
            if rule.target and (table, rule.target) not in ruleset.rules:
                ruleset.gaps.append(ReadingGap(f"the target {rule.target}", rule.source))
                rules[at] = Rule(rule.conditions, "unknown", source=rule.source)


@dataclass(slots=True)
class _RuleParser:
    words: list[str]
    context: MatchContext
    gaps: list[str] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)
    at: int = 0

    def parse(self) -> Rule:
        """Reads matches up to the target; the options of the target follow."""
        is_negated = False
        while self.at < len(self.words):
            option = self._take()
            if option == "!":
                is_negated = True
                continue
            if option in {"-j", "-g", "--jump", "--goto"}:
                return self._target(self._take(), is_goto=option in {"-g", "--goto"})
            if option in {"-m", "--match"}:
                self._module(self._take())
            else:
                self._option(option, is_negated=is_negated)
            is_negated = False
        return Rule(tuple(self.conditions), "unknown" if self.gaps else "")

    def _take(self) -> str:
        word = self.words[self.at] if self.at < len(self.words) else ""
        self.at += 1
        return word

    def _module(self, name: str) -> None:
        self.modules.add(name)
        if name == "socket":  # whether a socket of this host takes the packet
            self._add_unclear("the match socket")
        elif name == "rpfilter":  # the way back to a stranger exists
            self.conditions.append(Condition("chance", chance=ALWAYS))

    def _target(self, target: str, *, is_goto: bool) -> Rule:
        options = self.words[self.at :]
        if target == "REJECT" and "tcp-reset" in options:
            self.conditions.append(Condition("protocol", frozenset({"tcp"})))
        conditions, lower = tuple(self.conditions), target.lower()
        if target == target.upper() and lower in _VERDICTS and not is_goto:
            return Rule(conditions, lower)
        if target in _PASSING and not is_goto:
            is_proxy = target == "TPROXY"  # to a socket of any port
            conditions = tuple(c for c in conditions if c.field != "dport") if is_proxy else conditions
            return Rule(conditions, readdresses=is_proxy)
        if target in _TRANSLATIONS and not is_goto:
            return Rule(conditions, "accept", readdresses=target in _READDRESSING)
        return Rule(conditions, "goto" if is_goto else "jump", target)

    def _option(self, option: str, *, is_negated: bool) -> None:
        reader = READERS.get(option)
        if reader is not None:
            value = self._take()
            try:
                condition = reader(value, self.context)
            except ValueError:
                self._add_unclear(f"a value of {option}")
                return
            self._add(condition, is_negated=is_negated)
        elif option in CHOSEN_OPTIONS:
            self.at += CHOSEN_OPTIONS[option]
            self.conditions.append(Condition("chance", chance=CHOSEN))
        elif option in DETAILS:
            self.at += DETAILS[option]
        elif option in _SPECIAL:
            self._special(option, is_negated=is_negated)
        else:
            while self.at < len(self.words) and not self.words[self.at].startswith(("-", "!")):
                self.at += 1
            self._add_unclear(f"the option {option}")

    def _special(self, option: str, *, is_negated: bool) -> None:
        chance = UNCLEAR
        if option == "--invert":
            self.conditions[-1:] = [Condition("chance", chance=NEVER if "rpfilter" in self.modules else UNCLEAR)]
            return
        if option == "--tcp-flags":
            try:
                chance = flags_chance(self._take(), self._take())
            except ValueError:
                self.gaps.append("TCP flags of an unknown form")
        elif option in {"--update", "--rcheck", "--remove"}:
            chance = LISTED_LATER
        elif option == "--match-set":
            self.at += 2
            self.gaps.append("the entries of an ipset")
        self._add(Condition("chance", chance=chance), is_negated=is_negated)

    def _add(self, condition: Condition, *, is_negated: bool) -> None:
        if is_negated:
            condition = Condition(
                condition.field, condition.names, condition.ranges, condition.family, condition.chance,
                is_negated=not condition.is_negated,
            )  # fmt: skip
        self.conditions.append(condition)

    def _add_unclear(self, reason: str) -> None:
        self.gaps.append(reason)
        self.conditions.append(Condition("chance", chance=UNCLEAR))
