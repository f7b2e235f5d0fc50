"""The shipped packs judge real shapes of devices as their titles say."""

from functools import cache
from typing import Any

import pytest

from controller.adapters.policies.loader import load_policies
from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel, PolicySet
from controller.packs import pack_names, pack_path
from schemas.posture import ReportSections
from tests.support.good_software import GOOD_SOFTWARE
from tests.support.good_system import GOOD_SYSTEM
from tests.support.good_tools import GOOD_TOOLS
from tests.support.playbook import language

GOOD: dict[str, dict[str, Any]] = {
    "os": {"state": "ok", "id": "debian", "version": "12", "kernel": "6.1.0-41-amd64", "machine": "x86_64"},
    **GOOD_SYSTEM,
    **GOOD_SOFTWARE,
    **GOOD_TOOLS,
}


@cache
def pack(name: str) -> PolicySet:
    return load_policies([pack_path(name)], language())


def failing(name: str, result: RuleResult = RuleResult.FAIL, **sections: dict[str, Any]) -> set[str]:
    merged = {key: {**value, **sections.get(key, {})} for key, value in GOOD.items()}
    facts = gather_facts(ReportSections.model_validate(merged), "d", "", ())
    return {
        one.rule.partition("/")[2] for one in evaluate_policies(pack(name), language(), facts) if one.result is result
    }


def port(number: int, address: str = "0.0.0.0", process: str = "x") -> dict[str, Any]:
    return {"sockets": {"listening": [{"proto": "tcp", "address": address, "port": number, "process": process}]}}


def unit(name: str) -> dict[str, Any]:
    return {"services": {"units": [{"name": name, "enabled": True, "active": True}]}}


def openssl(package: str, version: str = "3.0.17") -> dict[str, Any]:
    return {"openssl": {"version": version, "package": {"name": "openssl", "version": package, "scheme": "deb"}}}


def test_which_packs_there_are() -> None:
    assert {"demo", "starter"} <= set(pack_names())
    with pytest.raises(KeyError, match=f"there are {', '.join(pack_names())}"):
        pack_path("other")


@pytest.mark.parametrize("name", pack_names())
def test_a_pack_is_named_like_its_file_and_every_rule_says_why_and_what_to_do(name: str) -> None:
    (policy,) = pack(name).policies
    assert policy.name == name
    for rule in policy.rules:
        assert rule.why, rule.key
        assert rule.fix, rule.key


@pytest.mark.parametrize("name", pack_names())
def test_a_healthy_device_fails_nothing_and_leaves_nothing_open(name: str) -> None:
    for result in (RuleResult.FAIL, RuleResult.ERROR, RuleResult.UNKNOWN):
        assert failing(name, result) == set()


@pytest.mark.parametrize(
    ("sections", "rules"),
    [
        (port(23), {"no-telnet"}),
        (port(23, "127.0.0.1"), {"no-telnet"}),
        (unit("telnetd.service"), {"no-telnet-service"}),
        (unit("inetd:telnet"), {"no-telnet-service", "no-inetd-entries"}),
        (unit("telnet.socket"), {"no-telnet-service"}),
        (unit("telnetd@1.service"), {"no-telnet-service"}),
        (unit("xinetd:telnet"), {"no-telnet-service", "no-inetd-entries"}),
        (unit("rlogin@2.service"), {"no-r-service-units"}),
        (unit("telnet-gateway-docs.service"), set()),
        (port(512), {"no-r-services"}),
        (port(513), {"no-r-services"}),
        (port(514, process="rsyslogd"), set()),
        (port(514, process="in.rshd"), {"port-514-is-syslog"}),
        (unit("rsh.socket"), {"no-r-service-units"}),
        (unit("inetd:login"), {"no-r-service-units", "no-inetd-entries"}),
        (port(69), {"no-tftp"}),
        (unit("tftpd-hpa.service"), {"no-tftp"}),
        (port(21), {"no-ftp"}),
        (unit("vsftpd.service"), {"no-ftp"}),
        (unit("xinetd:daytime"), {"no-inetd-entries"}),
        (port(2375), {"no-open-docker-api"}),
        (port(2375, "127.0.0.1"), set()),
        (port(5555), {"no-open-debug-bridge"}),
        (port(6379), {"no-exposed-databases"}),
        (port(5901), {"no-remote-desktop"}),
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
        (openssl("3.0.16-1~deb12u1"), {"openssl-debian-12"}),
        ({**openssl("3.0.16-1~deb12u1"), "os": {"version": "13"}}, set()),
        (openssl("3.0.17-1~deb12u2", "1.1.1w"), {"openssl-branch"}),
        ({"firewall": {"backend": "none", "active": False}}, {"firewall-active"}),
        ({"firewall": {"default_input": "accept"}}, {"firewall-default-closed"}),
    ],
)
def test_the_starter_pack_finds(sections: dict[str, Any], rules: set[str]) -> None:
    assert failing("starter", **sections) == rules


def test_no_waiting_update_needs_no_age() -> None:
    patched = {"security_pending": 0, "oldest_security_days": None}
    assert "security-updates-timely" in failing("starter", RuleResult.NOTAPPLICABLE, updates=patched)


def test_a_process_out_of_sight_passes_no_rule_about_processes() -> None:
    hidden = port(514, process="")
    assert failing("starter", RuleResult.UNKNOWN, **hidden) == {"one-ssh-service"}
    assert failing("starter", **hidden) == {"port-514-is-syslog"}


def test_what_the_starter_pack_contains_for() -> None:
    levels = {rule.key: rule.response.contain for rule in pack("starter").rules.values()}
    assert {key: level for key, level in levels.items() if level is not ContainmentLevel.NONE} == {
        "starter/no-telnet": ContainmentLevel.RESTRICTED,
        "starter/no-r-services": ContainmentLevel.RESTRICTED,
        "starter/no-open-docker-api": ContainmentLevel.ISOLATED,
    }
    assert pack("starter").rules["starter/no-open-docker-api"].response.isolate_for == 1800.0


@pytest.mark.parametrize(
    ("sections", "rule", "level", "action"),
    [
        (port(23), "no-telnet", ContainmentLevel.RESTRICTED, "service.disable"),
        (openssl("3.0.16-1~deb12u1"), "openssl-current", ContainmentLevel.RESTRICTED, "package.upgrade"),
        (port(2375), "no-open-docker-api", ContainmentLevel.ISOLATED, ""),
    ],
)
def test_the_demo_pack_answers(sections: dict[str, Any], rule: str, level: ContainmentLevel, action: str) -> None:
    assert failing("demo", **sections) == {rule}
    response = pack("demo").rules[f"demo/{rule}"].response
    assert response.contain is level
    assert (response.remedy.action if response.remedy else "") == action
