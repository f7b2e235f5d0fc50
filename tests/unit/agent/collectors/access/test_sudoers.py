"""Who becomes root by sudo without a password: includes, quotes, numbers, what is not understood."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.access import sudoers
from device_agent.collectors.access.sudoers_grammar import read_lines
from device_agent.host.reading import GapRecorder, Reading, ReadingGap
from device_agent.host.system import System
from tests.support.root_folder import put, put_all

PI = "pi ALL=(ALL) NOPASSWD: ALL\n"


def read(root: Path) -> Reading[list[str]]:
    return sudoers.users_without_password(System(root, is_root_user=True))


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"/etc/sudoers": "#1000 ALL=(ALL) NOPASSWD: ALL\n"}, ["#1000"]),
        ({"/etc/sudoers": "@include sudoers.local\n", "/etc/sudoers.local": PI}, ["pi"]),
        ({"/etc/sudoers": '@include "/etc/sudoers.local"\n', "/etc/sudoers.local": PI}, ["pi"]),
        ({"/etc/sudoers": "#include /etc/a\\ b\n", "/etc/a b": PI}, ["pi"]),
        ({"/usr/etc/sudoers": "@includedir /etc/sudoers.d\n", "/etc/sudoers.d/pi": PI}, ["pi"]),
        ({"/etc/sudoers": "", "/usr/etc/sudoers": PI}, []),
        ({"/etc/sudoers": "User_Alias OPS = ada, %adm : B = #7\nOPS, B\tALL = NOPASSWD:ALL\n"}, ["#7", "%adm", "ada"]),
        ({"/etc/sudoers": '"ada lo", x\\,y ALL = PASSWD: /bin/a, NOPASSWD: /bin/b\n'}, ["ada lo", "x,y"]),
        ({"/etc/sudoers": "pi ALL = /bin/a : host2 = NOPASSWD: /bin/b\n"}, ["pi"]),
        ({"/etc/sudoers": "Defaults exempt_group = admin\nDefaults:ada !authenticate\n"}, ["%admin", "Defaults:ada"]),
        ({"/etc/sudoers": "Defaults !authenticate\nDefaults authenticate\n"}, []),
        ({"/etc/sudoers": 'Defaults badpass_message="use !authenticate"\n'}, []),
        ({"/etc/sudoers": "ada ALL=(ALL) ALL # NOPASSWD: ALL\n#includes are comments\n"}, []),
    ],
)
@pytest.mark.parametrize("has_program", [True, False])
def test_what_sudo_reads(
    files: dict[str, str], names: list[str], *, has_program: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_program:
        monkeypatch.setattr("shutil.which", lambda _name: None)
    assert read(put_all(tmp_path, files)) == Reading(names)


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        (
            "@include /etc/sudoers.%h\n",
            ReadingGap("the name of the included file depends on the host", "/etc/sudoers:1"),
        ),
        ("\n@include /etc/none\n", ReadingGap("the included file is missing", "/etc/none")),
        ('@include "/etc/x\n', ReadingGap("the include is not understood", "/etc/sudoers:1")),
        ("@include /etc/sudoers\n", ReadingGap("too many files or bytes are included", "/etc/sudoers")),
    ],
)
def test_what_is_not_understood_is_a_gap(text: str, gap: ReadingGap, tmp_path: Path) -> None:
    put(tmp_path, "/etc/sudoers", PI + text)
    reading = read(tmp_path)
    assert reading.value == ["pi"]
    assert {gap.reason for gap in reading.gaps} == {gap.reason}


@pytest.mark.parametrize(
    "line",
    [
        "ada ALL=(ALL) NOPASSWORD: ALL", "ada and more", "ada ALL=(ALL) ls", "ada ALL=(ALL) FOO ALL",
        "ada ALL=(ALL) nopasswd: ALL", "ada ALL=(ALL) ALL, NOPASSWD:", "ada ALL=(ALL NOPASSWD: ALL",
        "ada ALL=(ALL) NOPASSWD ALL", "ada ALL=(ALL) NO PASSWD: ALL", "Defaults ?authenticate", "Defaults",
        "DefaultsX !authenticate", "User_Alias OPS ada", "ada, ALL=(ALL) ALL", "ada ALL ALL",
        'ada ALL=(ALL) "NOPASSWD: ALL',
    ],
)  # fmt: skip
@pytest.mark.parametrize("has_program", [True, False])
def test_a_line_that_sudo_refuses_is_a_gap(
    line: str, *, has_program: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_program:
        monkeypatch.setattr("shutil.which", lambda _name: None)
    elif shutil.which("cvtsudoers") is None:
        pytest.skip("cvtsudoers is not installed")
    put(tmp_path, "/etc/sudoers", f"{PI}\n{line}\n")
    reading = read(tmp_path)
    assert reading.value == ["pi"]
    assert {gap.source for gap in reading.gaps} == {"/etc/sudoers:3"}


def test_a_defaults_option_that_sudo_ignores_is_no_gap(tmp_path: Path) -> None:
    assert read(put_all(tmp_path, {"/etc/sudoers": f"Defaults of_a_later_version\n{PI}"})) == Reading(["pi"])


@pytest.mark.parametrize("has_program", [True, False])
def test_a_name_in_capitals_that_is_no_alias_is_a_user(
    *, has_program: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_program:
        monkeypatch.setattr("shutil.which", lambda _name: None)
    files = {"/etc/sudoers": "User_Alias OPS = ada, OTHERS\nADMIN, OPS ALL=(ALL) NOPASSWD: ALL\n"}
    assert read(put_all(tmp_path, files)) == Reading(["ADMIN", "OTHERS", "ada"])


def test_a_long_list_is_read_in_linear_time() -> None:
    gaps = GapRecorder()
    assert read_lines([("/etc/sudoers:1", '"a"' + ', "b"' * 20_000)], gaps) == set()
    assert gaps.gaps


LINES = st.sampled_from(
    [
        PI.strip(), "ada ALL=(ALL) ALL", "# text", "Defaults env_reset", "%wheel ALL=NOPASSWD: ALL",
        "@include /etc/other", "User_Alias OPS = ada", "OPS ALL = NOPASSWD: ALL", "#1000 ALL=NOPASSWD:ALL",
        "Defaults !authenticate",
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=6), st.data())
def test_a_damaged_line_never_hides_what_another_line_allows(lines: list[str], data: st.DataObject) -> None:
    """A line with other characters either is read as sudo would read it, or is a gap; other lines are not affected."""
    damaged = data.draw(st.lists(st.text('aALN=:()#,\\" \t', max_size=12), min_size=1, max_size=3))
    at = data.draw(st.integers(0, len(lines)))
    before = _names(lines)[0]
    after, gaps = _names([*lines[:at], *[text.rstrip("\\") + "x" for text in damaged], *lines[at:]])
    assert before <= after or gaps


def _names(lines: list[str]) -> tuple[set[str], bool]:
    gaps = GapRecorder()
    numbered = [(str(number), line) for number, line in sudoers._logical_lines("\n".join(lines))]
    return read_lines(numbered, gaps), bool(gaps.gaps)
