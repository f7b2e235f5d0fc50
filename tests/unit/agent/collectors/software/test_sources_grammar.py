"""Package sources in the grammar of their program: what a reader misses would pass, so it is found or a gap."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_agent.collectors.software import sources, sources_rpm
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put, put_all

STATUS = {"/etc/os-release": "ID=debian\n", "/var/lib/dpkg/status": ""}
LIST, PART = "/etc/apt/sources.list", "/etc/apt/sources.list.d/a.sources"
STANZA = "Types: deb\nURIs: https://x.example/\nSuites: stable\nComponents: main\n"
HTTPS = "deb https://deb.example.org/debian bookworm main\n"


def collect(root: Path, files: dict[str, str]) -> dict[str, Any]:
    return sources.collect(System(put_all(root, files)))


def rows(section: dict[str, Any]) -> list[tuple[Any, ...]]:
    entries = section["entries"] or section.get("partial", {}).get("entries", [])
    return [
        (entry["url"], entry["transport"], entry["signed"], entry["flags"]) for entry in entries if entry["enabled"]
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deb [trusted=yes] http://[2001:db8::10]:8080/x ./\n", ("http", False)),
        ("deb http://[2001:db8::10]/x bookworm main\n", ("http", True)),
        ("deb [arch=amd64 trusted=1] http://x.example a/\n", ("http", False)),
        ('deb [ trusted="yes" ] http://x.example bookworm main # why\n', ("http", False)),
        ("\tdeb\t[allow-insecure=YES]\thttps://x.example bookworm main\n", ("https", False)),
        ("deb mirror+http://x.example/list bookworm main\n", ("http", True)),
        ("deb mirror://x.example/list bookworm main\n", ("http", True)),
        ("deb mirror+file:/etc/apt/mirrors bookworm main\n", ("http", True)),
        ("deb tor+http://x.example/ bookworm main\n", ("http", True)),
        ("deb tor+http://abc.onion/ bookworm main\n", ("tor", True)),
        (STANZA, ("https", True)),
        (STANZA + "Trusted: YES\n", ("https", False)),
        ("TYPES: deb\nuris:\n http://[::1]/\nSuites: ./\ntrusted: on\n", ("http", False)),
        (STANZA + "Enabled: maybe\n", ("https", True)),
    ],
)
def test_sources_of_apt(tmp_path: Path, text: str, expected: tuple[str, bool]) -> None:
    mirrors = "https://a.example/\tpriority:1\nhttp://b.example/\n"
    file = PART if "\nSuites" in text else LIST
    section = collect(tmp_path, {**STATUS, file: text, "/etc/apt/mirrors": mirrors})
    assert [(transport, signed) for _, transport, signed, _ in rows(section)] == [expected]
    assert gap_texts(section) == []


@pytest.mark.parametrize("word", ["no", "NO", "0", "off", "false", "without", "disable"])
def test_a_disabled_stanza_is_no_source(tmp_path: Path, word: str) -> None:
    assert rows(collect(tmp_path, {**STATUS, PART: f"{STANZA}Enabled: {word}\n"})) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (LIST, "deb [trusted=yes http://x.example bookworm main\n"),
        (LIST, "deb [trusted] http://x.example bookworm main\n"),
        (LIST, "deb http://x.example bookworm\n"),
        (LIST, "deb http://x.example ./ main\n"),
        (LIST, "deb no-address bookworm main\n"),
        (LIST, 'deb "http://x.example bookworm main\n'),
        (LIST, "rpm http://x.example bookworm main\n"),
        (LIST, "deb mirror+file:/etc/absent bookworm main\n"),
        (LIST, "deb mirror+https://x.example/list bookworm main\n"),
        (PART, STANZA.replace("Types: deb\n", "")),
        (PART, STANZA.replace("Suites:", "Suite:")),
        (PART, STANZA.replace("URIs: https:", "URIs: https")),
        (PART, STANZA + "URIs: http://y.example\n"),
        (PART, STANZA + "Trusted yes\n"),
        (PART, " Trusted: yes\n" + STANZA),
    ],
)
def test_a_source_of_apt_that_is_not_understood_is_a_gap(tmp_path: Path, file: str, text: str) -> None:
    section = collect(tmp_path, {**STATUS, LIST: HTTPS, file: text})
    assert any(gap.startswith("entries: ") for gap in gap_texts(section)), section
    assert "entries" not in section


@pytest.mark.parametrize(
    ("conf", "is_weak"),
    [
        ('Acquire::https::Verify-Peer "false";', True),
        ('acquire::HTTPS::verify-peer "No";', True),
        ('Acquire::https::deb.example.org::Verify-Host "false";', True),
        ("Acquire { https { Verify-Peer 0; }; };", True),
        ('Acquire::http::Verify-Peer "off";', True),
        ('Acquire::Check-Valid-Until "false";', True),
        ('Acquire::AllowWeakRepositories "true";', True),
        ('Acquire::AllowDowngradeToInsecureRepositories "1";', True),
        ('Acquire::https::other.example.org::Verify-Peer "false";', False),
        ('Acquire::https::Verify-Peer "true";', False),
        ('Acquire::https::Verify-Peer "maybe";', False),
        ('// Acquire::https::Verify-Peer "false";', False),
        ('Acquire::https::Verify-Peer "false";\n#clear Acquire::https;', False),
        ('Acquire::https::Verify-Peer "false";\nAcquire::https::Verify-Peer "true";', False),
    ],
)
def test_settings_of_apt_that_weaken_a_source(tmp_path: Path, conf: str, is_weak: bool) -> None:
    section = collect(tmp_path, {**STATUS, LIST: HTTPS, "/etc/apt/apt.conf.d/99x": conf})
    assert [bool(flags) for *_, flags in rows(section)] == [is_weak]
    assert gap_texts(section) == []


RPM = {"/etc/os-release": "ID=fedora\n", "/usr/lib/sysimage/rpm/rpmdb.sqlite": "x"}
REPO = "[x]\nname=x\nbaseurl=https://x.example/\ngpgcheck=1\n"
REPOS, CONF, OVERRIDE = "/etc/yum.repos.d/x.repo", "/etc/dnf/dnf.conf", "/etc/dnf/repos.override.d/99.repo"
NO_CHECK = ["gpgcheck=0"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({REPOS: REPO}, ("https", True, [])),
        ({REPOS: REPO, OVERRIDE: "[x]\ngpgcheck=0\nsslverify=0\n"}, ("https", False, ["gpgcheck=0", "sslverify=0"])),
        ({REPOS: REPO, OVERRIDE: "[*]\nsslverify=False\n"}, ("https", True, ["sslverify=0"])),
        ({REPOS: REPO, OVERRIDE: "[y*]\ngpgcheck=0\n"}, ("https", True, [])),
        ({REPOS: REPO, "/usr/share/dnf5/repos.override.d/9.repo": "[x]\npkg_gpgcheck=0\n"}, ("https", False, NO_CHECK)),
        (
            {REPOS: REPO, "/usr/share/dnf5/repos.override.d/99.repo": "[x]\ngpgcheck=0\n", OVERRIDE: "# nothing\n"},
            ("https", True, []),
        ),
        ({REPOS: REPO, CONF: "[main]\nsslverify=off\n"}, ("https", True, ["sslverify=0"])),
        ({REPOS: REPO.replace("gpgcheck=1", ""), CONF: "[main]\ngpgcheck=TRUE\n"}, ("https", True, [])),
        ({REPOS: REPO.replace("gpgcheck=1", ""), CONF: "[main]\ngpgcheck=no\n"}, ("https", False, NO_CHECK)),
        ({REPOS: REPO.replace("gpgcheck", "GpgCheck")}, ("https", False, ["gpgcheck is not set"])),
        ({REPOS: REPO.replace("gpgcheck", "pkg_gpgcheck")}, ("https", False, ["gpgcheck is not set"])),
        (
            {REPOS: REPO.replace("gpgcheck", "pkg_gpgcheck"), "/usr/bin/dnf5": ""},
            ("https", True, []),
        ),
        (
            {CONF: "[main]\nreposdir=/srv/repos\n", "/srv/repos/a.repo": REPO.replace("=1", "=0")},
            ("https", False, NO_CHECK),
        ),
        ({CONF: "[main]\ngpgcheck=1\n" + REPO.replace("=1", "=0")}, ("https", False, NO_CHECK)),
        ({REPOS: REPO.replace("/\n", "/ http://y.example/\n")}, ("http", True, [])),
        ({REPOS: REPO.replace("/\n", "/,\n\thttp://y.example/\n")}, ("http", True, [])),
        ({REPOS: REPO + "mirrorlist=http://y.example/list\n"}, ("http", True, [])),
        ({REPOS: REPO.replace("https:", "$how:"), "/etc/dnf/vars/how": "http\n"}, ("http", True, [])),
    ],
)  # fmt: skip
def test_repositories_of_dnf(tmp_path: Path, files: dict[str, str], expected: tuple[str, bool, list[str]]) -> None:
    section = collect(tmp_path, {**RPM, **files})
    assert [row[1:] for row in rows(section)] == [expected]
    assert gap_texts(section) == []


@pytest.mark.parametrize(
    "files",
    [
        {REPOS: REPO.replace("gpgcheck=1", "gpgcheck=perhaps")},
        {REPOS: REPO + "enabled=2\n"},
        {REPOS: REPO.replace("gpgcheck=1", "gpgcheck 0")},
        {REPOS: REPO.replace("[x]", "[x")},
        {REPOS: REPO.replace("baseurl", "basurl")},
        {REPOS: REPO.replace("https:", "$unknown:")},
        {REPOS: REPO, OVERRIDE: "gpgcheck=0\n"},
        {REPOS: REPO, CONF: "sslverify=0\n"},
    ],
)
def test_a_repository_of_dnf_that_is_not_understood_is_a_gap(tmp_path: Path, files: dict[str, str]) -> None:
    section = collect(tmp_path, {**RPM, **files})
    assert gap_texts(section), section
    assert "entries" not in section


ZYPP = {"/etc/os-release": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "/usr/lib/sysimage/rpm/rpmdb.sqlite": "x"}
OSS = "[oss]\nenabled=1\nbaseurl=https://x.example/\n"


@pytest.mark.parametrize(
    ("repo", "conf", "expected"),
    [
        (OSS, "", ("https", True, [])),
        (OSS + "gpgcheck=0\n", "", ("https", False, ["gpgcheck=0"])),
        (OSS, "[main]\ngpgcheck = off\n", ("https", False, ["gpgcheck=0"])),
        (OSS, "[main]\n# gpgcheck = off\n", ("https", True, [])),
        (OSS + "gpgcheck=0\npkg_gpgcheck=1\n", "", ("https", True, ["gpgcheck=0"])),
        (OSS + "repo_gpgcheck=0\npkg_gpgcheck=0\n", "", ("https", False, ["repo_gpgcheck=0", "pkg_gpgcheck=0"])),
        (OSS.replace("example/", "example/?ssl_verify=no"), "", ("https", True, ["ssl_verify is limited"])),
        (OSS.replace("https", "http"), "", ("http", True, [])),
    ],
)
def test_repositories_of_zypper(tmp_path: Path, repo: str, conf: str, expected: tuple[Any, ...]) -> None:
    section = collect(tmp_path, {**ZYPP, "/etc/zypp/repos.d/oss.repo": repo, "/etc/zypp/zypp.conf": conf})
    assert (section["manager"], [row[1:] for row in rows(section)]) == ("zypper", [expected])


YOCTO = {"/etc/os-release": "ID=poky\n", "/var/lib/opkg/status": ""}
UNSIGNED = "check_signature is not set"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("src/gz oe http://feeds.example.org/ipk\n", ("http", False, [UNSIGNED])),
        ("option check_signature 1\nsrc/gz oe https://x.example\n", ("https", True, [])),
        ("option check_signature 0\nsrc oe https://x.example\n", ("https", False, [UNSIGNED])),
        ('option check_signature\nsrc/gz "oe" "https://x.example"\n', ("https", True, [])),
        (
            "option check_signature\noption ssl_dont_verify_peer 1\nsrc/gz oe https://x.example\n",
            ("https", True, ["ssl_dont_verify_peer"]),
        ),
    ],
)
def test_feeds_of_opkg(tmp_path: Path, text: str, expected: tuple[Any, ...]) -> None:
    section = collect(tmp_path, {**YOCTO, "/etc/opkg/base-feeds.conf": text})
    assert (section["manager"], [row[1:] for row in rows(section)]) == ("opkg", [expected])


def test_settings_and_dumps_of_dnf_are_read_as_it_prints_them() -> None:
    dnf4 = "=== repo: a ===\n[a]\nbaseurl = http://x.example/\ngpgcheck = 0\n\n=== repo: b ===\n[b]\nsslverify = 0\n"
    dnf5 = '======== "a" repository configuration: ========\n[a]\ngpgcheck = 0\nbaseurl = http://x.example/\n'
    assert sources_rpm.parse_dump(dnf4)["b"] == {"sslverify": "0"}
    for text in (dnf4, dnf5):
        assert sources_rpm.parse_dump(text)["a"] == {"baseurl": "http://x.example/", "gpgcheck": "0"}


WEAK = {
    LIST: (STATUS, "deb [trusted=yes] http://[2001:db8::10]:8080/x ./\n" + HTTPS),
    PART: (STATUS, f"{STANZA}Trusted: yes\n\n{STANZA}"),
    REPOS: (RPM, "[w]\nbaseurl=http://w.example/\ngpgcheck=0\n" + REPO),
    "/etc/opkg/feeds.conf": (YOCTO, "src/gz oe http://x.example\n"),
}


@pytest.mark.parametrize("file", WEAK)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(place=st.integers(0, 200), junk=st.text(alphabet='x =:[]"#\n\t/0yes', max_size=6), cut=st.integers(0, 3))
@example(place=0, junk="", cut=0)
def test_garbled_sources_do_not_become_sound(
    tmp_path_factory: pytest.TempPathFactory, file: str, place: int, junk: str, cut: int
) -> None:
    """The weak source is still found, or a gap, unless the change comments it out, switches it off or mends it."""
    others, text = WEAK[file]
    where = place % len(text)
    garbled = text[:where] + junk + text[where + cut :]
    root = tmp_path_factory.mktemp("garbled")
    section = collect(root, {**others, file: garbled})
    is_weak = any(not signed for _, _, signed, _ in rows(section))
    has_mended = any(sign in junk for sign in "#\n10y") or cut > 0
    assert is_weak or gap_texts(section) or has_mended, garbled


def test_removed_lines_of_other_sources_change_nothing(tmp_path: Path) -> None:
    for number, (file, (others, text)) in enumerate(WEAK.items()):
        root = put_all(tmp_path / str(number), others)
        put(root, file, text)
        before = rows(sources.collect(System(root)))
        put(root, file, "# a comment\n" + text + "\n# another\n\n")
        assert rows(sources.collect(System(root))) == before
