"""A malicious repository: every attack is refused and reported, and the installed version stays.

The attacker owns the server, and where a test says so the online keys, or fewer offline keys than have to sign.
"""

import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.ngclient._internal import trusted_metadata_set

from controller.adapters.tuf_repository.ceremony import RoleKeyPlan, rotate
from controller.adapters.tuf_repository.keys import load_offline, load_online
from controller.ports.updates import PublishedUpdate
from device_agent.updates import download, tuf_client
from schemas.commands import CommandState
from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, archive, ask, order, repository

CHECK = {"command": ["bin/check"], "seconds": 1}


def app(version: str) -> bytes:
    return archive({"bin/check": "#!/bin/sh\nexit 0\n", "version": version}, executable=("bin/check",))


class Scenario:
    """A device with version 1.0 installed and 1.1 published, before an attack."""

    def __init__(self, made: Repository, server: UpdateServer, device: UpdateDevice) -> None:
        self.made, self.server, self.device = made, server, device
        self.metadata = made.folder.metadata
        self.first = made.publish("edge-app", "1.0", app("1.0"), health=CHECK)
        assert device.install(order(self.first)).state is CommandState.SUCCEEDED
        self.old = {path.name: path.read_bytes() for path in self.metadata.iterdir()}
        self.next = made.publish("edge-app", "1.1", app("1.1"), health=CHECK)

    def online(self, role: str) -> CryptoSigner:
        """A stolen online key."""
        return load_online(self.made.folder.online, role)

    def forge(self, role: str, change: Callable[[Any], None], signers: list[CryptoSigner], name: str = "") -> None:
        """Publishes the next version of a role's metadata, changed and signed by the attacker."""
        metadata: Metadata[Any] = Metadata.from_file(str(self._newest(role)))
        metadata.signed.version += 1
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        file = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        self.server.replace[f"/metadata/{name or file}"] = metadata.to_bytes()

    def forge_snapshot(self, targets_version: int) -> None:
        """With both online keys: publishes a snapshot with this version of the targets role."""

        def snapshot(signed: Snapshot) -> None:
            signed.meta["targets.json"] = MetaFile(version=targets_version)

        def timestamp(signed: Timestamp) -> None:
            signed.snapshot_meta = MetaFile(version=self.version("snapshot") + 1)

        self.forge("snapshot", snapshot, [self.online("snapshot")])
        self.forge("timestamp", timestamp, [self.online("timestamp")])

    def version(self, role: str) -> int:
        """Returns the newest published version of a role."""
        return self.made.folder.versions(role)[-1]

    def refused(self, code: str, found: PublishedUpdate | None = None, phase: str = "refused") -> None:
        """Asserts that the order for 1.1 is refused with a reported reason, and 1.0 is untouched."""
        before = {path: path.read_bytes() for path in self.device.current.rglob("*") if path.is_file()}
        seconds = 600.0 + max(0.0, self.device.clock.shift.total_seconds())
        result = self.device.install(order(found or self.next, seconds=seconds))
        assert (result.state, result.detail["phase"]) == (CommandState.FAILED, phase), result
        assert result.detail["reason_code"] == code, result
        assert len(result.reason) > 10
        entry = self.device.entry()
        assert (entry.version, entry.health, entry.outcome, entry.attempted) == ("1.0", "ok", phase, "1.1")
        assert entry.reason
        assert {path: path.read_bytes() for path in self.device.current.rglob("*") if path.is_file()} == before

    def heals(self) -> None:
        """Asserts that the update succeeds after the attack."""
        for knob in (self.server.replace, self.server.missing, self.server.endless, self.server.slow):
            knob.clear()
        assert self.device.install(order(self.next)).detail["phase"] == "confirmed"
        assert self.device.entry().version == "1.1"

    def _newest(self, role: str) -> Path:
        if role == "timestamp":
            return self.metadata / "timestamp.json"
        return self.metadata / f"{self.version(role)}.{role}.json"


@pytest.fixture
def scenario(made: Repository, server: UpdateServer, device: UpdateDevice) -> Scenario:
    return Scenario(made, server, device)


def test_rollback_to_older_metadata(scenario: Scenario) -> None:
    assert scenario.device.install(order(scenario.next)).detail["phase"] == "confirmed"
    scenario.device.go_back("edge-app", "1.1")
    scenario.server.replace["/metadata/timestamp.json"] = scenario.old["timestamp.json"]
    scenario.refused("rollback")


def test_rollback_of_the_targets_role_with_stolen_online_keys(scenario: Scenario) -> None:
    scenario.forge_snapshot(targets_version=1)
    scenario.refused("rollback")


