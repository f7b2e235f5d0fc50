"""dnf and rpm on a separate root with a signed repository: pending updates, their dates, and upgrades."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from device_agent.actions.base import ActionError
from device_agent.actions.package import UpgradePackage
from device_agent.collectors.software import inventory, sources
from device_agent.collectors.software.updates import UpdatesCollector
from device_agent.domain.report_limits import normalise_findings
from device_agent.host.system import System

TOOLS = ("dnf", "rpm", "rpmbuild", "rpmsign", "createrepo_c", "modifyrepo_c", "gpg")
pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS) or os.geteuid() != 0,
    reason="needs dnf, rpm and createrepo_c (Debian: dnf rpm createrepo-c), and root",
)
ISSUED = "2026-05-01"
SPEC = """Name: {name}
Version: {version}
Release: 1
Summary: For tests
License: none
BuildArch: noarch
%description
Nothing.
%files
"""
UPDATEINFO = f"""<?xml version="1.0" encoding="UTF-8"?>
<updates><update from="tests" status="final" type="security" version="1">
<id>TEST-2026-1</id><title>demo</title><severity>Important</severity>
<issued date="{ISSUED} 10:00:00"/><updated date="{ISSUED} 10:00:00"/><description>A flaw.</description>
<pkglist><collection><package name="demo" version="1.1" release="1" epoch="0" arch="noarch" src="demo-1.1-1.src.rpm">
<filename>demo-1.1-1.noarch.rpm</filename></package></collection></pkglist></update></updates>
"""
REPO = """[tests]
name=Tests
baseurl=file://{repo}
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=file://{key}
"""


class LiveRoot(System):
    """A root on which dnf and rpm run as on the running machine."""

    is_live = True  # although its root is a folder


def _run(*argv: str | Path, **more: Any) -> str:
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False, timeout=120, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@dataclass(frozen=True)
class Fedora:
    """A root with the configuration of dnf, a signed repository, and its signing key."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def system(self) -> System:
        return LiveRoot(self.root, is_root_user=True)

    def gpg(self, *argv: str | Path) -> str:
        return _run("gpg", "--homedir", self.folder / "gpg", "--batch", "--yes", *argv)

    def build(self, name: str, version: str) -> None:
        top = self.folder / "build"
        (top / "SPECS").mkdir(parents=True, exist_ok=True)
        spec = top / "SPECS" / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, version=version))
        _run("rpmbuild", "-bb", "--define", f"_topdir {top}", "--define", f"_rpmdir {self.repo}", spec)
        built = self.repo / "noarch" / f"{name}-{version}-1.noarch.rpm"
        macros = (f"_gpg_path {self.folder / 'gpg'}", "_gpg_name tests", f"__gpg {shutil.which('gpg')}")
        _run("rpmsign", *(word for macro in macros for word in ("--define", macro)), "--addsign", built)

    def publish(self) -> None:
        _run("createrepo_c", "--quiet", self.repo)
        (self.folder / "updateinfo.xml").write_text(UPDATEINFO)
        _run("modifyrepo_c", "--mdtype=updateinfo", self.folder / "updateinfo.xml", self.repo / "repodata")
        signature = self.repo / "repodata/repomd.xml.asc"
        self.gpg("--detach-sign", "--armor", "--output", signature, self.repo / "repodata/repomd.xml")

    def lists(self) -> None:
        """Fetches the metadata, as the timer of the device does."""
        _run("dnf", "-q", "-y", "makecache")


