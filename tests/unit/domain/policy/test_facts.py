"""Facts of a report: known, missing with a reason, or partial."""

from typing import get_args

import pytest

from controller.domain.policy.facts import CATALOGUE, FIELDS, DeviceFacts, MissingFact, gather_facts
from controller.domain.policy.facts_system import plain_name
from controller.domain.policy.findings import RuleResult
from schemas.base import CollectedSection
from schemas.posture import ReportSections
from schemas.sections.software import OpensslConfig
from tests.support.good_software import GOOD_SOFTWARE
from tests.support.good_system import GOOD_SYSTEM
from tests.support.good_tools import GOOD_TOOLS
from tests.support.knowledge import support

FULL = {
    **GOOD_SYSTEM,
    "os": {"state": "ok", "id": "debian", "version": "12", "kernel": "6.1.0", "machine": "x86_64"},
    "sockets": {
        "state": "ok",
        "listening": [
            {"proto": "tcp", "address": "0.0.0.0", "port": 22, "process": "sshd"},
            {"proto": "udp", "address": "127.0.0.1", "port": 53, "process": "dnsmasq"},
            {"proto": "tcp", "address": "::", "port": 22, "process": "sshd"},
        ],
    },
    "services": {
        "state": "ok",
        "units": [
            {"name": "ssh.service", "enabled": True, "active": True},
            {"name": "inetd:telnet", "enabled": True, "active": False},
            {"name": "now.service", "enabled": False, "active": True},
        ],
    },
    **GOOD_SOFTWARE,
    **GOOD_TOOLS,
}


DERIVED = {"os": {"os_supported"}, "openssl": {"openssl_maintainer"}}  # facts of the controller that rest on a section


def facts(**sections: object) -> DeviceFacts:
    report = ReportSections.model_validate({**FULL, **sections})
    return gather_facts(report, "d1", "gate", ("x",), knowledge=support({"debian 12": 1, "openssl 3.0": 1}))


def test_every_declared_fact_is_known_from_a_full_report() -> None:
    extracted = facts()
    assert set(extracted.known) == set(CATALOGUE)
    assert (extracted.missing, extracted.partial) == ({}, {})
    assert extracted.known["listening_ports"] == [22, 53]
    assert extracted.known["exposed_ports"] == [22]
    assert extracted.known["listening_processes"] == ["dnsmasq", "sshd"]
    assert extracted.known["enabled_services"] == ["ssh.service", "inetd:telnet"]
    assert extracted.known["active_services"] == ["ssh.service", "now.service"]
    assert sorted(extracted.known["service_names"]) == ["now", "ssh", "telnet"]
    assert extracted.known["device.tags"] == ["x"]


@pytest.mark.parametrize("section", list(FULL))
def test_facts_of_a_missing_section_have_a_reason(section: str) -> None:
    owned = {name for name, (_, owner, _) in CATALOGUE.items() if owner == section}
    derived = DERIVED.get(section, set())
    for value, result, reason in (
        (None, RuleResult.UNKNOWN, f"{section}: not reported"),
        ({"state": "unknown", "reason": "needs root"}, RuleResult.UNKNOWN, f"{section}: needs root"),
        ({"state": "notapplicable", "reason": "no such thing"}, RuleResult.NOTAPPLICABLE, f"{section}: no such thing"),
    ):
        extracted = facts(**{section: value})
        assert set(extracted.missing) == owned | derived
        assert {(extracted.missing[name].result, extracted.missing[name].reason) for name in owned} == {
            (result, reason)
        }
        for name in derived:  # "does not apply" would satisfy a rule
            assert (extracted.missing[name].result, extracted.missing[name].reason) == (RuleResult.UNKNOWN, reason)
        assert owned.isdisjoint(extracted.known)


def test_values_that_the_device_did_not_determine_are_missing() -> None:
    extracted = facts(
        updates={"state": "ok", "manager": "apt", "security_pending": 0},
        openssl={"state": "ok", "version": "3.0.17"},
        firewall={"state": "ok", "backend": "none", "active": False},
        access={**FULL["access"], "empty_passwords": None, "max_days": None, "gaps": ["empty_passwords: needs root"]},
    )
    assert extracted.missing["empty_password_accounts"].reason == "empty_password_accounts: needs root"
    assert set(extracted.missing) == {
        "oldest_security_days",
        "reboot_required",
        "openssl_package_name",
        "openssl_package_version",
        "openssl_package_scheme",
        "updates_pending",
        "pending_packages",
        "seen_security_days",
        "unattended_upgrades",
        "kernel_current",
        "installed_packages",
        "openssl_library_version",
        "stale_openssl_processes",
        "openssl_min_protocol",
        "openssl_cipher_string",
        "openssl_security_level",
        "openssl_legacy_provider",
        "openssl_fips",
        "openssl_unsafe_options",
        "tls_errors",
        "firewall_default_input",
        "firewall_default_forward",
        "firewall_default_output",
        "firewall_uncovered",
        "empty_password_accounts",
        "password_max_days",
    }


