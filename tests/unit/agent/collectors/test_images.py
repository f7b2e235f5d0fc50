"""Collectors read an image through its paths only: each of them, for every init system, and with logs on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.registry import collectors_for_image
from device_agent.collectors.system import log_settings, services, supervisors
from device_agent.collectors.tools.openscap import OpenscapCollector
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.image_path import ImagePath
from device_agent.host.system import System
from device_agent.settings import ToolSettings
from tests.platforms.roots import Platform, make_root, platforms
from tests.support.root_folder import put_all

LOGS: Final = {
    "/etc/systemd/journald.conf": "[Journal]\nStorage=persistent\n",
    "/usr/lib/systemd/systemd-journald": "",
    "/var/log/journal/id/system.journal": "",
    "/etc/rsyslog.conf": "*.* /var/log/all\n",
    "/usr/sbin/rsyslogd": "",
    "/var/log/messages": "x\n",
    "/var/log/auth.log": "x\n",
    "/var/log/audit/audit.log": "x\n",
}
FOLDERS_OF_SERVICES: Final = (
    "/etc/s6-overlay/s6-rc.d/a/run", "/etc/services.d/a/run", "/etc/service/a/run", "/etc/runit/runsvdir/default/a/run",
    "/etc/init.d/a", "/etc/runlevels/default/a", "/etc/rc.d/S10a", "/etc/inetd.conf", "/etc/xinetd.d/a",
)  # fmt: skip
REFUSED: Final = "a path of an image is not used outside of it"


@pytest.fixture
def used_outside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the paths of images that something gave to the kernel; collectors may hide the refusal in a gap."""
    seen: list[str] = []
    refuse: Callable[[ImagePath], str] = ImagePath.__fspath__

    def record(path: ImagePath) -> str:
        seen.append(str(path))
        return refuse(path)

    monkeypatch.setattr(ImagePath, "__fspath__", record)
    return seen


def _collect_all(image: System) -> str:
    sections: dict[str, Any] = {}
    for name, collect in collectors_for_image().items():
        try:
            sections[name] = collect(image)
        except (FactsUnavailableError, NotApplicableError, OSError) as e:
            sections[name] = str(e)
    return repr(sections)


@pytest.mark.parametrize("platform", platforms(), ids=lambda platform: platform.key)
def test_no_collector_uses_a_path_of_an_image_outside(
    tmp_path: Path, platform: Platform, used_outside: list[str]
) -> None:
    image = make_root(platform, tmp_path, "healthy")
    for place in (*LOGS, *FOLDERS_OF_SERVICES):
        if not (tmp_path / place.lstrip("/")).exists():
            put_all(tmp_path, {place: LOGS.get(place, "#!/bin/sh\nexec telnetd -F\n")})
    assert REFUSED not in _collect_all(image)
    assert used_outside == []


def test_a_persistent_journal_of_an_image_is_kept(tmp_path: Path) -> None:
    section = log_settings.collect(System.image(put_all(tmp_path, LOGS)))
    assert section["journald"] == "persistent"
    assert not any(gap["fact"] == "journald" for gap in section["gaps"])


def test_logs_of_an_image_behind_a_link_to_memory_are_not_kept(tmp_path: Path) -> None:
    put_all(tmp_path, LOGS | {"/etc/fstab": "tmpfs /var/volatile tmpfs defaults 0 0\n"})
    (tmp_path / "var/log").rename(tmp_path / "var/old")
    (tmp_path / "var/log").symlink_to("volatile/log")
    section = log_settings.collect(System.image(tmp_path))
    assert section["journald"] == "volatile"


def test_the_services_of_s6_and_runit_of_an_image_are_read(tmp_path: Path) -> None:
    run = "#!/bin/sh\nexec telnetd -F\n"
    s6 = put_all(tmp_path / "s6", {"/etc/services.d/telnet/run": run})
    runit = put_all(tmp_path / "runit", {"/etc/sv/telnet/run": run, "/etc/runit/runsvdir/default/.keep": ""})
    (runit / "etc/runit/runsvdir/default/telnet").symlink_to("/etc/sv/telnet")
    for root, init in ((s6, "s6"), (runit, "runit")):
        section = services.collect(System.image(root))
        assert section["init"] == init
        assert [(unit["name"], unit["enabled"]) for unit in section["units"]] == [("telnet", True)]


def test_more_services_than_the_bound_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "_MAX_SERVICES", 4)
    put_all(tmp_path, {f"/etc/services.d/s{number}/run": "" for number in range(5)})
    with pytest.raises(FactsUnavailableError, match="more than 4"):
        services.collect(System.image(tmp_path))


def test_a_compressed_openscap_result_is_a_reason(tmp_path: Path) -> None:
    put_all(tmp_path, {"/var/log/openscap/results.xml.bz2": "x"})
    with pytest.raises(FactsUnavailableError, match="compressed"):
        OpenscapCollector(ToolSettings())(System.image(tmp_path))
