"""Lynis and OpenSCAP: real, prepared and malformed reports."""

import os
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.collectors.tools import lynis_report, xccdf
from device_agent.collectors.tools.lynis import LynisCollector
from device_agent.collectors.tools.openscap import OpenscapCollector
from device_agent.collectors.tools.tool_runner import ToolRunner
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System
from device_agent.settings import ToolSettings
from tests.support.root_folder import put
from tests.support.unprivileged import unprivileged_folder

FOLDER: Final = Path(__file__).parent
BENCHMARK: Final = FOLDER / "openscap" / "benchmark.xml"
PROFILE: Final = "xccdf_org.example.cordon_profile_all"
FAILS: Final = "xccdf_org.example.cordon_rule_fails"
# As Lynis 3.0.8 wrote them on Debian 12.
REPORT: Final = """\
# Lynis Report
report_version_major=1
report_version_minor=0
report_datetime_start={start}
lynis_version=3.0.8
os=Linux
suggestion[]=LYNIS|This release is more than 4 months old. Check the website or GitHub.|-|-|
suggestion[]=BOOT-5264|Consider hardening system services|Run '/usr/bin/systemd-analyze security SERVICE'|-|
suggestion[]=AUTH-9286|Configure minimum password age in /etc/login.defs|-|-|
suggestion[]=AUTH-9286|Configure maximum password age in /etc/login.defs|-|-|
exception_event[]=BOOT-5104:001|Unknown service manager|
manual_event[]=AUTH-9328:03
vulnerable_package[]=openssl
vulnerable_package[]=libssl3
warning[]=PKGS-7392|Found one or more vulnerable packages.|-|-|
lynis_tests_done=238
report_datetime_end={start}
hardening_index=56
tests_executed=HRDN-7231|HRDN-7230|
finish=true
"""


def report_text(days_ago: int = 0) -> str:
    then = datetime.now(UTC).astimezone() - timedelta(days=days_ago, minutes=5)
    return REPORT.format(start=then.strftime("%Y-%m-%d %H:%M:%S"))


def _lynis(root: Path, **settings: Any) -> dict[str, Any]:
    return dict(LynisCollector(ToolSettings.model_validate(settings))(System(root)))


def _sent(name: str, section: dict[str, Any]) -> dict[str, Any]:
    """Returns the section as a report contains it."""
    sent: dict[str, Any] = normalise_findings({name: section}).sections[name]
    return sent


def test_a_lynis_report_is_parsed(tmp_path: Path) -> None:
    put(tmp_path, "/var/log/lynis-report.dat", report_text(days_ago=9))
    section = _sent("lynis", _lynis(tmp_path))
    assert section["state"] == "ok"
    assert (section["version"], section["hardening_index"], section["tests"]) == ("3.0.8", 56, 238)
    assert (section["age_days"], section["complete"], section["damaged_lines"]) == (9, True, 0)
    assert (section["warnings"], section["suggestions"], section["vulnerable_packages"]) == (1, 4, 2)
    assert [(finding["test"], finding["kind"]) for finding in section["findings"]] == [
        ("PKGS-7392", "warning"),
        ("AUTH-9286", "suggestion"),
        ("AUTH-9286", "suggestion"),
        ("BOOT-5264", "suggestion"),
        ("LYNIS", "suggestion"),
    ]
    assert section["findings"][3]["message"].endswith("; Run '/usr/bin/systemd-analyze security SERVICE'")


def test_lynis_is_not_applicable_when_not_installed_and_unknown_without_a_report(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="not installed"):
        _lynis(tmp_path)
    put(tmp_path, "/usr/sbin/lynis", "")
    with pytest.raises(FactsUnavailableError, match="never run"):
        _lynis(tmp_path)
    put(tmp_path, "/srv/own.dat", report_text())
    assert _lynis(tmp_path, lynis_report="/srv/own.dat")["warnings"] == 1


