"""Each platform's root: what is read of it, and that the shipped packs pass it when healthy and fail it when not."""

import io
import json
from pathlib import Path

import pytest

from device_agent.main import main
from tests.platforms import table
from tests.platforms.judge import judge, scan
from tests.platforms.roots import Platform, make_root, platforms
from tests.support.cli import cordon

SUPPORTED = [pytest.param(one, id=one.key) for one in platforms() if one.is_supported]
RECOGNISED = [pytest.param(one, id=one.key) for one in platforms() if not one.is_supported]
FIRST_CLASS = {
    *("debian-11", "debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "raspios-32", "raspios-64", "alpine"),
    *("openwrt-opkg", "openwrt-apk", "yocto-opkg-systemd", "yocto-rpm-sysv", "yocto-deb-systemd", "buildroot"),
    *("rhel-8", "rhel-9", "centos-stream-9", "fedora", "opensuse"),
}


def test_every_platform_has_a_root() -> None:
    assert {one.key for one in platforms() if one.is_supported} == FIRST_CLASS
    assert {one.key for one in platforms() if not one.is_supported} == {
        *("sle-micro", "rpm-ostree", "distroless", "runit", "s6"),
    }


@pytest.mark.parametrize("platform", [*SUPPORTED, *RECOGNISED])
def test_the_facts_of_a_platform_are_read(platform: Platform) -> None:
    sections = scan(platform, "healthy")
    read = {field: sections[field.partition(".")[0]].get(field.partition(".")[2]) for field in platform.expected}
    assert read == dict(platform.expected)
    for state in ("healthy", "unhealthy"):
        for section in scan(platform, state).values():
            reasons = [section.get("reason", ""), *(gap["reason"] for gap in section.get("gaps", []))]
            assert not any("collector failed" in reason or "outside of it" in reason for reason in reasons), reasons


@pytest.mark.parametrize("platform", SUPPORTED)
def test_no_rule_fails_a_healthy_platform(platform: Platform) -> None:
    results = judge(platform, "healthy")
    failed = {rule for rule, result in results.items() if result.value in {"fail", "error"}}
    assert failed <= {*platform.true_failures, *platform.not_yet}
    assert set(platform.true_failures) <= failed
    assert sum(result.value == "pass" for result in results.values()) >= 30


@pytest.mark.parametrize("platform", SUPPORTED)
def test_every_violated_rule_fails_an_unhealthy_platform(platform: Platform) -> None:
    results = judge(platform, "unhealthy")
    assert len(platform.violations) >= 10
    assert {rule: results[rule].value for rule in platform.violations if rule not in platform.not_yet} == dict.fromkeys(
        (rule for rule in platform.violations if rule not in platform.not_yet), "fail"
    )
    assert "pass" not in {results[rule].value for rule in platform.violations}


@pytest.mark.parametrize("platform", RECOGNISED)
def test_what_is_unknown_of_a_recognised_platform_has_its_reason(platform: Platform) -> None:
    sections = scan(platform, "healthy")
    reasons = [
        reason
        for section in (sections["updates"], sections["services"])
        for reason in (section.get("reason", ""), *(gap["reason"] for gap in section.get("gaps", [])))
    ]
    assert any(platform.reason in reason for reason in reasons), reasons


async def test_an_image_is_judged_by_the_two_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = next(one for one in platforms() if one.key == "debian-12")
    assert main(["report", "--root", str(make_root(platform, tmp_path, "unhealthy").root)]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(capsys.readouterr().out.encode())))
    status, output, _ = await cordon("policy", "explain", "--report", "-", "-o", "json")
    assert status == 0
    results = {item["rule"]: item["result"] for item in json.loads(output)["items"]}
    assert results["starter/no-telnet-service"] == "fail"
    assert results["starter/firewall-active"] == "unknown"


def test_the_page_of_platforms_is_up_to_date() -> None:
    assert table.PAGE.read_text() == table.render(), "run python -m tests.platforms.table"
