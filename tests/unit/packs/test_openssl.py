"""The starter pack judges OpenSSL on every platform by the distribution's package, its lists and the knowledge."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import pytest

from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.explain import explain
from controller.domain.policy.facts import DeviceFacts, gather_facts
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.knowledge import KnowledgeOnDay
from schemas.posture import ReportSections
from tests.support.knowledge import TODAY, shipped, support
from tests.support.packs import load_pack
from tests.support.playbook import language

RULES: Final = ("os-supported", "openssl-current", "openssl-branch")
PASS, FAIL, UNKNOWN = RuleResult.PASS, RuleResult.FAIL, RuleResult.UNKNOWN


@dataclass(frozen=True)
class Platform:
    """A device: os-release, OpenSSL, and its package (name, version, scheme) as the agent reports them."""

    os: str
    version: str
    openssl: str
    package: tuple[str, str, str] | None

    def facts(self, updates: dict[str, Any], knowledge: KnowledgeOnDay) -> DeviceFacts:
        openssl: dict[str, Any] = {"state": "ok", "version": self.openssl}
        if self.package is not None:
            openssl["package"] = dict(zip(("name", "version", "scheme"), self.package, strict=True))
        sections = {
            "os": {"state": "ok", "id": self.os, "version": self.version, "kernel": "6.1.0", "machine": "x86_64"},
            "updates": updates,
            "openssl": openssl,
        }
        return gather_facts(ReportSections.model_validate(sections), "d", "", (), knowledge=knowledge)

    def results(self, updates: dict[str, Any], knowledge: KnowledgeOnDay) -> dict[str, RuleResult]:
        found = evaluate_policies(load_pack("starter"), language(), self.facts(updates, knowledge))
        results = {finding.rule.partition("/")[2]: finding.result for finding in found}
        return {rule: results[rule] for rule in RULES}


# Versions of packages are those of the releases' own archives; which of them is current only the package manager says.
PLATFORMS: Final = (
    Platform("debian", "11", "1.1.1w", ("openssl", "1.1.1w-0+deb11u4", "deb")),
    Platform("debian", "12", "3.0.19", ("openssl", "3.0.19-1~deb12u2", "deb")),
    Platform("debian", "13", "3.5.4", ("openssl", "3.5.4-1~deb13u2", "deb")),
    Platform("ubuntu", "22.04", "3.0.2", ("openssl", "3.0.2-0ubuntu1.21", "deb")),
    Platform("ubuntu", "24.04", "3.0.13", ("openssl", "3.0.13-0ubuntu3.7", "deb")),
    Platform("raspbian", "12", "3.0.19", ("openssl", "3.0.19-1~deb12u2+rpt1", "deb")),
    Platform("alpine", "3.22.2", "3.5.4", ("libssl3", "3.5.4-r0", "apk")),
    Platform("openwrt", "23.05.6", "3.0.16", ("libopenssl3", "3.0.16-1", "opkg")),
    Platform("openwrt", "25.12.0", "3.5.4", ("libopenssl3", "3.5.4-r1", "apk")),
    Platform("poky", "4.0.20", "3.0.15", ("openssl", "3.0.15-r0", "opkg")),
    Platform("rhel", "8.10", "1.1.1k", ("openssl", "1:1.1.1k-14.el8_10", "rpm")),
    Platform("rhel", "9.6", "3.2.2", ("openssl", "1:3.2.2-6.el9_6.1", "rpm")),
    Platform("rocky", "8.10", "1.1.1k", ("openssl", "1:1.1.1k-14.el8_10", "rpm")),
    Platform("almalinux", "9.6", "3.2.2", ("openssl", "1:3.2.2-6.el9_6.1", "rpm")),
    Platform("centos", "9", "3.5.1", ("openssl", "1:3.5.1-4.el9", "rpm")),
    Platform("fedora", "43", "3.5.4", ("openssl", "1:3.5.4-1.fc43", "rpm")),
    Platform("opensuse-leap", "15.6", "3.1.4", ("openssl", "3.1.4-150600.2.1", "rpm")),
    Platform("opensuse-tumbleweed", "20261125", "3.6.0", ("openssl", "3.6.0-1.1", "rpm")),
)
PENDING: Final = {"deb": "libssl3t64", "apk": "libcrypto3", "opkg": "libopenssl3", "rpm": "openssl-libs"}
NOTHING_WAITS: Final = {"state": "ok", "manager": "x", "pending": 1, "pending_names": ["curl"]}
STALE: Final = {"state": "ok", "manager": "x", "gaps": [{"fact": "pending", "reason": "lists are old"}]}


def _named(platform: Platform) -> str:
    return f"{platform.os} {platform.version}"


def _knowledge(platform: Platform, ends: int | None = 30, **options: Any) -> KnowledgeOnDay:
    """The release is supported for `ends` days; upstream repairs no branch of OpenSSL any more."""
    branch = ".".join(platform.openssl.rstrip("abcdefghijklmnopqrstuvwxyz").split(".")[:2])
    return support({_named(platform): ends, f"openssl {branch}": -1}, **options)


@pytest.mark.parametrize("platform", PLATFORMS, ids=_named)
def test_every_distribution_is_judged_by_its_own_package(platform: Platform) -> None:
    good = _knowledge(platform)
    assert platform.package is not None
    behind = {**NOTHING_WAITS, "pending_names": [PENDING[platform.package[2]]]}
    for case, updates, knowledge, expected in (
        ("patched", NOTHING_WAITS, good, (PASS, PASS, PASS)),
        ("rolling", NOTHING_WAITS, _knowledge(platform, None), (PASS, PASS, PASS)),
        ("behind", behind, good, (PASS, FAIL, PASS)),
        ("out of support", NOTHING_WAITS, _knowledge(platform, -1), (FAIL, PASS, FAIL)),
        ("its last day", NOTHING_WAITS, _knowledge(platform, 0), (PASS, PASS, PASS)),
        ("lists stale", STALE, good, (PASS, UNKNOWN, PASS)),
        ("an older agent", {"state": "ok", "manager": "x"}, good, (PASS, UNKNOWN, PASS)),
        ("knowledge expired", NOTHING_WAITS, _knowledge(platform, day=TODAY + timedelta(91)), (UNKNOWN, PASS, UNKNOWN)),
        (
            "expired, and ended",
            NOTHING_WAITS,
            _knowledge(platform, -1, day=TODAY + timedelta(91)),
            (UNKNOWN, PASS, UNKNOWN),
        ),
        ("nothing known", NOTHING_WAITS, support({}), (UNKNOWN, PASS, UNKNOWN)),
    ):
        assert tuple(platform.results(updates, knowledge).values()) == expected, case


@pytest.mark.parametrize(
    ("platform", "branch_ends", "expected"),
    [
        # Without packages upstream's branch decides.
        (Platform("buildroot", "2025.02", "3.4.1", None), 30, PASS),
        (Platform("buildroot", "2025.02", "3.4.1", None), -1, FAIL),
        (Platform("buildroot", "2025.02", "3.4.1", None), None, PASS),
        # A distribution of which nothing is known may carry fixes back, or may not.
        (Platform("poky", "5.0.4", "3.4.1", ("openssl", "3.4.1-r0", "opkg")), 30, PASS),
        (Platform("poky", "5.0.4", "3.4.1", ("openssl", "3.4.1-r0", "opkg")), -1, UNKNOWN),
        (Platform("poky", "5.0.4", "3.4.1", None), -1, UNKNOWN),
        (Platform("raspbian", "12", "3.4.1", ("openssl", "3.4.1-1", "deb")), -1, UNKNOWN),
        # Built by hand beside the package of a supported release.
        (Platform("debian", "12", "3.4.1", ("openssl", "3.0.19-1~deb12u2", "deb")), -1, FAIL),
        (Platform("debian", "12", "3.4.1", ("openssl", "3.0.19-1~deb12u2", "deb")), 30, PASS),
        (Platform("debian", "12", "3.4.1", None), -1, FAIL),
        # A branch of which nothing is known.
        (Platform("buildroot", "2025.02", "3.40.1", None), 30, UNKNOWN),
        (Platform("debian", "12", "3.40.1", None), 30, UNKNOWN),
    ],
)
def test_without_the_package_of_a_known_distribution_the_branch_decides(
    platform: Platform, branch_ends: int | None, expected: RuleResult
) -> None:
    known = support({"debian 12": 30, "openssl 3.4": branch_ends})
    assert platform.results(NOTHING_WAITS, known)["openssl-branch"] is expected
    old = support({"debian 12": 30, "openssl 3.4": branch_ends}, day=TODAY + timedelta(91))
    assert platform.results(NOTHING_WAITS, old)["openssl-branch"] is UNKNOWN


def test_a_debian_12_that_is_five_updates_behind_fails() -> None:
    platform = Platform("debian", "12", "3.0.17", ("openssl", "3.0.17-1~deb12u2", "deb"))
    waiting = {
        "state": "ok",
        "manager": "apt",
        "security_pending": 2,
        "pending": 2,
        "pending_names": ["libssl3", "openssl"],
        "packages": [
            {"name": name, "installed": "3.0.17-1~deb12u2", "candidate": "3.0.19-1~deb12u2"}
            for name in ("libssl3", "openssl")
        ],
    }
    assert platform.results(waiting, shipped())["openssl-current"] is FAIL


FIRST_RELEASES: Final = (
    Platform("debian", "11", "1.1.1k", ("openssl", "1.1.1k-1", "deb")),
    Platform("debian", "12", "3.0.9", ("openssl", "3.0.9-1", "deb")),
    Platform("debian", "13", "3.5.1", ("openssl", "3.5.1-1", "deb")),
    Platform("ubuntu", "22.04", "3.0.2", ("openssl", "3.0.2-0ubuntu1", "deb")),
    Platform("ubuntu", "24.04", "3.0.13", ("openssl", "3.0.13-0ubuntu3", "deb")),
    Platform("raspbian", "12", "3.0.9", ("openssl", "3.0.9-1", "deb")),
    Platform("alpine", "3.20.0", "3.3.0", ("libssl3", "3.3.0-r2", "apk")),
    Platform("alpine", "3.22.0", "3.5.0", ("libssl3", "3.5.0-r0", "apk")),
    Platform("openwrt", "22.03.0", "1.1.1q", ("libopenssl1.1", "1.1.1q-1", "opkg")),
    Platform("openwrt", "23.05.0", "3.0.11", ("libopenssl3", "3.0.11-1", "opkg")),
    Platform("openwrt", "24.10.0", "3.0.15", ("libopenssl3", "3.0.15-r1", "opkg")),
    Platform("poky", "4.0", "3.0.2", ("openssl", "3.0.2-r0", "opkg")),
    Platform("buildroot", "2022.02", "1.1.1m", None),
    Platform("rhel", "8.0", "1.1.1", ("openssl", "1:1.1.1-8.el8", "rpm")),
    Platform("rhel", "9.0", "3.0.1", ("openssl", "1:3.0.1-23.el9_0", "rpm")),
    Platform("centos", "9", "3.0.1", ("openssl", "1:3.0.1-18.el9", "rpm")),
    Platform("fedora", "42", "3.2.4", ("openssl", "1:3.2.4-3.fc42", "rpm")),
    Platform("opensuse-leap", "15.6", "3.1.4", ("openssl", "3.1.4-150600.2.1", "rpm")),
)


@pytest.mark.parametrize("platform", FIRST_RELEASES, ids=_named)
def test_a_first_release_never_passes_for_lack_of_lists(platform: Platform) -> None:
    for updates in (STALE, {"state": "unknown", "reason": "no known package manager"}):
        assert {FAIL, UNKNOWN} & set(platform.results(updates, shipped()).values())


def test_the_patched_1_1_1k_of_rhel_8_passes_by_the_shipped_knowledge() -> None:
    for name in ("rhel", "rocky", "almalinux"):
        platform = Platform(name, "8.10", "1.1.1k", ("openssl", "1:1.1.1k-14.el8_10", "rpm"))
        assert set(platform.results(NOTHING_WAITS, shipped()).values()) == {PASS}


@pytest.mark.parametrize("openssl", ["3.0.19", "3.1.4", "3.2.6", "3.3.5"])
def test_a_branch_that_upstream_gave_up_fails_without_a_distribution(openssl: str) -> None:
    assert Platform("buildroot", "2025.02", openssl, None).results(STALE, shipped())["openssl-branch"] is FAIL


def test_an_explanation_names_the_entry_with_source_and_date() -> None:
    platform = Platform("debian", "12", "3.0.19", ("openssl", "3.0.19-1~deb12u2", "deb"))
    explained = {
        one.rule: one
        for one in explain(load_pack("starter"), language(), platform.facts(NOTHING_WAITS, _knowledge(platform)))
    }
    entry = "debian 12: fixes until 2026-12-30 (verified 2026-11-30, good until 2027-02-28; https://example.org/life)"
    for rule, fact, value in (
        ("os-supported", "os_supported", "true"),
        ("openssl-branch", "openssl_maintainer", "distribution"),
    ):
        (used,) = explained[f"starter/{rule}"].facts
        assert (used.name, used.value, used.knowledge) == (fact, value, (entry,))
    late = platform.facts(NOTHING_WAITS, _knowledge(platform, day=date(2027, 3, 1)))
    (used,) = {one.rule: one for one in explain(load_pack("starter"), language(), late)}["starter/os-supported"].facts
    assert (used.value, used.knowledge) == (None, (entry,))
    assert used.missing == (
        "os_supported: the knowledge about debian 12 is of 2026-11-30 and good until 2027-02-28: import newer knowledge"
    )
