"""File integrity: kinds of change and their times, limits, damaged baselines, and accepting a new baseline."""

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.actions.base import InvalidParamsError
from device_agent.actions.integrity import RebaselineIntegrity
from device_agent.collectors.tools.file_integrity import DEFAULT_PATHS, IntegrityCollector
from device_agent.collectors.tools.file_integrity_baseline import BaselineDamagedError, load
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System
from device_agent.settings import IntegritySettings
from tests.support.root_folder import put
from tests.support.unprivileged import unprivileged_folder

START: Final = 1_790_000_000.0  # 2026-09-21


class Device:
    """A prepared root with its state folder and a manual clock."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.root = folder / "root"
        self.state = folder / "state"
        self.now = START
        self.options = {"paths": ["/etc", "/opt/app"], "every": "10m", **options}
        self.put("/etc/passwd", "root:x:0:0\n")
        self.put("/etc/app.conf", "a=1\n")
        self.put("/opt/app/run", "#!/bin/sh\n")
        self.collector = self.create_collector()

    def create_collector(self, *, is_baseline_owner: bool = True) -> IntegrityCollector:
        settings = IntegritySettings.model_validate(self.options)
        return IntegrityCollector(settings, self.state, is_baseline_owner=is_baseline_owner, now=lambda: self.now)

    def put(self, path: str, text: str) -> Path:
        return put(self.root, path, text)

    def scan(self, collector: IntegrityCollector | None = None, *, later: float = 600.0) -> dict[str, Any]:
        self.now += later
        section: dict[str, Any] = normalise_findings(
            {"integrity": dict((collector or self.collector)(System(self.root)))}
        ).sections["integrity"]
        return section

    def changes(self, **options: Any) -> dict[str, str]:
        return {change["path"]: change["change"] for change in self.scan(**options)["changes"]}


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path)
    first = device.scan()
    assert (first["state"], first["changed"], first["complete"], first["files"]) == ("ok", 0, True, 5)
    return device


def test_logins_and_schedules_of_every_distribution_are_watched_by_default(tmp_path: Path) -> None:
    device = Device(tmp_path, paths=[])
    places = [
        *("/etc/crontabs/root", "/var/spool/cron/crontabs/root", "/etc/cron.daily/apt-compat", "/etc/anacrontab"),
        *(
            "/etc/rc.d/S95done",
            "/etc/runlevels/default/sshd",
            "/etc/local.d/x.start",
            f"{DEFAULT_PATHS[-1]}/authorized_keys",
        ),
        *("/etc/dropbear/authorized_keys", "/etc/shadow", "/etc/ld.so.conf.d/x.conf", "/etc/doas.conf"),
    ]
    for place in places:
        device.put(place, "a")
    device.scan()
    for place in places:
        device.put(place, "b")
    assert device.changes() == dict.fromkeys(places, "content")


def test_every_kind_of_change_is_detected(device: Device) -> None:
    device.put("/etc/passwd", "root:x:0:0\nevil:x:0:0\n")
    device.put("/etc/new", "")
    (device.root / "etc/app.conf").unlink()
    (device.root / "opt/app/run").chmod(0o777)
    assert device.changes() == {
        "/etc/app.conf": "removed",
        "/etc/new": "added",
        "/etc/passwd": "content",
        "/opt/app/run": "mode",
    }
    (device.root / "opt/app/run").unlink()
    (device.root / "opt/app/run").symlink_to("/bin/sh")
    assert device.changes()["/opt/app/run"] == "kind"


def test_the_time_of_detection_is_kept_until_the_file_is_restored(device: Device) -> None:
    path = device.put("/etc/passwd", "changed\n")
    os.utime(path, (0, START))
    (change,) = device.scan()["changes"]
    assert change["seen_at"].startswith("2026-09-21T")
    assert change["modified_at"].startswith("2026-09-21T")
    (repeated,) = device.scan(device.create_collector(), later=7200)["changes"]
    assert repeated == change
    device.put("/etc/passwd", "root:x:0:0\n")
    assert device.changes() == {}


def test_an_unchanged_device_has_an_unchanged_section(device: Device) -> None:
    device.put("/etc/passwd", "changed\n")
    first = device.scan()
    assert device.scan(later=5000.0) == first
    assert device.scan(device.create_collector(), later=200_000.0) == first


def test_files_are_scanned_at_the_configured_interval(device: Device) -> None:
    device.put("/etc/passwd", "changed\n")
    assert device.changes(later=60.0) == {}
    assert device.changes(later=540.0) == {"/etc/passwd": "content"}


def test_content_is_read_again_once_a_day_even_when_the_metadata_is_unchanged(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.scan()
    # As after forged time stamps: the baseline has the current metadata with another digest.
    state = device.state / "integrity.json"
    raw = json.loads(state.read_text())
    raw["files"]["/etc/passwd"][1] = "0" * 64
    state.write_text(json.dumps(raw))
    device.collector = device.create_collector()
    assert device.changes() == {}
    assert device.changes(later=90_000.0) == {"/etc/passwd": "content"}


def test_a_command_accepts_a_new_baseline_and_undo_restores_the_old_one(device: Device) -> None:
    device.put("/etc/passwd", "changed\n")
    assert device.changes() == {"/etc/passwd": "content"}
    action = RebaselineIntegrity(device.collector, System(device.root))
    with pytest.raises(InvalidParamsError):
        action.check({"path": "/etc"})
    action.check({})
    plan = action.plan({})
    assert (plan.before["was"], plan.changes, plan.is_needed) == ("1 changes", "accept 1 changes", True)
    device.now += 1
    action.apply({}, plan.before)
    verified = action.verify({}, plan.before)
    assert (verified.is_reached, verified.after["is"]) == (True, "0 changes")
    assert device.changes() == {}
    assert not action.plan({}).is_needed
    assert action.undo({}, plan.before) == "the old baseline is back"
    assert device.changes() == {"/etc/passwd": "content"}
    assert action.undo({}, plan.before) == "there was no baseline before"


def test_a_damaged_baseline_makes_the_section_unknown_until_a_new_one_is_accepted(device: Device) -> None:
    (device.state / "integrity.json").write_text("{}")
    with pytest.raises(FactsUnavailableError, match=r"damaged.*integrity\.rebaseline"):
        device.scan()
    action = RebaselineIntegrity(device.collector, System(device.root))
    assert action.plan({}).is_needed
    action.apply({}, {})
    assert action.verify({}, {}).is_reached


def test_only_the_running_agent_creates_a_baseline(tmp_path: Path) -> None:
    device = Device(tmp_path)
    with pytest.raises(FactsUnavailableError, match="no baseline yet"):
        device.scan(device.create_collector(is_baseline_owner=False))
    assert not device.state.exists()
    device.scan()
    device.put("/etc/passwd", "changed\n")
    assert device.scan(device.create_collector(is_baseline_owner=False))["changed"] == 1


def test_newly_configured_paths_are_not_reported_as_changes(device: Device) -> None:
    device.put("/srv/data", "x")
    device.options["paths"] = ["/etc", "/srv"]
    device.collector = device.create_collector()
    section = device.scan()
    assert (section["changed"], section["roots"]) == (0, ["/etc", "/srv"])
    device.put("/srv/data", "y")
    assert device.changes() == {"/srv/data": "content"}


def test_exceeded_limits_make_the_section_incomplete(tmp_path: Path) -> None:
    device = Device(tmp_path / "few", max_files=3)
    section = device.scan()
    assert (section["complete"], section["files"], section["changed"]) == (False, 3, 0)
    device = Device(tmp_path / "small", max_mib=1)
    (device.root / "etc/huge").write_bytes(bytes(2 * 1024 * 1024))
    section = device.scan()
    assert (section["complete"], section["changed"]) == (False, 0)


def test_changes_beyond_the_limit_are_dropped_and_counted(device: Device) -> None:
    for number in range(300):
        device.put(f"/etc/extra/{number:03}", "")
    section = device.scan()
    assert (section["changed"], len(section["changes"]) + section["truncated"]) == (301, 301)


def test_links_are_not_followed_and_pipes_do_not_block(device: Device, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    (device.root / "etc/link").symlink_to(tmp_path / "outside")
    os.mkfifo(device.root / "etc/pipe")
    assert device.changes() == {"/etc/link": "added", "/etc/pipe": "added"}


def test_an_unreadable_file_is_counted_and_not_reported_as_changed() -> None:
    with unprivileged_folder() as folder:
        device = Device(folder)
        device.scan()
        (device.root / "etc/passwd").chmod(0)
        section = device.scan()
    assert (section["unread"], section["changed"]) == (1, 0)


def test_the_default_paths_of_this_machine_fit_a_report(tmp_path: Path) -> None:
    collector = IntegrityCollector(IntegritySettings(), tmp_path, is_baseline_owner=True)
    section = normalise_findings({"integrity": collector(System())}).sections["integrity"]
    assert (section["state"], section["changed"]) == ("ok", 0)
    assert section["files"] > 5
    assert load(tmp_path / "integrity.json") is not None


@settings(max_examples=60)
@given(st.data())
def test_any_baseline_is_either_read_or_reported_as_damaged(data: st.DataObject) -> None:
    import tempfile

    good = (
        '{"v":1,"taken_at":"2026-11-23T10:00:00+00:00","roots":["/etc"],"unread":0,"read_all_at":1.5,'
        '"noticed":{"/etc/a":["content","2026-11-23T10:00:00+00:00"]},"files":{"/etc/a":["file","ab",1,2,3,4,5,6,7]}}'
    )
    at = data.draw(st.integers(0, len(good)))
    text = good[:at] + data.draw(st.text(max_size=5)) + good[at + data.draw(st.integers(0, 9)) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "integrity.json"
        path.write_text(text)
        try:
            baseline = load(path)
        except BaselineDamagedError:
            return
        assert baseline is not None