def test_truncated_list_is_partial() -> None:
    extracted = facts(
        sockets={"state": "ok", "listening": [], "truncated": 7}, services={"state": "ok", "truncated": 1}
    )
    assert extracted.partial["listening_ports"] == "sockets: 7 more entries were not sent"
    assert set(extracted.partial) == {
        name
        for name, (kind, section, _) in CATALOGUE.items()
        if section in ("sockets", "services") and kind.startswith("list")
    }


def test_invisible_processes_make_their_list_partial() -> None:
    socket = {"proto": "tcp", "address": "0.0.0.0", "port": 514}
    extracted = facts(sockets={"state": "ok", "listening": [socket]})
    assert extracted.partial == {"listening_processes": "sockets: the process behind 1 of them is not visible"}


@pytest.mark.parametrize(
    ("address", "exposed"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("[::1]", False),
        ("::1%lo", False),
        ("::ffff:127.0.0.1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("*", True),
        ("::1f", True),
        ("127.evil", True),
        ("fe80::1%eth0", True),
        ("::ffff:10.0.0.1", True),
    ],
)
def test_every_address_but_loopback_is_exposed(address: str, exposed: bool) -> None:
    socket = {"proto": "tcp", "address": address, "port": 9, "process": "p"}
    extracted = facts(sockets={"state": "ok", "listening": [socket]})
    assert extracted.known["exposed_ports"] == ([9] if exposed else [])


@pytest.mark.parametrize(
    "unit", ["telnetd", "telnetd.service", "telnetd.socket", "Telnetd@3.service", "inetd:in.telnetd", "xinetd:telnetd"]
)
def test_plain_name_of_a_service(unit: str) -> None:
    assert plain_name(unit) == "telnetd"


def section_with(section: str, **fields: object) -> dict[str, object]:
    return {section: {**FULL[section], **fields}}


def test_a_gap_makes_a_fact_missing_with_reason_and_source() -> None:
    gap = {"fact": "password_login", "reason": "not understood: Match exec", "source": "/etc/ssh/sshd_config:7"}
    extracted = facts(**section_with("ssh", password_login=None, gaps=[gap]))
    reason = "ssh_password_login: /etc/ssh/sshd_config:7: not understood: Match exec"
    assert extracted.missing == {"ssh_password_login": MissingFact(RuleResult.UNKNOWN, reason)}
    # A value that is sent all the same is not believed.
    assert facts(**section_with("ssh", password_login=False, gaps=[gap])).missing == extracted.missing


def test_a_list_with_a_gap_is_partial() -> None:
    gap = {"fact": "units", "reason": "not a file", "source": "/etc/xinetd.d/x"}
    unit = {"name": "telnetd.service", "enabled": True, "active": True}
    extracted = facts(**section_with("services", units=[], partial={"units": [unit]}, gaps=[gap]))
    assert extracted.missing == {}
    assert extracted.known["insecure_services"] == ["telnetd"]
    expected = {"service_names", "enabled_services", "active_services", "insecure_services"}
    assert set(extracted.partial) == {*expected, "appeared_services", "vanished_services"}
    unfit: object
    for unfit in ({"units": ["text"]}, {"init": ["systemd"]}, {"other": []}):
        assert facts(**section_with("services", units=[], partial=unfit, gaps=[gap])).known["insecure_services"] == []


def test_a_gap_in_something_unknown_makes_the_whole_section_incomplete() -> None:
    gap = {"fact": "something_newer", "reason": "why"}
    extracted = facts(**section_with("access", gaps=[gap]))
    owned = {name for name, (_, owner, _) in CATALOGUE.items() if owner == "access"}
    assert extracted.missing.keys() | extracted.partial.keys() == owned


@pytest.mark.parametrize("name", ["gaps", "problems"])
def test_the_texts_of_agents_before_the_first_release_are_gaps(name: str) -> None:
    extracted = facts(**section_with("sources", **{name: ["/etc/apt/x: needs root"]}))
    assert set(extracted.partial) == {name for name, (_, owner, _) in CATALOGUE.items() if owner == "sources"}
    extracted = facts(**section_with("certificates", **{name: ["trust_store: there is none", "crl: no answer"]}))
    assert extracted.partial == {}


def test_every_fact_names_existing_fields_of_its_section() -> None:
    for fact, fields in FIELDS.items():
        annotation = ReportSections.model_fields[CATALOGUE[fact][1]].annotation
        models = [kind for kind in _models(annotation) if issubclass(kind, CollectedSection)]
        names = {*models[0].model_fields, *OpensslConfig.model_fields}
        assert set(fields) <= names, fact
    assert set(FIELDS) == {fact for fact, (_, section, _) in CATALOGUE.items() if section}


def _models(annotation: object) -> list[type]:
    inner = get_args(annotation)
    return [annotation] if isinstance(annotation, type) else [kind for each in inner for kind in _models(each)]
