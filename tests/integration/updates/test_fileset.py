"""File sets on a device: verified, installed, checked, confirmed; or rolled back with a reported reason."""

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.tuf_repository.ceremony import rotate
from controller.adapters.tuf_repository.publishing import withdraw
from device_agent.errors import StoppedError
from device_agent.updates import requirements
from schemas.commands import CommandState
from schemas.updates import UpdatePhase
from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, archive, ask, order

CHECK = {"command": ["bin/check"], "seconds": 1}


def app(version: str, *, healthy: bool = True) -> bytes:
    script = f"#!/bin/sh\nexit {0 if healthy else 3}\n"
    return archive({"bin/check": script, "version": version}, executable=("bin/check",))


def installed(made: Repository, device: UpdateDevice, version: str = "1.0", **parts: Any) -> None:
    result = device.install(order(made.publish("edge-app", version, app(version), health=CHECK, **parts)))
    assert result.state is CommandState.SUCCEEDED, result


def test_an_update_passes_all_phases_and_the_next_report_confirms_it(made: Repository, device: UpdateDevice) -> None:
    result = device.install(order(made.publish("edge-app", "1.0", app("1.0"), health=CHECK)))
    assert (result.state, result.detail["phase"]) == (CommandState.SUCCEEDED, "confirmed")
    told = list(dict.fromkeys(device.phases()))
    assert told == ["offered", "downloading", "verified", "staged", "installed", "health_ok", "confirmed"]
    entry = device.entry()
    assert (entry.version, entry.health, entry.outcome) == ("1.0", "ok", UpdatePhase.CONFIRMED)
    assert (entry.attempted, entry.command_id, entry.previous) == ("1.0", "c1", "")
    assert (device.current / "version").read_text() == "1.0"
    section = device.section()
    assert (section.device_class, section.hardware, section.root_version) == ("gateway", ("rpi4",), 1)


def test_only_the_previous_version_is_stored(made: Repository, device: UpdateDevice) -> None:
    for version in ("1.0", "1.1", "1.2"):
        installed(made, device, version)
    assert (device.entry().version, device.entry().previous) == ("1.2", "1.1")
    sets = device.current.parent
    assert sorted(path.name for path in sets.iterdir()) == ["1.1", "1.2", "current"]
    assert device.results[-1].detail["before"] == "1.1"


