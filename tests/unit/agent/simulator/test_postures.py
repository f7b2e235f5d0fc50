"""Simulated postures are valid, and changes do not modify their argument."""

import copy
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import SettingsError
from device_agent.simulator.postures import (
    Posture,
    PostureEdit,
    PostureItemNotFoundError,
    apply_edit,
    disable_service,
    load,
    upgrade_package,
)


@pytest.fixture
def healthy() -> Posture:
    return load(None)[0]


def test_the_default_posture_is_valid_and_as_large_as_a_real_report(healthy: Posture) -> None:
    findings = normalise_findings(healthy)
    assert all(section["state"] == "ok" for section in findings.sections.values())
    assert 1_000 < len(json.dumps(healthy, separators=(",", ":"))) < 4_000


def test_a_port_is_opened_with_its_service_and_closed(healthy: Posture) -> None:
    before = copy.deepcopy(healthy)
    after = apply_edit(healthy, PostureEdit(open_port=23))
    assert {"proto": "tcp", "address": "0.0.0.0", "port": 23, "process": "telnetd"} in after["sockets"]["listening"]
    assert {"name": "telnetd.service", "enabled": True, "active": True} in after["services"]["units"]
    repaired, detail = disable_service(after, "telnetd")
    assert repaired == before == healthy
    assert detail == {"was": "enabled, active", "is": "disabled, inactive"}
    assert apply_edit(after, PostureEdit(close_port=23))["sockets"] == before["sockets"]


def test_openssl_is_downgraded_and_upgraded(healthy: Posture) -> None:
    old = apply_edit(healthy, PostureEdit(openssl="3.0.11-1~deb12u1"))
    assert old["openssl"]["version"] == "3.0.11"
    new, detail = upgrade_package(old, "openssl", healthy)
    assert new == healthy
    assert detail["was"] == "3.0.11-1~deb12u1"


def test_a_pending_package_is_upgraded(healthy: Posture) -> None:
    packages = [{"name": "sudo", "installed": "1", "candidate": "2"}]
    outdated = apply_edit(healthy, PostureEdit(sections={"updates": {"security_pending": 1, "packages": packages}}))
    new, detail = upgrade_package(outdated, "sudo", healthy)
    assert (new["updates"]["security_pending"], new["updates"]["packages"]) == (0, [])
    assert detail == {"was": "1", "is": "2"}


def test_unknown_items_and_invalid_edits_raise(healthy: Posture) -> None:
    with pytest.raises(PostureItemNotFoundError):
        disable_service(healthy, "nothing")
    with pytest.raises(PostureItemNotFoundError):
        upgrade_package(healthy, "nothing", healthy)
    with pytest.raises(ValidationError):
        apply_edit(healthy, PostureEdit(sections={"firewall": {"active": "perhaps"}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"os": {"state": "fine"}}]'])
def test_the_error_names_an_invalid_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "postures.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"postures\.json"):
        load(path)
