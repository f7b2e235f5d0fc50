"""The shipped packs judge real shapes of devices as their titles say."""

import re
from typing import Any

import pytest

from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from controller.packs import pack_names, pack_path
from schemas.posture import ReportSections
from tests.bench import fleet
from tests.support.knowledge import shipped
from tests.support.packs import failing_rules, listening, load_pack
from tests.support.playbook import language


def unit(name: str) -> dict[str, Any]:
    return {"services": {"units": [{"name": name, "enabled": True, "active": True}]}}


def pending(*names: str, **others: Any) -> dict[str, Any]:
    return {"updates": {"pending": len(names), "pending_names": list(names), **others}}


def openssl(package: str, version: str = "3.0.17") -> dict[str, Any]:
    return {"openssl": {"version": version, "package": {"name": "openssl", "version": package, "scheme": "deb"}}}


def test_which_packs_there_are() -> None:
    assert {"demo", "starter"} <= set(pack_names())
    with pytest.raises(KeyError, match=f"there are {', '.join(pack_names())}"):
        pack_path("other")


@pytest.mark.parametrize("name", pack_names())
def test_a_pack_is_named_like_its_file_and_every_rule_says_why_and_what_to_do(name: str) -> None:
    (policy,) = load_pack(name).policies
    assert policy.name == name
    for rule in policy.rules:
        assert rule.why, rule.key
        assert rule.fix, rule.key


@pytest.mark.parametrize("name", pack_names())
def test_a_healthy_device_fails_nothing_and_leaves_nothing_open(name: str) -> None:
    for result in (RuleResult.FAIL, RuleResult.ERROR, RuleResult.UNKNOWN):
        assert failing_rules(name, result) == set()


def test_the_benchmarks_measure_devices_whose_every_rule_is_satisfied() -> None:
    report = ReportSections.model_validate(fleet.sections())
    facts = gather_facts(report, "d", "", (), knowledge=shipped())
    findings = evaluate_policies(load_pack("starter"), language(), facts)
    assert [one for one in findings if not one.result.is_satisfied] == []


@pytest.mark.parametrize(
    ("sections", "rules"),
    [
        (listening(23), {"no-telnet"}),
        (listening(23, "127.0.0.1"), set()),
        (listening(23, "127.3.0.1"), set()),
        (listening(23, "::1"), set()),
        (listening(23, "::ffff:127.0.0.1"), set()),
        (listening(23, "::"), {"no-telnet"}),
        (listening(23, proto="udp"), set()),
        (listening(513, proto="udp"), set()),
        (listening(512, "127.0.0.1"), set()),
        (listening(69), set()),
        (listening(69, "127.0.0.1", proto="udp"), set()),
        (unit("telnetd.service"), {"no-telnet-service"}),
        (unit("inetd:telnet"), {"no-telnet-service", "no-inetd-entries"}),
        (unit("telnet.socket"), {"no-telnet-service"}),
        (unit("telnetd@1.service"), {"no-telnet-service"}),
        (unit("xinetd:telnet"), {"no-telnet-service", "no-inetd-entries"}),
        (unit("rlogin@2.service"), {"no-r-service-units"}),
        (unit("telnet-gateway-docs.service"), set()),
        (listening(512), {"no-r-services"}),
        (listening(513), {"no-r-services"}),
        (listening(514, process="rsyslogd"), set()),
        (listening(514, process="in.rshd"), {"port-514-is-syslog"}),
        (unit("rsh.socket"), {"no-r-service-units"}),
        (unit("inetd:login"), {"no-r-service-units", "no-inetd-entries"}),
        (listening(69, proto="udp"), {"no-tftp"}),
        (unit("tftpd-hpa.service"), {"no-tftp"}),
        (listening(21), {"no-ftp"}),
        (unit("vsftpd.service"), {"no-ftp"}),
        (unit("xinetd:daytime"), {"no-inetd-entries"}),
        (listening(2375), {"no-open-docker-api"}),
        (listening(2375, "127.0.0.1"), set()),
        (listening(5555), {"no-open-debug-bridge"}),
        (listening(6379), {"no-exposed-databases"}),
        (listening(5901), {"no-remote-desktop"}),
        (
            {
                "sockets": {
                    "listening": [
                        {"proto": "tcp", "address": "::", "port": 7000 + n, "process": "x"} for n in range(21)
                    ]
                }
            },
            {"few-exposed-ports"},
        ),
        (
            {
                "sockets": {
                    "listening": [
                        {"proto": "tcp", "address": "::", "port": n, "process": p}
                        for n, p in ((22, "sshd"), (2222, "dropbear"))
                    ]
                }
            },
            {"one-ssh-service"},
        ),
        ({"updates": {"oldest_security_days": 15}}, {"security-updates-timely"}),
        ({"updates": {"security_pending": 25}}, {"few-pending-updates"}),
        ({"updates": {"reboot_required": True}}, {"no-reboot-pending"}),
        (pending("openssl"), {"openssl-current"}),
        ({**pending("libssl3t64"), "os": {"version": "13"}}, {"openssl-current"}),
        ({**pending("openssl-libs"), "os": {"id": "rhel", "version": "8.10"}}, {"openssl-current"}),
        ({**pending("libcrypto3"), "os": {"id": "alpine", "version": "3.22.1"}}, {"openssl-current"}),
        ({**pending("libopenssl3"), "os": {"id": "openwrt", "version": "24.10"}}, {"openssl-current"}),
        (pending("libssh2-1", "curl"), set()),
        (openssl("3.0.17-1~deb12u2", "1.1.1w"), {"openssl-branch"}),
        ({"firewall": {"backend": "none", "active": False}}, {"firewall-active"}),
        ({"firewall": {"default_input": "accept"}}, {"firewall-default-closed"}),
    ],
)
def test_the_starter_pack_finds(sections: dict[str, Any], rules: set[str]) -> None:
    assert failing_rules("starter", **sections) == rules