def test_an_unhealthy_version_is_rolled_back(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    bad = made.publish("edge-app", "1.1", app("1.1", healthy=False), health=CHECK)
    result = device.install(order(bad))
    assert (result.state, result.detail["phase"]) == (CommandState.FAILED, "rolled_back")
    assert result.detail["reason_code"] == "health"
    assert "check ended with status 3" in result.reason
    assert "1.0 is installed again" in result.reason
    entry = device.entry()
    assert (entry.version, entry.health, entry.outcome) == ("1.0", "ok", UpdatePhase.ROLLED_BACK)
    assert entry.attempted == "1.1"
    assert "not healthy" in entry.reason
    assert (device.current / "version").read_text() == "1.0"


def test_an_unhealthy_first_version_is_removed(made: Repository, device: UpdateDevice) -> None:
    result = device.install(order(made.publish("edge-app", "1.0", app("1.0", healthy=False), health=CHECK)))
    assert result.detail["phase"] == "rolled_back"
    assert not device.current.exists()
    assert device.entry().version == ""


def test_a_version_that_does_not_reach_the_broker_is_rolled_back(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    device.broker = False
    result = device.install(order(made.publish("edge-app", "1.1", app("1.1"), health=CHECK)))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("rolled_back", "broker")
    assert device.entry().version == "1.0"


def test_without_rollback_a_broken_version_stays_and_is_reported(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    bad = made.publish("edge-app", "1.1", app("1.1", healthy=False), health=CHECK, rollback="never")
    result = device.install(order(bad))
    assert (result.state, result.detail["phase"]) == (CommandState.FAILED, "broken")
    assert device.entry().outcome is UpdatePhase.BROKEN


def test_installing_the_same_version_again_changes_nothing(made: Repository, device: UpdateDevice) -> None:
    found = made.publish("edge-app", "1.0", app("1.0"), health=CHECK)
    assert device.install(order(found)).state is CommandState.SUCCEEDED
    again = device.install(order(found))
    assert (again.state, again.reason, again.detail["phase"]) == (CommandState.SUCCEEDED, "nothing to do", "confirmed")


def test_a_rollback_is_done_once(made: Repository, device: UpdateDevice) -> None:
    installed(made, device, "1.0")
    installed(made, device, "1.1")
    result = device.go_back("edge-app", "1.1")
    assert (result.state, result.detail["phase"]) == (CommandState.SUCCEEDED, "rolled_back")
    assert device.entry().version == "1.0"
    again = device.go_back("edge-app", "1.1")
    assert (again.state, again.reason) == (CommandState.SUCCEEDED, "nothing to do")
    assert device.entry().version == "1.0"


def test_an_interrupted_download_is_resumed(made: Repository, device: UpdateDevice, server: UpdateServer) -> None:
    found = made.publish("edge-app", "1.0", bytes(range(256)) * 2000, file="data.bin")
    server.cut["data.bin"] = (100_000, 2)
    assert device.install(order(found)).state is CommandState.SUCCEEDED
    ranges = [requested for path, requested in server.requests if path.endswith("data.bin")]
    assert ranges[0] == ""
    assert len(ranges) == 3
    assert [int(one.removeprefix("bytes=").removesuffix("-")) for one in ranges[1:]] == [100_000, 200_000]
    assert (device.current / "data.bin").stat().st_size == found.length


def test_a_damaged_part_is_downloaded_again_also_without_ranges(
    made: Repository, device: UpdateDevice, server: UpdateServer
) -> None:
    found = made.publish("edge-app", "1.0", bytes(range(256)) * 2000, file="data.bin")
    part = device.settings.agent.state_dir / "updates/downloads/edge-app/1.0/data.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"z" * 1000)
    assert device.install(order(found)).state is CommandState.SUCCEEDED
    assert (device.current / "data.bin").read_bytes() == bytes(range(256)) * 2000
    server.knows_ranges = False
    server.cut["more.bin"] = (50_000, 1)
    more = made.publish("edge-app", "1.1", bytes(range(255)) * 2000, file="more.bin")
    assert device.install(order(more)).state is CommandState.SUCCEEDED


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"classes": ["lab"]}, "not_for_this_device"),
        ({"hardware": ["rpi5"]}, "not_for_this_device"),
        ({"requires": [{"what": "free_mib", "op": ">=", "value": "999999999"}]}, "precondition"),
        ({"requires": [{"what": "installed:base", "op": ">=", "value": "2"}]}, "precondition"),
        ({"requires": [{"what": "machine", "op": "==", "value": "vax"}]}, "precondition"),
        ({"kind": "image", "installer": "hook"}, "not_for_this_device"),
    ],
)
def test_targets_for_other_devices_are_refused_before_the_download(
    made: Repository, device: UpdateDevice, server: UpdateServer, parts: dict[str, Any], code: str
) -> None:
    installed(made, device)
    result = device.install(order(made.publish("edge-app", "1.1", app("1.1"), **parts)))
    assert (result.state, result.detail["phase"]) == (CommandState.FAILED, "refused")
    assert result.detail["reason_code"] == code
    assert not any("/1.1/" in path for path, _ in server.requests)
    assert device.entry().version == "1.0"


def test_an_update_without_free_space_is_refused(
    made: Repository, device: UpdateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "SPARE_BYTES", 2**60)
    result = device.install(order(made.publish("edge-app", "1.0", app("1.0"))))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "no_space")


def test_order_and_signed_metadata_have_to_match(made: Repository, device: UpdateDevice) -> None:
    found = made.publish("edge-app", "1.0", app("1.0"))
    result = device.install(order(found, sha256="00" * 32))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "mismatch")
    withdraw(made.folder, "edge-app", "1.0", made.keys, ask, made.at)
    result = device.install(order(found))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "not_found")


def test_an_order_after_its_deadline_fails(made: Repository, device: UpdateDevice) -> None:
    result = device.install(order(made.publish("edge-app", "1.0", app("1.0")), seconds=-1))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "deadline")


def test_the_consent_of_a_person_is_required(made: Repository, device: UpdateDevice) -> None:
    found = made.publish("edge-app", "1.0", app("1.0"), health=CHECK)
    agree = device.step
    answers = [False, True]

    def at_waiting(name: str) -> None:
        agree(name)
        if name == "phase:waiting":
            assert [one["version"] for one in device.updater.consent.pending()] == ["1.0"]
            assert device.updater.consent.record_answer("edge-app", agreed=answers.pop(0))

    device.step = at_waiting
    declined = device.install(order(found, ask_user=True))
    assert (declined.state, declined.detail["phase"]) == (CommandState.FAILED, "declined")
    agreed = device.install(order(found, ask_user=True))
    assert (agreed.state, agreed.detail["phase"]) == (CommandState.SUCCEEDED, "confirmed")
    assert "waiting" in device.phases()
    assert device.updater.consent.pending() == []
    assert not device.updater.consent.record_answer("edge-app", agreed=True)