def test_a_truncated_or_malformed_lynis_report_is_incomplete(tmp_path: Path) -> None:
    path = put(tmp_path, "/var/log/lynis-report.dat", report_text()[:-40] + "\nhardening_index=999\n\x00\xff garbage\n")
    section = _sent("lynis", _lynis(tmp_path))
    assert (section["complete"], section["damaged_lines"], section["warnings"]) == (False, 3, 1)
    path.write_bytes(b"GIF89a\x00\x01" * 50)
    with pytest.raises(FactsUnavailableError, match="not a report of Lynis"):
        _lynis(tmp_path)


@pytest.mark.parametrize("damage", ["warning[]=no id\n", "warn\x01ing[]=PKGS-7392|x|\n"])
def test_warnings_of_a_damaged_lynis_report_are_those_that_were_read(tmp_path: Path, damage: str) -> None:
    put(tmp_path, "/var/log/lynis-report.dat", report_text().replace("vulnerable_package[]", "x[]") + damage)
    section = _lynis(tmp_path)
    assert {gap["fact"] for gap in section["gaps"]} == {"findings", "vulnerable_packages"}
    assert any(finding["test"] == "PKGS-7392" for finding in section["partial"]["findings"])


def test_an_overlong_line_is_skipped(tmp_path: Path) -> None:
    put(tmp_path, "/var/log/lynis-report.dat", report_text() + "warning[]=X-1|" + "y" * 200_000 + "\n")
    section = _lynis(tmp_path)
    assert (section["warnings"], section["damaged_lines"]) == (1, 4)


def test_findings_beyond_the_limit_are_dropped_and_counted(tmp_path: Path) -> None:
    many = "".join(f"suggestion[]=T-{number:05}|s|-|-|\n" for number in range(500))
    put(tmp_path, "/var/log/lynis-report.dat", report_text() + many)
    section = _sent("lynis", _lynis(tmp_path))
    assert (section["suggestions"], section["findings"][0]["kind"]) == (504, "warning")
    assert len(section["findings"]) + section["truncated"] == 505


def test_an_unreadable_lynis_report_needs_root() -> None:
    with unprivileged_folder() as folder:
        put(folder, "/var/log/lynis-report.dat", report_text()).chmod(0)
        with pytest.raises(FactsUnavailableError, match="needs root"):
            _lynis(folder)


@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(REPORT.encode().splitlines(keepends=True)))))
def test_any_lynis_report_is_parsed_without_an_error(lines: list[bytes]) -> None:
    report = lynis_report.parse(lines)
    assert 0 <= report.malformed_lines <= report.lines <= len(lines)


# As OpenSCAP 1.3.7 wrote it for benchmark.xml, shortened.
RESULT: Final = f"""<?xml version="1.0" encoding="UTF-8"?>
<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2" id="xccdf_org.example.cordon_benchmark_small" resolved="1">
  <title>A small benchmark</title>
  <Group id="g"><title>Files</title>
    <Rule selected="true" id="{FAILS}" severity="high"><title>A file that nobody
      has is there, &lt;certainly&gt;</title></Rule>
  </Group>
  <TestResult id="t" start-time="2026-11-23T14:07:38+00:00" end-time="2026-11-23T14:07:39+00:00">
    <benchmark href="benchmark.xml" id="xccdf_org.example.cordon_benchmark_small"/>
    <title>OSCAP Scan Result</title>
    <profile idref="{PROFILE}"/>
    <rule-result idref="passes" severity="medium"><result>pass</result></rule-result>
    <rule-result idref="{FAILS}" time="2026-11-23T14:07:38+00:00" severity="high" weight="1.0">
      <result>fail</result><check system="x"><check-content-ref name="n" href="oval.xml"/></check>
    </rule-result>
    <rule-result idref="odd" severity="unknown"><result>unknown</result></rule-result>
    <score system="urn:xccdf:scoring:flat" maximum="7.000000">3</score>
    <score system="urn:xccdf:scoring:default" maximum="100.000000">49.600</score>
  </TestResult>
</Benchmark>
"""
SETTINGS: Final = {"openscap_results": ["/r/*.xml"]}