def test_freeze_by_expired_metadata(scenario: Scenario) -> None:
    def ended(signed: Timestamp) -> None:
        signed.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)

    scenario.forge("timestamp", ended, [scenario.online("timestamp")])
    scenario.refused("freeze")


def test_freeze_by_repeating_old_metadata(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in scenario.old.items():
        scenario.server.replace[f"/metadata/{name}"] = content
    scenario.refused("not_found")  # while it is valid, only old targets are available
    _shift(scenario.device, timedelta(days=2), monkeypatch)
    scenario.refused("freeze")


def test_mix_and_match_of_snapshots(scenario: Scenario) -> None:
    newest = scenario.version("snapshot")
    scenario.server.replace[f"/metadata/{newest}.snapshot.json"] = scenario.old[f"{newest - 1}.snapshot.json"]
    scenario.refused("mix_and_match")
    scenario.heals()


def test_mix_and_match_of_targets_roles(scenario: Scenario) -> None:
    newest = scenario.version("targets")
    scenario.server.replace[f"/metadata/{newest}.targets.json"] = scenario.old[f"{newest - 1}.targets.json"]
    scenario.refused("mix_and_match")
    scenario.heals()


def test_other_content_of_the_same_length(scenario: Scenario) -> None:
    content = bytearray(app("1.1"))
    content[-1] ^= 1
    scenario.server.replace["content.tar.gz"] = bytes(content).ljust(scenario.next.length, b"\0")[
        : scenario.next.length
    ]
    scenario.refused("wrong_hash")
    scenario.heals()


def test_content_that_is_too_short(scenario: Scenario) -> None:
    scenario.server.replace["content.tar.gz"] = b"short"
    scenario.refused("wrong_length")
    scenario.heals()


def test_content_that_is_too_long(scenario: Scenario) -> None:
    scenario.server.replace["content.tar.gz"] = b"x" * (scenario.next.length + 1)
    scenario.refused("endless_data")
    scenario.heals()


@pytest.mark.parametrize("path", ["timestamp.json", "snapshot.json", "targets.json", "2.root.json", "content.tar.gz"])
def test_endless_data(scenario: Scenario, path: str) -> None:
    scenario.server.endless.add(path)
    scenario.refused("endless_data")
    kept = [one for one in (scenario.device.settings.agent.state_dir / "updates").rglob("*") if one.is_file()]
    assert sum(one.stat().st_size for one in kept) < 2_000_000
    scenario.heals()


@pytest.mark.parametrize("path", ["timestamp.json", "content.tar.gz"])
def test_slow_retrieval(scenario: Scenario, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(download, "MAX_FAILURES", 2)
    source = scenario.device.updater.tuf_client._source
    monkeypatch.setattr(scenario.device.updater.tuf_client, "_source", _faster(source))
    scenario.server.slow.add(path)
    scenario.refused("slow_retrieval")
    scenario.heals()


def _faster(source: Any) -> Any:
    from dataclasses import replace

    return replace(source, min_bytes_per_second=1000.0)


def test_a_target_without_a_signature_of_a_targets_key(scenario: Scenario) -> None:
    stranger = CryptoSigner.generate_ed25519()
    scenario.forge("targets", lambda _signed: None, [stranger])
    scenario.forge_snapshot(targets_version=scenario.version("targets") + 1)
    scenario.refused("bad_signature")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Scenario]:
    """A repository whose targets role needs two signatures."""
    made = repository(tmp_path / "guarded", targets=RoleKeyPlan(2, 2))
    with UpdateServer(made.served) as server:
        device = UpdateDevice(tmp_path / "guarded-device", server.url, made.first_root)
        yield Scenario(made, server, device)
        device.stop()


def test_fewer_stolen_targets_keys_than_the_threshold(guarded: Scenario) -> None:
    root = guarded.made.folder.root().signed
    (stolen,) = load_offline(guarded.made.keys, "targets", root.roles["targets"].keyids, 1, ask)

    def evil(signed: Targets) -> None:
        signed.targets["edge-app/1.1/content.tar.gz"].length += 1

    # The signature of the stolen key twice: a key counts once.
    guarded.forge("targets", evil, [stolen, stolen])
    guarded.forge_snapshot(targets_version=guarded.version("targets") + 1)
    guarded.refused("bad_signature")


def test_a_root_without_signatures_of_the_old_root(scenario: Scenario) -> None:
    mine = [CryptoSigner.generate_ed25519() for _ in range(2)]

    def take_over(signed: Root) -> None:
        for role in signed.roles.values():
            role.keyids.clear()
            role.threshold = 1
        for role_name in list(signed.roles):
            for signer in mine:
                signed.add_key(signer.public_key, role_name)

    scenario.forge("root", take_over, mine)
    scenario.refused("bad_signature")


def test_a_root_with_fewer_old_signatures_than_the_threshold(scenario: Scenario) -> None:
    root = scenario.made.folder.root().signed
    (stolen,) = load_offline(scenario.made.keys, "root", root.roles["root"].keyids, 1, ask)
    mine = CryptoSigner.generate_ed25519()

    def take_over(signed: Root) -> None:
        signed.add_key(mine.public_key, "root")
        signed.roles["root"].threshold = 1
        signed.add_key(mine.public_key, "targets")

    scenario.forge("root", take_over, [stolen, mine])
    scenario.refused("bad_signature")


def test_a_root_that_skips_versions(scenario: Scenario) -> None:
    root = scenario.made.folder.root().signed
    signers = load_offline(scenario.made.keys, "root", root.roles["root"].keyids, 2, ask)

    def leap(signed: Root) -> None:
        signed.version = 7

    scenario.forge("root", leap, signers, name="2.root.json")
    scenario.refused("rollback")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("timestamp.json", "missing_metadata"),
        ("snapshot.json", "missing_metadata"),
        ("targets.json", "missing_metadata"),
        ("content.tar.gz", "not_found"),
    ],
)
def test_missing_files_of_the_repository(scenario: Scenario, path: str, code: str) -> None:
    scenario.server.missing.add(path)
    scenario.refused(code)
    scenario.heals()