def test_changed_files_are_not_reported_as_the_version(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    (device.current / "version").write_text("1.0 and more")
    entry = device.entry()
    assert (entry.version, entry.health) == ("", "failed")
    assert "was changed" in entry.health_reason


def test_a_version_that_becomes_unhealthy_later_is_reported(
    made: Repository, device: UpdateDevice, tmp_path: Path
) -> None:
    sign_of_life = tmp_path / "alive"
    sign_of_life.touch()
    script = f"#!/bin/sh\ntest -e {sign_of_life}\n"
    content = archive({"bin/check": script}, executable=("bin/check",))
    assert device.install(order(made.publish("edge-app", "1.0", content, health=CHECK))).state is CommandState.SUCCEEDED
    assert device.entry().health == "ok"
    sign_of_life.unlink()
    assert device.entry().health == "failed"


def test_rotated_root_keys_are_followed(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    for role in ("targets", "root", "timestamp", "snapshot", "root"):
        rotate(made.folder, made.keys, role, None, ask, made.at)
    installed(made, device, "1.1")
    assert device.section().root_version == 6


def test_an_update_continues_after_a_stop(made: Repository, device: UpdateDevice, server: UpdateServer) -> None:
    found = made.publish("edge-app", "1.0", bytes(range(256)) * 4000, file="data.bin")
    seen: list[int] = []

    def stop_once(name: str) -> None:
        if name == "download:chunk" and not seen:
            seen.append(1)
            device.stopping.set()

    device.step = stop_once
    device.send("update.install", order(found).params())
    device.commands.stop(60)
    device.stop()
    assert device.updater.ledger.load("edge-app").transaction is not None
    assert not any(result.state.is_end for result in device.results)
    device.start()
    assert device.ended().detail["phase"] == "confirmed"
    assert server.requests[-1][1].startswith("bytes=")


def test_the_journal_of_an_update_has_no_extra_data(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    records = device.settings.agent.state_dir / "updates/records/edge-app.json"
    kept = json.loads(records.read_text())
    assert kept["transaction"] is None
    assert kept["outcome"] == "confirmed"


def test_an_update_without_its_command_is_rolled_back_at_the_next_start(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    found = made.publish("edge-app", "1.1", app("1.1"), health=CHECK)

    def lose_power(name: str) -> None:
        if name == "install:after":
            device.stopping.set()
            raise StoppedError

    device.step = lose_power
    device.send("update.install", order(found).params())
    device.commands.stop(60)
    device.stop()
    assert (device.current / "version").read_text() == "1.1"
    (device.settings.agent.state_dir / "commands.json").unlink()
    device.step = lambda _name: None
    device.start()  # its command thread recovers interrupted updates
    deadline = time.monotonic() + 60
    while device.entry().outcome != "rolled_back":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (device.current / "version").read_text() == "1.0"
    entry = device.entry()
    assert (entry.version, entry.outcome, entry.attempted) == ("1.0", "rolled_back", "1.1")


def test_a_damaged_record_affects_only_its_own_name(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    records = device.settings.agent.state_dir / "updates/records"
    (records / "other.json").write_text("{")
    device.updater.recover(frozenset())
    assert device.entry().version == "1.0"
    assert "damaged" in device.entry("other").health_reason
    result = device.install(order(made.publish("other", "1.0", app("1.0"))))
    assert (result.state, "damaged" in result.reason) == (CommandState.FAILED, True)
    installed(made, device, "1.1")


def test_a_refused_update_leaves_no_download(made: Repository, device: UpdateDevice, server: UpdateServer) -> None:
    found = made.publish("edge-app", "1.0", app("1.0"))
    server.replace["content.tar.gz"] = b"x" * found.length
    assert device.install(order(found)).detail["reason_code"] == "wrong_hash"
    server.replace.clear()
    installed(made, device, "1.1")
    downloads = device.settings.agent.state_dir / "updates/downloads"
    assert [path for path in downloads.rglob("*") if path.is_file()] == []


def test_a_file_set_is_readable_whatever_the_umask(made: Repository, device: UpdateDevice) -> None:
    before = os.umask(0o077)
    try:
        installed(made, device)
    finally:
        os.umask(before)
    for path in (device.current, device.current / "bin", device.current.parent, device.current.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE((device.current / "version").stat().st_mode) == 0o644


def test_a_record_of_another_name_is_not_used(made: Repository, device: UpdateDevice) -> None:
    installed(made, device)
    records = device.settings.agent.state_dir / "updates" / "records"
    (records / "edge-app.json").rename(records / "other.json")
    result = device.install(order(made.publish("other", "1.0", app("1.0"))))
    assert result.state is CommandState.FAILED
    assert "other.json is the record of edge-app" in result.reason