def _openscap(root: Path, **settings: Any) -> dict[str, Any]:
    return dict(OpenscapCollector(ToolSettings.model_validate({**SETTINGS, **settings}))(System(root)))


def test_an_openscap_result_is_parsed(tmp_path: Path) -> None:
    put(tmp_path, "/r/one.xml", RESULT)
    section = _sent("openscap", _openscap(tmp_path))
    (scan,) = section["scans"]
    assert (scan["benchmark"], scan["profile"]) == ("xccdf_org.example.cordon_benchmark_small", PROFILE)
    assert (scan["score"], scan["complete"]) == (50, True)
    assert scan["results"] == {"pass": 1, "fail": 1, "unknown": 1}
    assert section["rules"] == [
        {"rule": FAILS, "result": "fail", "severity": "high", "title": "A file that nobody has is there, <certainly>"},
        {"rule": "odd", "result": "unknown", "severity": "unknown", "title": ""},
    ]
    assert section["unreadable"] == []


def test_a_truncated_openscap_result_is_incomplete(tmp_path: Path) -> None:
    put(tmp_path, "/r/one.xml", RESULT[: RESULT.index('<rule-result idref="odd"')])
    section = _sent("openscap", _openscap(tmp_path))
    assert (section["scans"][0]["complete"], section["scans"][0]["results"]) == (False, {"pass": 1, "fail": 1})
    assert "malformed XML" in section["unreadable"][0]


def test_rules_of_a_broken_openscap_result_are_those_that_were_read(tmp_path: Path) -> None:
    put(tmp_path, "/r/one.xml", RESULT.replace('<rule-result idref="odd"', '<\x01rule-result idref="odd"'))
    section = _openscap(tmp_path)
    assert [gap["fact"] for gap in section["gaps"]] == ["rules"]
    assert [rule["rule"] for rule in section["partial"]["rules"]] == [FAILS]


ODD: Final = '<rule-result idref="odd" severity="unknown"><result>unknown</result></rule-result>'


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (('severity="unknown"', 'severity="hihg"'), "not a severity: hihg"),
        (('severity="unknown"', 'sevrity="high"'), "not an attribute of a rule's result: sevrity"),
        (("<result>unknown", "<result>fial"), "not a result: fial"),
        (("<result>unknown", "<result>"), "not a result: "),
        (('idref="odd" ', ""), "a result names no rule"),
        (("<result>unknown</result>", ""), "a rule has no result"),
        (("<result>unknown</result>", "<resutl>fail</resutl>"), "a rule has no result"),
        (("rule-result", "rule-resutl"), "not an element of a test result: rule-resutl"),
    ],
)
def test_words_that_xccdf_does_not_have_are_gaps(damage: tuple[str, str], reason: str, tmp_path: Path) -> None:
    put(tmp_path, "/r/one.xml", RESULT.replace(ODD, ODD.replace(*damage)))
    section = _openscap(tmp_path)
    assert [(gap["fact"], gap["reason"]) for gap in section["gaps"]] == [("rules", reason)]
    assert FAILS in [rule["rule"] for rule in section["partial"]["rules"]]


def test_only_the_newest_result_of_a_benchmark_is_reported(tmp_path: Path) -> None:
    collector = OpenscapCollector(ToolSettings.model_validate(SETTINGS))
    put(tmp_path, "/r/old.xml", RESULT)
    first = collector(System(tmp_path))
    newer = RESULT.replace('end-time="2026-11-23', 'end-time="2026-11-24').replace("<result>fail", "<result>fixed")
    put(tmp_path, "/r/new.xml", newer)
    put(tmp_path, "/r/other.xml", "<html/>")
    section = _sent("openscap", dict(collector(System(tmp_path))))
    assert first["scans"][0]["results"]["fail"] == 1
    assert section["scans"][0]["results"] == {"pass": 1, "fixed": 1, "unknown": 1}
    assert section["unreadable"] == [f"{tmp_path}/r/other.xml: no XCCDF result in it"]


