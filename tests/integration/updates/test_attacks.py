"""A malicious repository: every attack is refused, what is installed stays, and the controller hears the reason.

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
from device_agent.updates import download
from schemas.commands import CommandState
from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, archive, ask, order, repository

CHECK = {"command": ["bin/check"], "seconds": 1}


def app(version: str) -> bytes:
    return archive({"bin/check": "#!/bin/sh\nexit 0\n", "version": version}, executable=("bin/check",))


class Scene:
    """A device with version 1.0 installed and 1.1 published; what an attacker then does is up to the test."""

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
        """The newest metadata of a role, one version further, changed and signed by the attacker."""
        metadata: Metadata[Any] = Metadata.from_file(str(self._newest(role)))
        metadata.signed.version += 1
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        file = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        self.server.replace[f"/metadata/{name or file}"] = metadata.to_bytes()

    def forge_snapshot(self, targets_version: int) -> None:
        """With both online keys: a snapshot that names this version of the targets role."""

        def snapshot(signed: Snapshot) -> None:
            signed.meta["targets.json"] = MetaFile(version=targets_version)

        def timestamp(signed: Timestamp) -> None:
            signed.snapshot_meta = MetaFile(version=self.version("snapshot") + 1)

        self.forge("snapshot", snapshot, [self.online("snapshot")])
        self.forge("timestamp", timestamp, [self.online("timestamp")])

    def version(self, role: str) -> int:
        """The newest that is published."""
        return self.made.folder.versions(role)[-1]

    def refused(self, code: str, found: PublishedUpdate | None = None, phase: str = "refused") -> None:
        """The order for 1.1 is refused, the reason told, and 1.0 untouched."""
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
        """Once the attacker is gone the update goes through."""
        for knob in (self.server.replace, self.server.missing, self.server.endless, self.server.slow):
            knob.clear()
        assert self.device.install(order(self.next)).detail["phase"] == "confirmed"
        assert self.device.entry().version == "1.1"

    def _newest(self, role: str) -> Path:
        if role == "timestamp":
            return self.metadata / "timestamp.json"
        return self.metadata / f"{self.version(role)}.{role}.json"


@pytest.fixture
def scene(made: Repository, server: UpdateServer, device: UpdateDevice) -> Scene:
    return Scene(made, server, device)


def test_rollback_to_metadata_of_before(scene: Scene) -> None:
    assert scene.device.install(order(scene.next)).detail["phase"] == "confirmed"
    scene.device.go_back("edge-app", "1.1")
    scene.server.replace["/metadata/timestamp.json"] = scene.old["timestamp.json"]
    scene.refused("rollback")


def test_rollback_of_the_targets_role_with_stolen_online_keys(scene: Scene) -> None:
    scene.forge_snapshot(targets_version=1)
    scene.refused("rollback")


def test_freeze_by_metadata_that_has_ended(scene: Scene) -> None:
    def ended(signed: Timestamp) -> None:
        signed.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)

    scene.forge("timestamp", ended, [scene.online("timestamp")])
    scene.refused("freeze")


def test_freeze_by_serving_the_same_for_ever(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in scene.old.items():
        scene.server.replace[f"/metadata/{name}"] = content
    scene.refused("not_found")  # while it holds, only what is old can be had
    _shift(scene.device, timedelta(days=2), monkeypatch)
    scene.refused("freeze")


def test_mix_and_match_of_snapshots(scene: Scene) -> None:
    newest = scene.version("snapshot")
    scene.server.replace[f"/metadata/{newest}.snapshot.json"] = scene.old[f"{newest - 1}.snapshot.json"]
    scene.refused("mix_and_match")
    scene.heals()


def test_mix_and_match_of_targets_roles(scene: Scene) -> None:
    newest = scene.version("targets")
    scene.server.replace[f"/metadata/{newest}.targets.json"] = scene.old[f"{newest - 1}.targets.json"]
    scene.refused("mix_and_match")
    scene.heals()


def test_another_content_of_the_same_length(scene: Scene) -> None:
    content = bytearray(app("1.1"))
    content[-1] ^= 1
    scene.server.replace["content.tar.gz"] = bytes(content).ljust(scene.next.length, b"\0")[: scene.next.length]
    scene.refused("wrong_hash")
    scene.heals()


def test_a_content_that_is_too_short(scene: Scene) -> None:
    scene.server.replace["content.tar.gz"] = b"short"
    scene.refused("wrong_length")
    scene.heals()


def test_a_content_that_is_too_long(scene: Scene) -> None:
    scene.server.replace["content.tar.gz"] = b"x" * (scene.next.length + 1)
    scene.refused("endless_data")
    scene.heals()


@pytest.mark.parametrize("path", ["timestamp.json", "snapshot.json", "targets.json", "2.root.json", "content.tar.gz"])
def test_data_without_end(scene: Scene, path: str) -> None:
    scene.server.endless.add(path)
    scene.refused("endless_data")
    kept = [one for one in (scene.device.settings.agent.state_dir / "updates").rglob("*") if one.is_file()]
    assert sum(one.stat().st_size for one in kept) < 2_000_000
    scene.heals()


@pytest.mark.parametrize("path", ["timestamp.json", "content.tar.gz"])
def test_slow_retrieval(scene: Scene, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(download, "MAX_FAILURES", 2)
    source = scene.device.updater.tuf_client._source
    monkeypatch.setattr(scene.device.updater.tuf_client, "_source", _faster(source))
    scene.server.slow.add(path)
    scene.refused("slow_retrieval")
    scene.heals()


def _faster(source: Any) -> Any:
    from dataclasses import replace

    return replace(source, min_bytes_per_second=1000.0)


def test_a_target_that_no_targets_key_signed(scene: Scene) -> None:
    stranger = CryptoSigner.generate_ed25519()
    scene.forge("targets", lambda _signed: None, [stranger])
    scene.forge_snapshot(targets_version=scene.version("targets") + 1)
    scene.refused("bad_signature")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Scene]:
    """A repository whose targets role two keys have to sign."""
    made = repository(tmp_path / "guarded", targets=RoleKeyPlan(2, 2))
    with UpdateServer(made.served) as server:
        device = UpdateDevice(tmp_path / "guarded-device", server.url, made.first_root)
        yield Scene(made, server, device)
        device.stop()


def test_fewer_stolen_targets_keys_than_have_to_sign(guarded: Scene) -> None:
    root = guarded.made.folder.root().signed
    (stolen,) = load_offline(guarded.made.keys, "targets", root.roles["targets"].keyids, 1, ask)

    def evil(signed: Targets) -> None:
        signed.targets["edge-app/1.1/content.tar.gz"].length += 1

    # One signature of the stolen key, and the same one again: a key counts once.
    guarded.forge("targets", evil, [stolen, stolen])
    guarded.forge_snapshot(targets_version=guarded.version("targets") + 1)
    guarded.refused("bad_signature")


def test_a_root_that_the_old_root_did_not_sign(scene: Scene) -> None:
    mine = [CryptoSigner.generate_ed25519() for _ in range(2)]

    def take_over(signed: Root) -> None:
        for role in signed.roles.values():
            role.keyids.clear()
            role.threshold = 1
        for role_name in list(signed.roles):
            for signer in mine:
                signed.add_key(signer.public_key, role_name)

    scene.forge("root", take_over, mine)
    scene.refused("bad_signature")


def test_a_root_with_fewer_old_signatures_than_its_threshold(scene: Scene) -> None:
    root = scene.made.folder.root().signed
    (stolen,) = load_offline(scene.made.keys, "root", root.roles["root"].keyids, 1, ask)
    mine = CryptoSigner.generate_ed25519()

    def take_over(signed: Root) -> None:
        signed.add_key(mine.public_key, "root")
        signed.roles["root"].threshold = 1
        signed.add_key(mine.public_key, "targets")

    scene.forge("root", take_over, [stolen, mine])
    scene.refused("bad_signature")


def test_a_root_that_leaves_versions_out(scene: Scene) -> None:
    root = scene.made.folder.root().signed
    signers = load_offline(scene.made.keys, "root", root.roles["root"].keyids, 2, ask)

    def leap(signed: Root) -> None:
        signed.version = 7

    scene.forge("root", leap, signers, name="2.root.json")
    scene.refused("rollback")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("timestamp.json", "missing_metadata"),
        ("snapshot.json", "missing_metadata"),
        ("targets.json", "missing_metadata"),
        ("content.tar.gz", "not_found"),
    ],
)
def test_deleted_files(scene: Scene, path: str, code: str) -> None:
    scene.server.missing.add(path)
    scene.refused(code)
    scene.heals()


def test_metadata_that_is_none(scene: Scene) -> None:
    scene.server.replace["/metadata/timestamp.json"] = b'{"signed": []}'
    scene.refused("bad_metadata")
    scene.heals()


def test_what_the_device_remembers_is_kept_twice(scene: Scene) -> None:
    assert scene.device.install(order(scene.next)).detail["phase"] == "confirmed"
    scene.device.go_back("edge-app", "1.1")
    cache = scene.device.settings.agent.state_dir / "updates/tuf"
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        (cache / name).unlink()
    for name, content in scene.old.items():
        scene.server.replace[f"/metadata/{name}"] = content
    scene.refused("rollback")


def test_versions_counted_up_by_a_stolen_online_key_heal_with_its_rotation(scene: Scene) -> None:
    def far(signed: Timestamp) -> None:
        signed.version = 1_000_000

    scene.forge("timestamp", far, [scene.online("timestamp")])
    assert scene.device.install(order(scene.next)).detail["phase"] == "confirmed"
    scene.server.replace.clear()
    fresh = scene.made.publish("edge-app", "1.2", app("1.2"), health=CHECK)
    assert scene.device.install(order(fresh)).detail["reason_code"] == "rollback"
    rotate(scene.made.folder, scene.made.keys, "timestamp", None, ask, scene.made.at)
    assert scene.device.install(order(fresh)).detail["phase"] == "confirmed"


def test_a_clock_that_was_set_back(scene: Scene) -> None:
    scene.device.clock.shift = -timedelta(days=3)
    scene.refused("clock")
    scene.device.clock.shift = timedelta()
    scene.heals()


def test_a_clock_that_was_set_forward(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _shift(scene.device, timedelta(days=30), patch)
        scene.refused("freeze")
    scene.device.clock.shift = timedelta()
    scene.heals()


def _shift(device: UpdateDevice, by: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock, for the agent and for python-tuf, which reads it by itself."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + by

    shifted = types.SimpleNamespace(datetime=Shifted, timezone=trusted_metadata_set.datetime.timezone)
    monkeypatch.setattr(trusted_metadata_set, "datetime", shifted)
    device.clock.shift = by


def test_a_server_that_is_away_fails_and_refuses_nothing(scene: Scene) -> None:
    scene.server._server.shutdown()
    scene.server._server.server_close()
    scene.refused("unreachable", phase="failed")


def test_an_archive_that_leaves_its_folder(scene: Scene) -> None:
    content = archive({"version": "1.1", "../../../outside": "x"})
    evil = scene.made.publish("edge-app", "1.3", content, installed_bytes=100)
    result = scene.device.install(order(evil))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "install")
    assert not list(scene.device.base.rglob("outside"))
    assert scene.device.entry().version == "1.0"


def test_an_archive_that_unpacks_to_more_than_was_signed(scene: Scene) -> None:
    content = archive({"version": "1.1", "zeros": "0" * 1_000_000})
    bomb = scene.made.publish("edge-app", "1.3", content, installed_bytes=1000)
    result = scene.device.install(order(bomb))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "install")
    assert "more than was signed" in result.reason
    assert scene.device.entry().version == "1.0"
