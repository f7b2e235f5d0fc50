"""What is added to a file, garbled or removed never makes a rule pass for a finding that is still there."""

import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult
from device_agent.collectors.base import unavailable
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from device_agent.intrusion.alert_records import AlertParser
from schemas.posture import ReportSections
from tests.property.readers import FINDINGS, OUTPUTS, Finding
from tests.support.packs import GOOD_DEVICE, load_pack
from tests.support.playbook import language
from tests.support.root_folder import put_all

pytestmark = pytest.mark.slow

QUICK: Final = settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
LONG: Final = settings(QUICK, max_examples=100)
# No comment, quote, bracket or continuation: these may take the lines behind them away, also for a correct reader.
NOISE: Final = st.text(alphabet="abcXYZ019 =:.,-_@%+()<>|&^~\t\x01\xa7", min_size=1, max_size=30)
GARBAGE: Final = st.sampled_from(["\x01", "\xa7", "?\x01?"])
STRICT: Final = sorted(name for name, finding in FINDINGS.items() if finding.is_strict)


def result_of(finding: Finding, files: dict[str, str]) -> RuleResult:
    """Returns what the finding's rule says about a device with these files."""
    with tempfile.TemporaryDirectory() as folder:
        put_all(Path(folder), files)
        try:
            section = dict(finding.collect(System(Path(folder), is_root_user=True)))
        except FactsUnavailableError as e:
            section = dict(unavailable("unknown", str(e)))
        except NotApplicableError as e:
            section = dict(unavailable("notapplicable", str(e)))
    sent = normalise_findings({finding.section: section}).sections
    facts = gather_facts(ReportSections.model_validate({**GOOD_DEVICE, **sent}), "d", "", ())
    pack, _, rule = finding.rule.partition("/")
    results = evaluate_policies(load_pack(pack), language(), facts)
    return next(one.result for one in results if one.rule.partition("/")[2] == rule)


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_fails_and_passes_without_it(name: str) -> None:
    finding = FINDINGS[name]
    assert result_of(finding, finding.files()) is RuleResult.FAIL
    if name != "keys":
        assert result_of(finding, finding.files(finding.sound)) is RuleResult.PASS


def add_lines(finding: Finding, data: st.DataObject) -> None:
    first, *rest = finding.files()[finding.file].splitlines()
    added = data.draw(st.lists(st.tuples(st.integers(0, len(rest)), NOISE), min_size=1, max_size=4))
    for at, text in sorted(added, reverse=True):
        rest.insert(at, text)
    changed = "\n".join([first, *rest])
    assert result_of(finding, {**finding.files(), finding.file: changed}) is not RuleResult.PASS


def garble(finding: Finding, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(finding.line) - 1))
    length = data.draw(st.integers(0, 3))
    line = finding.line[:at] + data.draw(GARBAGE) + finding.line[at + length :]
    assert result_of(finding, finding.files(line)) is not RuleResult.PASS


@pytest.mark.parametrize("name", FINDINGS)
@QUICK
@given(data=st.data())
def test_added_lines_hide_no_finding(name: str, data: st.DataObject) -> None:
    add_lines(FINDINGS[name], data)


@pytest.mark.parametrize("name", STRICT)
@QUICK
@given(data=st.data())
def test_a_garbled_finding_does_not_pass(name: str, data: st.DataObject) -> None:
    garble(FINDINGS[name], data)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FINDINGS)
@LONG
@given(data=st.data())
def test_neither_hides_a_finding_in_a_long_run(name: str, data: st.DataObject) -> None:
    add_lines(FINDINGS[name], data)
    if name in STRICT:
        garble(FINDINGS[name], data)


@pytest.mark.parametrize("name", OUTPUTS)
@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_what_a_program_prints_is_seen_or_refused(name: str, data: st.DataObject) -> None:
    output = OUTPUTS[name]
    assert output.is_seen(output.text)
    lines = output.text.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    change = data.draw(st.sampled_from(output.changes))
    if change == "add":
        lines.insert(at, data.draw(NOISE))
    elif change == "remove":
        del lines[at]
    elif lines[at]:
        place = data.draw(st.integers(0, len(lines[at]) - 1))
        lines[at] = lines[at][:place] + data.draw(GARBAGE) + lines[at][place + 1 :]
    assert output.is_seen("\n".join(lines) + "\n")


APART: Final = ("shadow", "passwd", "sudoers", "failed logins", "inetd", "sockets", "apt", "rsyslog.conf")


@pytest.mark.parametrize("name", APART)
@QUICK
@given(data=st.data())
def test_a_garbled_other_line_hides_no_finding(name: str, data: st.DataObject) -> None:
    """Each line of these files stands for itself."""
    finding = FINDINGS[name]
    before, _, after = finding.text.partition("{line}")
    other = data.draw(st.sampled_from(["guest:!:19000:0:99999:7:::", "23 stream tcp nowait root a b", finding.line]))
    place = data.draw(st.integers(0, len(other) - 1))
    garbled = other[:place] + data.draw(GARBAGE) + other[place + 1 :]
    text = f"{before}{garbled}\n{finding.line}\n{garbled}{after}\n"
    assert result_of(finding, {**finding.files(), finding.file: text}) is not RuleResult.PASS


ALERTS: Final = {
    "snort": "[**] [1:7:2] text [**]\n[Priority: 1]\n11/29-23:14:07.4 192.0.2.44:5 -> 192.0.2.7:80\n\n",
    "ossec": "** Alert 1510376401.7: - syslog,\n2017 Nov 11 00:00:01 a->/b\nRule: 5 (level 13) -> 'text'\nx\n\n",
    "suricata": '{"event_type":"alert","src_ip":"192.0.2.7","alert":{"signature_id":7,"signature":"x","severity":1}}\n',
}


@pytest.mark.parametrize("monitor", ALERTS)
@settings(QUICK, max_examples=100)
@given(data=st.data())
def test_a_severe_alert_is_reported_or_counted_as_not_understood(monitor: str, data: st.DataObject) -> None:
    lines = ALERTS[monitor].splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    change = data.draw(st.sampled_from(["add", "garble", "remove"]))
    place = data.draw(st.integers(0, max(0, len(lines[at]) - 1)))
    if change == "add":
        lines.insert(at, data.draw(NOISE))
    elif change == "remove" and len(lines) > 1:
        del lines[at]
    else:
        lines[at] = lines[at][:place] + "\x01" + lines[at][place + 1 :]
    parser = AlertParser(monitor)
    alerts = [alert for line in lines for alert in parser.feed(line.encode())] + parser.flush()
    assert parser.malformed or any(alert.severity == "high" for alert in alerts)