def test_xml_entities_are_rejected_before_expansion(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    put(tmp_path, "/r/one.xml", RESULT.replace("?>\n", "?>\n" + bomb, 1).replace("A small", "&b; small"))
    with pytest.raises(FactsUnavailableError, match="document type declaration"):
        _openscap(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<a>" * 1000, "nested deeper"),
        ('<a b="' + "x" * 3_000_000, "a tag longer than"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "malformed XML"),
        ("", "malformed XML"),
    ],
)
def test_expensive_xml_is_rejected(text: str, reason: str) -> None:
    data = text.encode()
    parsed = xccdf.parse(data[at : at + 65536] for at in range(0, max(1, len(data)), 65536))
    assert (parsed.scans, reason in parsed.error) == ([], True), parsed.error


@given(st.integers(0, len(RESULT)), st.integers(0, 40), st.binary(max_size=40), st.integers(1, 4096))
def test_any_openscap_result_is_parsed_without_an_error(at: int, removed: int, inserted: bytes, size: int) -> None:
    data = RESULT.encode()[:at] + inserted + RESULT.encode()[at + removed :]
    parsed = xccdf.parse(data[start : start + size] for start in range(0, len(data), size))
    assert len(parsed.error) < 200
    for scan in parsed.scans:
        assert set(scan.results) <= set(xccdf.RESULTS)


def test_openscap_is_not_applicable_when_not_installed_and_unknown_without_a_result(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError):
        _openscap(tmp_path)
    put(tmp_path, "/usr/bin/oscap", "")
    with pytest.raises(FactsUnavailableError, match="never run"):
        _openscap(tmp_path)


@pytest.mark.skipif(
    shutil.which("lynis") is None or os.geteuid() != 0, reason="lynis is not installed (Debian: lynis), or not root"
)
def test_a_report_of_the_installed_lynis_is_parsed(tmp_path: Path) -> None:
    # As the agent runs it, but without plugins and with four tests only: a full run takes minutes.
    path = tmp_path / "report.dat"
    argv = [*ToolRunner.lynis_command(path), "--tests", "AUTH-9204 AUTH-9283 AUTH-9286 KRNL-5820"]
    argv += ["--plugindir", str(tmp_path)]
    run(argv, seconds=90)
    section = _sent("lynis", dict(LynisCollector(ToolSettings(lynis_report=path))(System())))
    assert (section["complete"], section["tests"], section["age_days"], section["damaged_lines"]) == (True, 4, 0, 0)
    assert section["version"][0].isdigit()
    assert {finding["test"] for finding in section["findings"]} <= {
        "LYNIS",
        "AUTH-9204",
        "AUTH-9283",
        "AUTH-9286",
        "KRNL-5820",
    }
    assert section["warnings"] + section["suggestions"] == len(section["findings"])