def test_invalid_metadata(scenario: Scenario) -> None:
    scenario.server.replace["/metadata/timestamp.json"] = b'{"signed": []}'
    scenario.refused("bad_metadata")
    scenario.heals()


def test_deleting_the_cache_or_the_high_water_mark_enables_no_rollback(scenario: Scenario) -> None:
    assert scenario.device.install(order(scenario.next)).detail["phase"] == "confirmed"
    scenario.device.go_back("edge-app", "1.1")
    cache = scenario.device.settings.agent.state_dir / "updates/tuf"
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        (cache / name).unlink()
    for name, content in scenario.old.items():
        scenario.server.replace[f"/metadata/{name}"] = content
    scenario.refused("rollback")


def test_rotating_a_stolen_online_key_repairs_increased_versions(scenario: Scenario) -> None:
    def far(signed: Timestamp) -> None:
        signed.version = 1_000_000

    scenario.forge("timestamp", far, [scenario.online("timestamp")])
    assert scenario.device.install(order(scenario.next)).detail["phase"] == "confirmed"
    scenario.server.replace.clear()
    fresh = scenario.made.publish("edge-app", "1.2", app("1.2"), health=CHECK)
    assert scenario.device.install(order(fresh)).detail["reason_code"] == "rollback"
    rotate(scenario.made.folder, scenario.made.keys, "timestamp", None, ask, scenario.made.at)
    assert scenario.device.install(order(fresh)).detail["phase"] == "confirmed"


def test_a_clock_that_was_set_back_is_detected(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuf_client, "CLOCK_WAIT", 0.1)
    scenario.device.clock.shift = -timedelta(days=3)
    scenario.refused("clock")
    scenario.device.clock.shift = timedelta()
    scenario.heals()


def test_a_clock_that_was_set_forward_expires_metadata(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _shift(scenario.device, timedelta(days=30), patch)
        scenario.refused("freeze")
    scenario.device.clock.shift = timedelta()
    scenario.heals()


def _shift(device: UpdateDevice, by: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the machine, for the agent and for python-tuf, which reads it directly."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + by

    shifted = types.SimpleNamespace(datetime=Shifted, timezone=trusted_metadata_set.datetime.timezone)
    monkeypatch.setattr(trusted_metadata_set, "datetime", shifted)
    device.clock.shift = by


def test_an_unreachable_server_is_a_failure_and_no_refusal(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_RETRY_SECONDS", (0.0,))
    scenario.server._server.shutdown()
    scenario.server._server.server_close()
    scenario.refused("unreachable", phase="failed")


def test_an_archive_with_paths_outside_its_folder(scenario: Scenario) -> None:
    content = archive({"version": "1.1", "../../../outside": "x"})
    evil = scenario.made.publish("edge-app", "1.3", content, installed_bytes=100)
    result = scenario.device.install(order(evil))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "install")
    assert not list(scenario.device.base.rglob("outside"))
    assert scenario.device.entry().version == "1.0"


def test_an_archive_that_unpacks_to_more_than_was_signed(scenario: Scenario) -> None:
    content = archive({"version": "1.1", "zeros": "0" * 1_000_000})
    bomb = scenario.made.publish("edge-app", "1.3", content, installed_bytes=1000)
    result = scenario.device.install(order(bomb))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "install")
    assert "more than 1000 bytes" in result.reason
    assert scenario.device.entry().version == "1.0"