@pytest.fixture(scope="module")
def fedora(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fedora]:
    made = Fedora(tmp_path_factory.mktemp("dnf"))
    (made.folder / "gpg").mkdir(mode=0o700)
    made.gpg("--passphrase", "", "--quick-generate-key", "tests", "rsa2048", "sign", "never")
    key = made.root / "etc/pki/rpm-gpg/RPM-GPG-KEY-tests"
    key.parent.mkdir(parents=True)
    key.write_text(made.gpg("--armor", "--export", "tests"))
    (made.root / "etc/yum.repos.d").mkdir(parents=True)
    (made.root / "etc/yum.repos.d/tests.repo").write_text(REPO.format(repo=made.repo, key=key))
    (made.root / "etc/dnf").mkdir(parents=True)
    (made.root / "etc/dnf/dnf.conf").write_text("[main]\ngpgcheck=1\n")
    (made.root / "var/lib/rpm").mkdir(parents=True)
    programs = made.folder / "bin"
    programs.mkdir()
    real = {name: shutil.which(name) for name in ("dnf", "rpm")}
    at_root = f"--installroot={made.root} --releasever=1 --setopt=reposdir={made.root}/etc/yum.repos.d"
    at_root += f" --config={made.root}/etc/dnf/dnf.conf --setopt=cachedir={made.root}/var/cache/dnf"
    for name, options in (("dnf", at_root), ("rpm", f"--root={made.root}")):
        (programs / name).write_text(f'#!/bin/sh\nexec {real[name]} {options} "$@"\n')
        (programs / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        _run("rpm", "--import", key)
        for name, version in (("demo", "1.0"), ("other", "1.0")):
            made.build(name, version)
        made.publish()
        _run("dnf", "-q", "-y", "install", "demo", "other")
        for name, version in (("demo", "1.1"), ("other", "2.0")):
            made.build(name, version)
        made.publish()
        yield made


def section(fedora: Fedora) -> dict[str, Any]:
    found: dict[str, Any] = normalise_findings({"updates": UpdatesCollector()(fedora.system)}).sections["updates"]
    return found


def test_pending_updates_with_their_dates_are_reported_and_installed(fedora: Fedora) -> None:
    assert [str(one) for one in inventory.packages(fedora.system, "rpm").value] == ["demo 0:1.0-1", "other 0:1.0-1"]
    fedora.lists()
    found = section(fedora)
    days = (datetime.now(UTC) - datetime.fromisoformat(ISSUED).replace(tzinfo=UTC)).days
    assert (found["manager"], found["pending"], found["security_pending"]) == ("dnf", 2, 1)
    assert found["packages"] == [{"name": "demo", "installed": "0:1.0-1", "candidate": "1.1-1"}]
    assert abs(found["oldest_security_days"] - days) <= 1

    action = UpgradePackage(fedora.system)
    plan = action.plan({"security": True})
    assert "now: demo" in plan.changes
    action.apply({"security": True}, plan.before)
    assert action.verify({"security": True}, plan.before).is_reached
    assert _run("rpm", "-q", "demo", "other").split() == ["demo-1.1-1.noarch", "other-1.0-1.noarch"]
    named = action.plan({"name": "other"})
    action.apply({"name": "other"}, named.before)
    assert action.verify({"name": "other"}, named.before).after == {"is": "0:2.0-1"}
    time.sleep(1.1)  # dnf distinguishes its caches by whole seconds
    found = section(fedora)
    assert (found["pending"], found["security_pending"]) == (0, 0)
    with pytest.raises(ActionError, match="not installed"):
        action.plan({"name": "nothing"})


def test_package_sources_are_collected(fedora: Fedora) -> None:
    (entry,) = sources.collect(fedora.system)["entries"]
    assert entry["url"] == f"file://{fedora.repo}"
    assert entry["signed"]


def test_an_unsigned_package_is_not_installed(fedora: Fedora) -> None:
    fedora.build("demo", "1.2")
    _run("rpmsign", "--delsign", fedora.repo / "noarch/demo-1.2-1.noarch.rpm")
    fedora.publish()
    action = UpgradePackage(fedora.system)
    plan = action.plan({"name": "demo"})
    with pytest.raises(ActionError, match="dnf ended with status 1"):
        action.apply({"name": "demo"}, plan.before)
    assert not action.verify({"name": "demo"}, plan.before).is_reached
