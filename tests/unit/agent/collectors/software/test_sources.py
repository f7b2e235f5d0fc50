"""Package sources of prepared Debian, Fedora, Alpine and OpenWrt roots, sound and weakened, and of this machine."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.software import apt_conf, sources, sources_apt, sources_rpm
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.packages import package_scheme
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put_all


def without_password(url: str) -> str:
    return re.sub("//[^/@]*@", "//", url)


def collect(root: Path) -> dict[str, Any]:
    section = sources.collect(System(root))
    sent = normalise_findings({"sources": section}).sections["sources"]
    assert sent["state"] == "ok", sent
    return section


def brief(section: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(e["name"], e["transport"], e["enabled"], e["signed"], e["key"], e["flags"]) for e in section["entries"]]


DEBIAN = {
    "var/lib/dpkg/status": "",
    "etc/apt/sources.list": (
        "# deb http://off.example/debian stable main\n"
        "deb http://deb.debian.org/debian bookworm main\n"
        "deb [arch=amd64 trusted=yes] https://me:secret@repo.example/apt ./\n"
        "deb-src [signed-by=/usr/share/keyrings/a.gpg] https://deb.debian.org/debian bookworm main\n"
    ),
    "etc/apt/sources.list.d/vendor.sources": (
        "# a comment\nTypes: deb\nURIs: https://one.example/x\n https://two.example/y\nSuites: stable\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n"
        "Types: deb\nURIs: http://off.example/z\nSuites: stable\nEnabled: no\nCheck-Valid-Until: no\n"
    ),
    "etc/apt/sources.list.d/old.list.save": "deb http://saved.example/ stable main\n",
    "etc/apt/trusted.gpg.d/vendor.asc": "x",
}


def test_sources_of_debian(tmp_path: Path) -> None:
    put_all(tmp_path, DEBIAN)
    section = collect(tmp_path)
    assert brief(section) == [
        ("sources.list:2", "http", True, True, "", []),
        ("sources.list:3", "https", True, False, "", ["trusted=yes"]),
        ("sources.list:4", "https", True, True, "/usr/share/keyrings/a.gpg", []),
        ("vendor.sources:12", "http", False, True, "", ["check-valid-until=no"]),
        ("vendor.sources:2", "https", True, True, "embedded key", []),
        ("vendor.sources:2", "https", True, True, "embedded key", []),
    ]
    assert section["keyrings"] == ["/etc/apt/trusted.gpg.d/vendor.asc"]
    assert "secret" not in repr(section)
    assert gap_texts(section) == []
    # apt refuses all sources because of one line that it does not know.
    put_all(tmp_path, {"etc/apt/sources.list": DEBIAN["etc/apt/sources.list"] + "nonsense\n"})
    section = collect(tmp_path)
    assert len(section["partial"]["entries"]) == 6
    assert gap_texts(section) == ["entries: not a type of source (/etc/apt/sources.list, line 5)"]


def test_an_insecure_apt_setting_applies_to_every_source(tmp_path: Path) -> None:
    put_all(tmp_path, DEBIAN)
    conf = 'APT { Get { AllowUnauthenticated "true"; }; };\n// AllowWeak\nAcquire::AllowWeakRepositories "no";\n'
    put_all(tmp_path, {"etc/apt/apt.conf.d/99weak": conf, "etc/apt/apt.conf.d/99weak.dpkg-old": 'APT::X "1";'})
    section = collect(tmp_path)
    assert {entry["signed"] for entry in section["entries"]} == {False}
    assert section["entries"][0]["flags"] == ["apt::get::allowunauthenticated=true"]


def test_sources_of_fedora(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/sysimage/rpm").mkdir(parents=True)
    repo = (
        "[fedora]\nname=Fedora\nmetalink=https://mirrors.example/metalink?repo=$releasever\nenabled=1\ngpgcheck=1\n"
        "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora\n\n"
        "[vendor]\nbaseurl=http://vendor.example/rpm\n  http://other.example/rpm\ngpgcheck=0\nsslverify=False\n"
        "[off]\nbaseurl=https://off.example\nenabled=0\n# end\n"
    )
    put_all(tmp_path, {"etc/yum.repos.d/all.repo": repo, "etc/pki/rpm-gpg/RPM-GPG-KEY-fedora": "k"})
    key = "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora"
    assert brief(collect(tmp_path)) == [
        ("fedora", "https", True, True, key, []),
        ("off", "https", False, False, "", ["gpgcheck is not set"]),
        ("vendor", "http", True, False, "", ["gpgcheck=0", "sslverify=0"]),
    ]
    put_all(tmp_path, {"etc/dnf/dnf.conf": "[main]\ngpgcheck=True\n"})
    assert brief(collect(tmp_path))[1] == ("off", "https", False, True, "", [])


def test_sources_of_alpine(tmp_path: Path) -> None:
    text = (
        "https://dl-cdn.example/v3.20/main\n#http://off.example\n@edge http://dl-cdn.example/edge/main\n/media/apks\n"
    )
    put_all(tmp_path, {"lib/apk/db/installed": "", "etc/apk/repositories": text, "etc/apk/keys/a.rsa.pub": "k"})
    section = collect(tmp_path)
    assert [(entry[0], entry[1], entry[3]) for entry in brief(section)] == [
        ("repositories:1", "https", True),
        ("repositories:3", "http", True),
        ("repositories:4", "file", True),
    ]
    assert section["keyrings"] == ["/etc/apk/keys/a.rsa.pub"]
    put_all(tmp_path, {"etc/apk/config": "allow-untrusted\n"})
    assert {entry["signed"] for entry in collect(tmp_path)["entries"]} == {False}


def test_sources_of_openwrt(tmp_path: Path) -> None:
    put_all(
        tmp_path,
        {
            "usr/lib/opkg/status": "",
            "etc/opkg.conf": "dest root /\noption check_signature\n",
            "etc/opkg/distfeeds.conf": "src/gz base https://downloads.example/base\n# src/gz off http://off.example\n",
            "etc/opkg/customfeeds.conf": "src/gz mine http://mine.example/x\n",
        },
    )
    assert [(entry[0], entry[1], entry[3]) for entry in brief(collect(tmp_path))] == [
        ("mine", "http", True),
        ("base", "https", True),
    ]
    put_all(tmp_path, {"etc/opkg.conf": "dest root /\n"})
    section = collect(tmp_path)
    assert {(entry["signed"], entry["flags"][0]) for entry in section["entries"]} == {
        (False, "check_signature is not set")
    }


def test_no_package_manager_or_no_source_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FactsUnavailableError, match="no known package manager"):
        sources.collect(System(tmp_path))
    put_all(tmp_path, {"var/lib/dpkg/status": ""})
    assert gap_texts(collect(tmp_path)) == ["entries: no package source was found"]


@pytest.mark.skipif(
    shutil.which("apt-get") is None or package_scheme(System()) != "deb", reason="this machine has no apt"
)
def test_sources_of_this_machine_match_apt() -> None:
    # --print-uris needs no earlier `apt-get update`.
    argv = ["apt-get", "update", "--print-uris"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    fetched = {without_password(uri) for uri in re.findall(r"^'([^']+)'", out, re.MULTILINE)}
    entries = sources.collect(System())["entries"]
    used = {f"{without_password(entry['url']).rstrip('/')}/" for entry in entries if entry["enabled"]}
    assert [url for url in used if not any(uri.startswith(url) for uri in fetched)] == [], "apt does not know them"
    assert [uri for uri in fetched if not uri.startswith(tuple(used))] == [], "only apt knows them"
    config = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True, timeout=60).stdout
    for name in ("APT::Periodic::Unattended-Upgrade", "APT::Install-Recommends", "APT::Get::AllowUnauthenticated"):
        match = re.search(rf'^{name} "(.*)";$', config, re.MULTILINE | re.IGNORECASE)
        parsed = apt_conf.read_settings(System()).value.values.get(name.lower())
        assert parsed is None or (match is not None and match[1] == parsed)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='deb -src[]=:/.#\n\t"{};*aUIRsTy\x00é', max_size=300))
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    gaps = GapRecorder()
    for source in (*sources_apt.lines(text, gaps, "x"), *sources_apt.stanzas(text, gaps, "x")):
        assert source.url
    list(apt_conf.parse(text, gaps, "x"))
    sources_rpm.parse_sections(text, gaps, "x")
    assert sources.transport_of(text)


@pytest.mark.parametrize("text", ["/*" * 100_000, '"' * 200_001, "{" * 200_000, "a " * 100_000])
def test_long_malformed_text_takes_linear_time(text: str) -> None:
    gaps = GapRecorder()
    list(apt_conf.parse(text, gaps, "x"))
    assert gaps.gaps or text.startswith("/")