def test_no_waiting_update_needs_no_age() -> None:
    patched = {"security_pending": 0, "oldest_security_days": None}
    assert "security-updates-timely" in failing_rules("starter", RuleResult.NOTAPPLICABLE, updates=patched)


def test_a_process_out_of_sight_passes_no_rule_about_processes() -> None:
    hidden = listening(514, process="")
    assert failing_rules("starter", RuleResult.UNKNOWN, **hidden) == {"one-ssh-service", "port-514-is-syslog"}
    assert failing_rules("starter", **hidden) == set()


def test_what_the_starter_pack_contains_for() -> None:
    levels = {rule.key: rule.response.contain for rule in load_pack("starter").rules.values()}
    assert {key: level for key, level in levels.items() if level is not ContainmentLevel.NONE} == {
        "starter/no-telnet": ContainmentLevel.RESTRICTED,
        "starter/no-r-services": ContainmentLevel.RESTRICTED,
        "starter/no-open-docker-api": ContainmentLevel.ISOLATED,
    }
    assert load_pack("starter").rules["starter/no-open-docker-api"].response.isolate_for == 1800.0


@pytest.mark.parametrize(
    ("sections", "rule", "level", "action"),
    [
        (listening(23), "no-telnet", ContainmentLevel.RESTRICTED, "service.disable"),
        (openssl("3.0.16-1~deb12u1"), "openssl-current", ContainmentLevel.RESTRICTED, "package.upgrade"),
        (listening(2375), "no-open-docker-api", ContainmentLevel.ISOLATED, ""),
    ],
)
def test_the_demo_pack_answers(sections: dict[str, Any], rule: str, level: ContainmentLevel, action: str) -> None:
    assert failing_rules("demo", **sections) == {rule}
    response = load_pack("demo").rules[f"demo/{rule}"].response
    assert response.contain is level
    assert (response.remedy.action if response.remedy else "") == action


def test_a_list_of_updates_that_is_not_whole_passes_nothing() -> None:
    assert failing_rules("starter", RuleResult.UNKNOWN, **pending("curl", pending=300, truncated=44)) >= {
        "openssl-current"
    }
    assert failing_rules("starter", **pending("openssl", pending=300, truncated=44)) == {"openssl-current"}
    assert "openssl-current" in failing_rules("starter", RuleResult.UNKNOWN, updates={"pending_names": None})


@pytest.mark.parametrize("name", sorted(set(pack_names()) - {"demo"}))
def test_no_pack_judges_by_a_version_that_ages(name: str) -> None:
    # The fleet of `demo` is simulated.
    for rule in load_pack(name).rules.values():
        for expression in (rule.check, rule.applies_if):
            assert expression is None or not re.search(r"older\(|\d+\.\d+\.\d+-", expression.text), rule
