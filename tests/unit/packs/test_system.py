"""The baseline of what runs, what is open and who gets in judges real shapes of devices as its titles say."""

from typing import Any, Final

import pytest

from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from tests.support.good_system import GOOD_SYSTEM
from tests.support.packs import failing_rules, load_pack

NAME = "baseline-system"


def sockets(**more: Any) -> dict[str, Any]:
    return {"sockets": more}


def unit(name: str) -> dict[str, Any]:
    return {"services": {"units": [{"name": name, "enabled": True, "active": False}]}}


def many(count: int) -> dict[str, Any]:
    return sockets(listening=[{"proto": "tcp", "address": "::", "port": 1 + n, "process": "x"} for n in range(count)])


CASES: Final[tuple[tuple[dict[str, Any], set[str]], ...]] = (
    (unit("vsftpd.service"), {"no-insecure-services"}),
    (unit("xinetd:telnet"), {"no-insecure-services", "no-super-server"}),
    (unit("inetd:own"), {"no-super-server"}),
    (many(10), set()),
    (many(11), {"few-open-ports"}),
    (sockets(opened=["tcp 0.0.0.0:4444 nc"]), {"no-port-opened"}),
    (sockets(opened=["tcp 127.0.0.1:4444 nc", "tcp [::1]:4444 nc"]), set()),
    ({"services": {"appeared": ["odd.service"]}}, {"no-service-appeared"}),
    ({"access": {"empty_passwords": ["guest"]}}, {"no-empty-passwords"}),
    (
        {"access": {"empty_passwords": ["guest"]}, "ssh": {"empty_passwords": True}},
        {"no-empty-passwords", "no-empty-passwords-over-network", "ssh-no-empty-passwords"},
    ),
    ({"access": {"accepts_empty": True}}, {"empty-passwords-refused"}),
    ({"access": {"root_equals": ["toor"]}}, {"one-root"}),
    ({"access": {"weak_hashes": ["root"]}}, {"strong-password-hashes"}),
    ({"access": {"new_hash": "md5"}}, {"new-passwords-hashed-well"}),
    ({"access": {"quality_enforced": False}}, {"password-quality"}),
    ({"access": {"quality_enforced": False, "minimum_length": 6, "password_accounts": 0}}, set()),
    ({"access": {"minimum_length": 11}}, {"password-length"}),
    ({"access": {"max_days": 99999}}, {"passwords-change"}),
    ({"access": {"max_days": -1}}, {"passwords-change"}),
    ({"access": {"never_expiring": ["ada"]}}, {"passwords-of-accounts-change"}),
    ({"access": {"sudo_without_password": ["%wheel"]}}, {"sudo-asks"}),
    ({"access": {"lockout": [], "lockout_after": None}}, {"guessing-is-stopped"}),
    ({"access": {"lockout_after": 50}}, {"lockout-soon-enough"}),
    ({"access": {"failed_logins": [{"source": "192.0.2.1", "at_least": 10}]}}, set()),
    ({"access": {"failed_logins": [{"source": "192.0.2.1", "at_least": 1000}]}}, {"nobody-guesses"}),
    ({"ssh": {"root_login": "yes"}}, set()),
    ({"ssh": {"root_login": "yes", "password_login": True}}, {"ssh-no-root-password", "ssh-keys-only"}),
    ({"ssh": {"interactive_login": True}}, {"ssh-keys-only"}),
    ({"ssh": {"max_auth_tries": 7}}, {"ssh-few-tries"}),
    ({"ssh": {"weak_algorithms": ["hmac-sha1"]}}, {"ssh-sound-algorithms"}),
    ({"ssh": {"overrides": ["Match User bob: permitrootlogin yes"]}}, {"ssh-no-open-exceptions"}),
    ({"ssh": {"overrides": ["Match User bob: permitrootlogin no"]}}, set()),
    ({"firewall": {"active": False, "default_input": "accept", "uncovered": ["tcp/22"]}},
     {"firewall-on", "firewall-covers-ports"}),
    ({"firewall": {"default_input": "accept"}}, {"firewall-closed"}),
    ({"firewall": {"default_forward": "accept"}}, {"no-open-forwarding"}),
    ({"disk": {"root_encrypted": False}}, {"root-encrypted"}),
    ({"disk": {"data_encrypted": False}}, {"data-encrypted"}),
    ({"disk": {"data_encrypted": False, "fscrypt": ["/data"]}}, set()),
    ({"disk": {"swap": "plain"}}, {"swap-encrypted"}),
    ({"disk": {"swap": "none"}}, set()),
    ({"mac": {"mode": "permissive"}}, {"programs-confined"}),
    ({"mac": {"system": "selinux", "configured": "disabled"}}, {"confinement-stays"}),
    ({"mac": {"denials": 1000}}, {"few-denials"}),
    ({"logging": {"journald": "volatile"}}, set()),
    ({"logging": {"kept": False}}, {"logs-kept"}),
    ({"logging": {"remote_targets": []}}, {"logs-leave-the-device"}),
    ({"logging": {"audit": "absent", "audit_rules": None}}, {"audit-on"}),
    ({"logging": {"audit_rules": 0}}, {"audit-on"}),
    ({"logging": {"rotation": ""}}, {"logs-rotated"}),
)  # fmt: skip


@pytest.mark.parametrize(("sections", "rules"), CASES)
def test_what_the_baseline_finds(sections: dict[str, Any], rules: set[str]) -> None:
    assert failing_rules(NAME, **sections) == rules


def test_every_rule_fails_for_some_device() -> None:
    rules = load_pack(NAME).rules.values()
    assert {one.key.partition("/")[2] for one in rules if one.event is None} == set().union(
        *(rules for _, rules in CASES)
    )


@pytest.mark.parametrize("section", list(GOOD_SYSTEM))
def test_what_a_device_could_not_find_out_is_never_a_pass(section: str) -> None:
    hidden = {"state": "unknown", "reason": "needs root"}
    assert failing_rules(NAME, RuleResult.UNKNOWN, **{section: hidden})
    assert failing_rules(NAME, RuleResult.FAIL, **{section: hidden}) == set()


def test_a_closed_shadow_file_leaves_only_its_own_rules_unknown() -> None:
    closed: dict[str, Any] = {"empty_passwords": None, "weak_hashes": None, "gaps": ["weak_hashes: needs root"]}
    assert failing_rules(NAME, RuleResult.UNKNOWN, access=closed) == {"no-empty-passwords", "strong-password-hashes"}


def test_a_cut_list_shows_what_is_there_and_leaves_single_values_alone() -> None:
    cut = {"access": {"truncated": 5}}
    assert failing_rules(NAME, RuleResult.UNKNOWN, **cut) >= {"no-empty-passwords", "one-root", "sudo-asks"}
    assert "password-length" not in failing_rules(NAME, RuleResult.UNKNOWN, **cut)


def test_it_contains_only_for_an_open_door() -> None:
    levels = {rule.key: rule.response.contain for rule in load_pack(NAME).rules.values()}
    assert {key for key, level in levels.items() if level is not ContainmentLevel.NONE} == {
        f"{NAME}/no-empty-passwords-over-network"
    }
