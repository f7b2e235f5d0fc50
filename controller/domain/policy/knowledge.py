"""Knowledge of how long distributions and OpenSSL branches get security fixes: entries with their source and age.

An entry counts for `good_for` days after somebody compared it with its source; then what rests on it is unknown. The
day is an argument: `KnowledgeOnDay` is the knowledge as it is on one day, and its version changes on the days on which
an entry gets too old or a support ends.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Final

PAYLOAD_TYPE: Final = "application/vnd.cordon.knowledge.v1+json"  # of signed files
_VERSION_DIGITS: Final = 6  # hex digits
# Distributions without packages: an OpenSSL that upstream no longer repairs is repaired by nobody.
_WITHOUT_PACKAGES: Final = frozenset({"buildroot"})

# Fact: its type, its section ("": the controller), its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "os_supported": ("bool", "", "whether the distribution's release still gets security updates, by the knowledge"),
    "openssl_maintainer": (
        "string",
        "",
        "who still repairs this OpenSSL, by the knowledge: distribution, upstream or nobody",
    ),
}


class KnowledgeKind(StrEnum):
    """What an entry is about: a release of a distribution (id of os-release), or a branch of a program."""

    OS = "os"
    PROGRAM = "program"


# What each fact is made of: kinds of knowledge, and facts of the report.
RESTS_ON: Final[Mapping[str, frozenset[KnowledgeKind]]] = {
    "os_supported": frozenset({KnowledgeKind.OS}),
    "openssl_maintainer": frozenset({KnowledgeKind.OS, KnowledgeKind.PROGRAM}),
}
NEEDS: Final = frozenset({"os_id", "os_version", "openssl_version", "openssl_package_version"})
# Without one of these a fact is unknown.
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "os_supported": ("os_id", "os_version"),
    "openssl_maintainer": ("openssl_version",),
}
MAX_ANSWERS: Final = 1024


@dataclass(frozen=True, slots=True)
class KnowledgeEntry:
    """How long a release gets security fixes; `version` matches itself and what begins with it, empty matches all.

    `ends` is the last day, None for a rolling release. `verified` is the day on which somebody compared the entry with
    `source`; it is good for `good_for` days.
    """

    kind: KnowledgeKind
    name: str
    version: str
    ends: date | None
    source: str
    verified: date
    good_for: int

    @property
    def label(self) -> str:
        """Name and version: `debian 12`."""
        return f"{self.name} {self.version}".strip()

    @property
    def good_until(self) -> date:
        """The last day on which it counts."""
        return self.verified + timedelta(days=self.good_for)

    def __str__(self) -> str:
        end = "rolling" if self.ends is None else f"fixes until {self.ends}"
        return f"{self.label}: {end} (verified {self.verified}, good until {self.good_until}; {self.source})"


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A knowledge file: `version` grows with each issue, `digest` is of its bytes (sha256 in hex)."""

    version: int
    issued: date
    entries: tuple[KnowledgeEntry, ...] = ()
    digest: str = ""

    def on(self, day: date) -> "KnowledgeOnDay":
        return KnowledgeOnDay(self, day)


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a release gets fixes; None with the reason if it is not known. `entry` is what the answer rests on."""

    gets_fixes: bool | None
    reason: str = ""
    entry: KnowledgeEntry | None = None


@dataclass(frozen=True, slots=True)
class KnowledgeOnDay:
    """The knowledge on one day; two with the same `version` give the same answers."""

    knowledge: Knowledge
    day: date
    version: str = field(init=False)
    _by_name: Mapping[tuple[KnowledgeKind, str], tuple[KnowledgeEntry, ...]] = field(
        init=False, repr=False, compare=False
    )
    _answers: "dict[tuple[str | None, ...], KnownSupport]" = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.knowledge.digest.encode())
        by_name: dict[tuple[KnowledgeKind, str], tuple[KnowledgeEntry, ...]] = {}
        for entry in self.knowledge.entries:
            digest.update(f"\n{self.is_too_old(entry)} {self._has_ended(entry)} {entry}".encode())
            by_name[entry.kind, entry.name] = (*by_name.get((entry.kind, entry.name), ()), entry)
        object.__setattr__(self, "version", digest.hexdigest()[:_VERSION_DIGITS])
        object.__setattr__(self, "_by_name", by_name)

    def is_too_old(self, entry: KnowledgeEntry) -> bool:
        """Whether the entry counts no longer; one that was verified after this day does not count yet."""
        return not entry.verified <= self.day <= entry.good_until

    def _has_ended(self, entry: KnowledgeEntry) -> bool:
        return entry.ends is not None and entry.ends < self.day

    def answer(self, name: str, facts: Mapping[str, Any]) -> "KnownSupport":
        """Returns a fact of `CATALOGUE`; `facts` has at least those that `REQUIRED` names for it.

        The devices of a fleet are alike, and this is asked for each report: answers are kept, the last `MAX_ANSWERS`.
        """
        key = (name, *[facts.get(need) for need in NEEDS])
        found = self._answers.get(key)
        if found is None:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            found = self._answers[key] = _READERS[name](self, facts)
        return found

    def support(self, kind: KnowledgeKind, name: str, version: str) -> Support:
        """Returns whether a release gets fixes on this day, by the entry that matches the most of its version."""
        found = [entry for entry in self._by_name.get((kind, name), ()) if _matches(entry.version, version)]
        if not found:
            return Support(None, f"nothing is known about the support of {name} {version}".rstrip())
        entry = max(found, key=lambda each: len(each.version))
        if self.is_too_old(entry):
            reason = (
                f"the knowledge about {entry.label} is of {entry.verified} and good until {entry.good_until}: "
                "import newer knowledge"
            )
            return Support(None, reason, entry)
        return Support(not self._has_ended(entry), "", entry)


NO_KNOWLEDGE: Final = Knowledge(0, date.min).on(date.min)


def _matches(pattern: str, version: str) -> bool:
    """`3.0` matches `3.0` and `3.0.17`, `1.1.1` matches `1.1.1k`, `12` does not match `120`."""
    rest = version.removeprefix(pattern)
    return not pattern or version == pattern or (len(rest) < len(version) and not rest[0].isdigit())


@dataclass(frozen=True, slots=True)
class KnownSupport:
    """A fact that rests on knowledge: its value, or None with the reason, and the entries that it rests on."""

    value: bool | str | None
    reason: str = ""
    entries: tuple[KnowledgeEntry, ...] = ()


def os_supported(knowledge: KnowledgeOnDay, facts: Mapping[str, Any]) -> KnownSupport:
    """Returns whether the release gets security updates; `facts` has `os_id` and `os_version`."""
    found = knowledge.support(KnowledgeKind.OS, facts["os_id"], facts["os_version"])
    return KnownSupport(found.gets_fixes, found.reason, entries=_entries(found))


def openssl_maintainer(knowledge: KnowledgeOnDay, facts: Mapping[str, Any]) -> KnownSupport:
    """Returns who repairs the OpenSSL; `facts` has those of `NEEDS` that are known, `openssl_version` at least.

    The package of a distribution gets the distribution's fixes, as long as the release is supported, and none later,
    whatever upstream does. Without such a package upstream's branch decides.
    """
    branch = knowledge.support(KnowledgeKind.PROGRAM, "openssl", facts["openssl_version"])
    name = facts.get("os_id")
    system = Support(None, "the distribution is not known")
    if name is not None and "os_version" in facts:
        system = knowledge.support(KnowledgeKind.OS, name, facts["os_version"])
    if _is_packaged(facts):
        if system.gets_fixes is not None:
            return KnownSupport("distribution" if system.gets_fixes else "nobody", entries=_entries(system))
        if branch.gets_fixes:
            return KnownSupport("upstream", entries=_entries(branch))
        return KnownSupport(None, system.reason, entries=_entries(system, branch))
    if branch.gets_fixes is None:
        return KnownSupport(None, branch.reason, entries=_entries(branch))
    if branch.gets_fixes:
        return KnownSupport("upstream", entries=_entries(branch))
    if name in _WITHOUT_PACKAGES or system.gets_fixes is not None:
        return KnownSupport("nobody", entries=_entries(branch))
    return KnownSupport(None, f"no package has it, and {system.reason}", entries=_entries(system, branch))


def _is_packaged(facts: Mapping[str, Any]) -> bool:
    """Whether the OpenSSL that answers is that of the distribution's package, by the numbers of both versions."""
    package = facts.get("openssl_package_version")
    if package is None:
        return False
    upstream = str(package).partition(":")[2] or str(package)
    return _matches(str(facts["openssl_version"]).rstrip("abcdefghijklmnopqrstuvwxyz"), upstream)


def _entries(*found: Support) -> tuple[KnowledgeEntry, ...]:
    return tuple(support.entry for support in found if support.entry is not None)


_READERS: Final[Mapping[str, Callable[[KnowledgeOnDay, Mapping[str, Any]], KnownSupport]]] = {
    "os_supported": os_supported,
    "openssl_maintainer": openssl_maintainer,
}
