"""Policy files: everything wrong is told at once, each at its place; nothing empty passes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.adapters.policies.loader import MAX_FILE_BYTES, MAX_FILES, load_policies, parse_policy
from controller.adapters.policies.models import MAX_RULES
from controller.domain.policy.findings import Severity
from controller.domain.policy.model import ContainmentLevel, Policy, Remedy, RuleResponse
from controller.ports.policies import PolicyError
from tests.support.playbook import language

BASELINE = """\
policy: baseline
version: 3
title: What every device keeps
applies_to: 'device.class != "lab"'
rules:
  - id: no-telnet
    title: Telnet is not offered
    why: It carries passwords in clear text.
    check: '!listening_ports.exists(p, p == 23)'
    severity: high
    on_fail:
      contain: restricted
      remediate: {action: service.disable, params: {name: telnetd}}
    references: ["ETSI EN 303 645:5.6-1"]
  - id: openssl-current
    title: OpenSSL is not older than the fixed package
    check: '!older(openssl_package_version, "3.0.17-1~deb12u2", "deb")'
    applies_if: 'os_id == "debian" && os_version == "12"'
    severity: high
    fix: Upgrade it.
    on_fail: {after: {consecutive: 2, grace: 10m}, contain: isolated, for: 2h}
"""
SMALL = "policy: {name}\nversion: 1\ntitle: t\nrules:\n  - {{id: a, title: t, severity: low, check: firewall_active}}\n"


def small(name: str = "small") -> str:
    return SMALL.format(name=name)


def parse(text: str) -> Policy:
    return parse_policy(text, "p.yaml", language())


def wrong(text: str) -> list[str]:
    """Each problem without its excerpt."""
    with pytest.raises(PolicyError) as caught:
        parse(text)
    return [str(problem).split("\n")[0].removeprefix("p.yaml:") for problem in caught.value.problems]


def with_rule(*lines: str) -> str:
    """A policy whose one rule has these further lines, from line 8 on."""
    head = "policy: p\nversion: 1\ntitle: t\nrules:\n  - id: a\n    title: t\n    severity: low\n"
    return head + "".join(f"    {line}\n" for line in lines)


def test_the_whole_shape() -> None:
    policy = parse(BASELINE)
    assert (policy.name, policy.version, policy.title, policy.source) == (
        "baseline",
        3,
        "What every device keeps",
        "p.yaml",
    )
    assert policy.applies_to is not None
    assert policy.applies_to.uses == {"device.class"}
    telnet, openssl = policy.rules
    assert telnet.key == "baseline/no-telnet"
    assert telnet.response == RuleResponse(
        ContainmentLevel.RESTRICTED, Remedy("service.disable", (("name", "telnetd"),))
    )
    assert (telnet.why, telnet.severity, telnet.references) == (
        "It carries passwords in clear text.",
        Severity.HIGH,
        ("ETSI EN 303 645:5.6-1",),
    )
    assert openssl.applies_if is not None
    assert openssl.response == RuleResponse(ContainmentLevel.ISOLATED, None, 2, 600.0, 7200.0)
    assert openssl.fix == "Upgrade it."


def test_a_mistyped_fact_is_shown_with_its_place_and_a_guess() -> None:
    with pytest.raises(PolicyError) as caught:
        parse(BASELINE.replace("listening_ports", "listening_prots"))
    assert str(caught.value) == (
        "p.yaml:9:14: rule no-telnet: undeclared reference to 'listening_prots': did you mean 'listening_ports'?\n"
        "     check: '!listening_prots.exists(p, p == 23)'\n"
        "              ^"
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["check: on_no"],
        ["check: 'on_no'"],
        ['check: "on_no"'],
        ["check: 'os_id == ''it'' && on_no'"],
        ['check: "os_id == \\"\\u00e4\\x41\\" && on_no"'],
        ["check: os_id == 'a' &&", "  on_no"],
        ["check: 'os_id == ''a'' &&", "", "  on_no'"],
        ["check: \"os_id == 'a' \\", '  && on_no"'],
        ["check: |", "  os_id == 'a' &&", "    on_no"],
        ["check: >-", "  os_id == 'a' &&", "", "  on_no"],
        ["check: >2-", "      on_no"],
        ["check: |  # why", "  on_no"],
        ["check: 'os_id == \"ä😀\" && on_no'"],
    ],
)
def test_the_place_of_an_error_in_every_style_of_writing(lines: list[str]) -> None:
    text = with_rule(*lines)
    before = text[: text.index("on_no")].split("\n")
    place = f"{len(before)}:{len(before[-1]) + 1}"
    assert wrong(text) == [f"{place}: rule a: undeclared reference to 'on_no'"]


def test_an_expression_that_ends_too_early_points_behind_its_end() -> None:
    assert wrong(with_rule("check: 'true &&'")) == ["8:20: rule a: the expression ends too early"]


def test_two_errors_in_one_expression_are_both_told() -> None:
    assert wrong(with_rule("check: 'x_1 && y_2'")) == [
        "8:13: rule a: undeclared reference to 'x_1'",
        "8:20: rule a: undeclared reference to 'y_2'",
    ]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("older(os_id, os_id)", "older() takes three texts: older(version, other version, scheme)"),
        ("older(os_id, 1, 'deb')", "older() takes three texts"),
        (
            "older(os_id, os_id, 'debian')",
            "unknown version scheme 'debian', one of deb, rpm, apk, opkg, semver, kernel",
        ),
        ("listening_ports", "an expression has the type bool, this one has LIST<INT>"),
        ("os_id < 3", "found no matching overload for '_<_'"),
    ],
)
def test_what_an_expression_gets_wrong(check: str, message: str) -> None:
    (problem,) = wrong(with_rule(f'check: "{check}"'))
    assert message in problem


def test_a_check_that_yaml_takes_for_a_tag() -> None:
    assert wrong(with_rule("check: !firewall_active")) == [
        "8:12: YAML takes text that starts with '!' for a tag: put the expression in quotes"
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["chek: 'true'"], "8:5: rule a: unknown key 'chek': did you mean 'check'?"),
        (["check: 5"], "8:12: rule a: check: has to be text"),
        (["check: 'true'", "severity: high"], "9:5: 'severity' is a duplicate: first in line 7"),
        (["check: 'true'", "applies_if: no_such"], "9:17: rule a: undeclared reference to 'no_such'"),
        (
            ["check: 'true'", "on_fail: {contain: restricted, for: 1h}"],
            "9:36: rule a: 'for' belongs to 'contain: isolated': only an isolation ends by time",
        ),
        (
            ["check: 'true'", "on_fail: {contain: isolated, for: 0s}"],
            "9:34: rule a: 'for' has to be longer than nothing",
        ),
        (
            ["check: 'true'", "on_fail: {contain: isolate}"],
            "or 'isolated': did you mean 'isolated'?",
        ),
        (
            ["check: 'true'", "on_fail: {after: {grace: 10 minutes}}"],
            "9:30: rule a: on_fail.after.grace: '10 minutes' is not a duration: write a number and s, m, h or d",
        ),
        (
            ["check: 'true'", "on_fail: {after: {consecutiv: 2}}"],
            "9:23: rule a: unknown key 'consecutiv': did you mean 'consecutive'?",
        ),
        (
            ["check: 'true'", "on_fail: {remediate: {action: Service}}"],
            "9:35: rule a: on_fail.remediate.action: 'Service' is no action: lower case words with dots between",
        ),
        (
            ["check: 'true'", "on_fail: {remediate: {action: a, params: {name: [1]}}}"],
            "9:53: rule a: on_fail.remediate.params.name: has to be text, a whole number, true or false",
        ),
        (["check: 'true'", "references: x"], "9:17: rule a: references: has to be a list"),
        (["check: 'true'", "fix: 2026-01-01"], "9:10: YAML takes this for a timestamp: put it in quotes"),
        (["check: 'true'", "on_fail: restrict"], "9:14: rule a: on_fail: has to be a mapping"),
    ],
)
def test_what_a_rule_gets_wrong(lines: list[str], problem: str) -> None:
    assert any(problem in one for one in wrong(with_rule(*lines)))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", [" the file is empty: it would pass every device"]),
        ("# only a comment\n", [" the file is empty: it would pass every device"]),
        ("~", [" the file is empty: it would pass every device"]),
        ("- a", ["1:1: a policy has to be a mapping"]),
        (
            "policy: p\nversion: 1\ntitle: t\nrules: []\n",
            ["4:8: a policy without rules would pass every device"],
        ),
        ("policy: p\nversion: 1\ntitle: t\n", ["1:1: 'rules' is missing"]),
        (
            small("A B"),
            ["1:9: policy: 'A B' is no id: lower case letters, digits"],
        ),
        (small().replace("version: 1", "version: one"), ["2:10: version: has to be a whole number"]),
        (small().replace("version: 1", "version: !!int one"), ["2:10: cannot be read: invalid literal for int()"]),
        (small() + "---\n" + small(), ["6:1: not YAML: expected a single document"]),
        ("a: b: c", ["1:5: not YAML: mapping values are not allowed here"]),
        ("a: \x01", ["1:4: not text: special characters are not allowed (U+0001)"]),
        ("? [a]\n: 1\n", ["1:3: a key has to be text"]),
        ("a: !!python/object:os.system {}\n", ["1:4: unknown YAML tag 'python/object:os.system'"]),
        ("a: *nowhere\n", ["1:4: not YAML: found undefined alias"]),
    ],
)
def test_what_a_file_gets_wrong(text: str, problems: list[str]) -> None:
    told = wrong(text)
    for problem in problems:
        assert any(one.startswith(problem) for one in told), told


def test_an_id_that_stands_twice() -> None:
    again = small() + "  - {id: a, title: t, severity: low, check: firewall_active}\n"
    assert wrong(again) == ["6:10: rule 'a' is a duplicate: first in line 5"]


def test_everything_wrong_is_told_at_once_in_the_order_of_lines() -> None:
    told = wrong(
        BASELINE.replace("listening_ports", "x_1").replace("os_version", "x_2").replace("title: Te", "titel: Te")
    )
    assert [one.split(":")[0] for one in told] == ["6", "7", "9", "18"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: " + "[" * 40 + "]" * 40, "nested more than 16 levels deep"),
        ("&a [*a]", "nested more than 16 levels deep"),
        ("a: [" + "1," * 30_000 + "]", "more than 20000 keys and values"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            "more than 20000 keys and values",
        ),
        ("#" * (MAX_FILE_BYTES + 1), f"larger than {MAX_FILE_BYTES} bytes"),
    ],
    ids=["deep", "in itself", "wide", "billion laughs", "large"],
)
def test_no_file_exhausts_the_controller(text: str, problem: str) -> None:
    (told,) = wrong(text)
    assert problem in told


def test_an_alias_is_read_like_what_it_names() -> None:
    policy = parse(
        "policy: p\nversion: 1\ntitle: &t same\nrules:\n  - {id: a, title: *t, severity: low, check: firewall_active}\n"
    )
    assert policy.rules[0].title == "same"


def test_a_long_line_is_shown_around_the_place() -> None:
    with pytest.raises(PolicyError) as caught:
        parse(with_rule("check: '" + "firewall_active && " * 40 + "on_no'"))
    (problem,) = caught.value.problems
    assert len(problem.excerpt) <= 160
    assert problem.excerpt[problem.caret - 1 :].startswith("on_no")


def test_lines_of_another_system_count_the_same() -> None:
    assert wrong(with_rule("check: on_no").replace("\n", "\r\n")) == ["8:12: rule a: undeclared reference to 'on_no'"]


def test_a_folder_is_read_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(small("second"))
    (tmp_path / "a.yml").write_text("\ufeff" + small("first"))
    (tmp_path / "notes.txt").write_text("not a policy")
    found = load_policies([tmp_path, tmp_path / "a.yml"], language())
    assert [policy.name for policy in found.policies] == ["first", "second"]
    assert set(found.rules) == {"first/a", "second/a"}


def test_the_version_names_the_contents_and_nothing_else(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "x.yaml").write_text(small())
    first = load_policies([one], language()).version
    assert len(first) == 12
    assert load_policies([other / "x.yaml"], language()).version == first
    (other / "x.yaml").write_text(small().replace("title: t", "title: u"))
    assert load_policies([other], language()).version != first


def param_problems(*paths: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_policies(paths, language())
    return [str(problem).split("\n")[0] for problem in caught.value.problems]


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(small(name).replace("firewall_active", "fire"))
    (tmp_path / "c.yaml").write_bytes(b"policy: p\ntitle: \xff\n")
    told = param_problems(tmp_path, tmp_path / "missing.yaml")
    assert f"{tmp_path}/c.yaml:2:1: not UTF-8 text" in told
    assert f"{tmp_path}/missing.yaml: cannot be read: No such file or directory" in told
    assert sum("undeclared reference to 'fire'" in one for one in told) == 2


def test_nothing_to_judge_by_is_an_error(tmp_path: Path) -> None:
    assert param_problems(tmp_path) == [
        f"{tmp_path}: no *.yaml in this folder: judging by nothing would pass every device"
    ]
    assert param_problems() == ["policies: no file is given: judging by nothing would pass every device"]


def test_a_name_belongs_to_one_policy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(small())
    assert param_problems(tmp_path) == [f"{tmp_path}/b.yaml:1:9: policy 'small' is in {tmp_path}/a.yaml already"]


def test_files_and_rules_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("#" * (MAX_FILE_BYTES + 1))
    assert param_problems(tmp_path) == [f"{tmp_path}/large.yaml: larger than {MAX_FILE_BYTES} bytes"]
    for number in range(MAX_FILES):
        (tmp_path / f"p{number}.yaml").write_text(small(f"p{number}"))
    assert any(f"too many policy files: {MAX_FILES + 1} > {MAX_FILES}" in one for one in param_problems(tmp_path))


def test_rules_of_all_files_are_counted_together(tmp_path: Path) -> None:
    half = MAX_RULES // 2 + 1
    for name in ("a", "b"):
        rules = "".join(f"- {{id: r{n}, title: t, severity: low, check: 'true'}}\n" for n in range(half))
        (tmp_path / f"{name}.yaml").write_text(f"policy: {name}\nversion: 1\ntitle: t\nrules:\n{rules}")
    assert param_problems(tmp_path) == [f"{tmp_path}/b.yaml:5:1: more than {MAX_RULES} rules in all files together"]


def _broken_link(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_broken_link, _link_to_itself, _folder, _pipe])
@pytest.mark.parametrize("name", ["b.yaml", "b.yml"])
def test_policy_file_that_cannot_be_read_is_an_error(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    (tmp_path / "a.yaml").write_text(small())
    make(tmp_path / name)
    with pytest.raises(PolicyError) as caught:
        load_policies([tmp_path], language())
    (problem,) = caught.value.problems
    assert problem.source == str(tmp_path / name)
    with pytest.raises(PolicyError):
        load_policies([tmp_path / name], language())


def test_link_to_a_policy_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text(small())
    (tmp_path / "a.yaml").symlink_to("kept/a")
    assert len(load_policies([tmp_path], language()).policies) == 1


def test_files_of_editors_are_no_policies(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(small())
    (tmp_path / ".#a.yaml").symlink_to("ada@host.1234")
    (tmp_path / ".b.yaml").write_text("not a policy")
    assert len(load_policies([tmp_path], language()).policies) == 1


@pytest.mark.parametrize("number", ["1" + ":1" * 250_000, "1:30:00", "1:30.5", "9" * 100_000, "0x" + "f" * 100_000])
def test_numbers_to_the_base_60_and_endless_ones_are_refused(number: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(small().replace("version: 1", f"version: {number}"))
    assert any("put it in quotes" in problem for problem in param_problems(tmp_path))