@pytest.mark.skipif(shutil.which("oscap") is None, reason="oscap is not installed (Debian: openscap-scanner)")
@pytest.mark.parametrize("option", ["--results", "--results-arf"])
def test_a_result_of_the_installed_openscap_is_parsed(option: str, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    argv = ["oscap", "xccdf", "eval", "--profile", PROFILE, option, str(tmp_path / "r" / "x.xml"), BENCHMARK.name]
    process = subprocess.run(argv, cwd=BENCHMARK.parent, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 2, process.stderr
    section = _sent("openscap", _openscap(tmp_path))
    (scan,) = section["scans"]
    assert (scan["complete"], scan["age_days"], scan["score"]) == (True, 0, 50)
    assert scan["results"] == {"pass": 1, "fail": 1, "notchecked": 1, "notselected": 1}
    assert [(rule["rule"], rule["severity"]) for rule in section["rules"]] == [(FAILS, "high")]


def _until_done(runner: ToolRunner, tool: str) -> None:
    deadline = time.monotonic() + 60
    while runner.status(tool) == "its first run is under way":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(shutil.which("oscap") is None, reason="oscap is not installed (Debian: openscap-scanner)")
def test_the_agent_runs_openscap_where_the_settings_allow_it(tmp_path: Path) -> None:
    settings = ToolSettings(run=("openscap",), openscap_content=BENCHMARK, openscap_profile=PROFILE)
    system = System(is_root_user=True)
    runner = ToolRunner(settings, tmp_path)
    runner.start_if_due("lynis", system)
    assert runner.status("lynis") == ""
    runner.start_if_due("openscap", system)
    _until_done(runner, "openscap")
    assert runner.status("openscap") == ""
    section = OpenscapCollector(settings, runner)(system)
    assert FAILS in [rule["rule"] for rule in section["rules"]]
    assert runner.paths.openscap_results.stat().st_mode & 0o077 == 0


def test_a_tool_that_is_missing_or_needs_root_is_explained(tmp_path: Path) -> None:
    settings = ToolSettings(run=("openscap",), openscap_content=tmp_path / "none.xml")
    runner = ToolRunner(settings, tmp_path)
    runner.start_if_due("openscap", System(is_root_user=False))
    assert runner.status("openscap") == "running it needs root"
    runner.start_if_due("openscap", System(is_root_user=True))
    _until_done(runner, "openscap")
    assert runner.status("openscap").startswith("running it failed: nice ended with status")


def test_a_running_tool_ends_when_the_agent_stops() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(ExecuteError, match="because the agent stops"):
        run(["sleep", "60"], cancelled=stop)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("line", "count", "damaged"),
    [
        ("vulnerable_packages_found=1", 1, 0), ("vulnerable_packages_found=0", 0, 0),
        ("vulnerable_packages_found=1\nvulnerable_package[]=openssl\nvulnerable_package[]=libssl3", 2, 0),
        ("vulnerable_packages_found=x", None, 1),
    ],
)  # fmt: skip
def test_vulnerable_packages_that_lynis_does_not_name(
    line: str, count: int | None, damaged: int, tmp_path: Path
) -> None:
    text = "".join(one for one in report_text().splitlines(keepends=True) if "vulnerable_package[]" not in one)
    put(tmp_path, "/var/log/lynis-report.dat", text.replace("hardening_index", f"{line}\nhardening_index"))
    section = _lynis(tmp_path)
    assert (section.get("vulnerable_packages"), section["damaged_lines"]) == (count, damaged)


BARE: Final = (
    '<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2" id="b">{rule}'
    '<TestResult id="t" end-time="2026-11-29T10:10:00"><profile idref="p"/>'
    '<rule-result idref="a"{severity}><result>fail</result></rule-result></TestResult>{later}</Benchmark>'
)
HIGH_RULE: Final = '<Rule id="a" severity="high"><title>t</title></Rule>'
REFINED: Final = '<Profile id="p"><refine-rule idref="a" severity="high"/></Profile>'


@pytest.mark.parametrize(
    ("rule", "severity", "later", "expected", "reasons"),
    [
        (HIGH_RULE, "", "", "high", []),
        ("", "", HIGH_RULE, "high", []),
        (REFINED + '<Rule id="a" severity="low"/>', "", "", "high", []),
        (REFINED.replace('"p"', '"q"') + '<Rule id="a" severity="low"/>', "", "", "low", []),
        (HIGH_RULE, ' severity="low"', "", "low", []),
        ('<Rule id="a"/>', "", "", "unknown", []),
        ("", "", "", "unknown", ["neither result nor rule has a severity"]),
        ('<Rule id="a" severity="hihg"/>', "", "", "unknown", ["not a severity: hihg"]),
    ],
)
def test_a_result_without_a_severity_has_that_of_its_rule(
    rule: str, severity: str, later: str, expected: str, reasons: list[str], tmp_path: Path
) -> None:
    put(tmp_path, "/r/one.xml", BARE.format(rule=rule, severity=severity, later=later))
    section = _openscap(tmp_path)
    rules = section["partial"]["rules"] if reasons else section["rules"]
    assert [one["severity"] for one in rules] == [expected]
    assert [gap["reason"] for gap in section["gaps"]] == reasons
