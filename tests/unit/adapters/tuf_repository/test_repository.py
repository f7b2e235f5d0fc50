"""The repository of updates: what ceremonies make, what publishing signs, what the controller's timer renews."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Targets

from controller.adapters.tuf_repository.ceremony import RoleKeyPlan, init, renew, rotate
from controller.adapters.tuf_repository.publishing import unpacked_bytes, withdraw
from controller.adapters.tuf_repository.repository import TufUpdateRepository
from controller.adapters.tuf_repository.signing import is_signed, sign_online, verified_targets, warnings
from controller.ports.updates import NoRepositoryError, UpdatesError
from tests.support.updates import PASSPHRASE, Repository, archive, ask, repository


@pytest.fixture
def made(tmp_path: Path) -> Repository:
    return repository(tmp_path)


def test_offline_keys_are_behind_their_passphrase_and_online_keys_for_their_owner(made: Repository) -> None:
    files = sorted(path.name for path in made.keys.iterdir())
    assert files == ["root-1.pem", "root-2.pem", "targets-1.pem"]
    for path in made.keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(TypeError):
            load_pem_private_key(path.read_bytes(), None)
        assert load_pem_private_key(path.read_bytes(), PASSPHRASE.encode())
    assert stat.S_IMODE(made.folder.online.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.folder.online.iterdir()} == {0o600}
    assert not any(path.suffix == ".pem" for path in made.served.rglob("*"))


def test_a_weak_passphrase_makes_no_key(tmp_path: Path) -> None:
    fresh = Repository(tmp_path)
    with pytest.raises(UpdatesError, match="too weak: it has 8 characters"):
        init(
            fresh.folder,
            fresh.keys,
            {r: RoleKeyPlan(1, 1) for r in ("root", "targets")},
            lambda _p, _n: "sunshine",
            fresh.at,
        )
    assert not fresh.folder.is_there
    assert not list(fresh.keys.glob("*"))


@pytest.mark.parametrize("plan", [RoleKeyPlan(1, 2), RoleKeyPlan(17, 1), RoleKeyPlan(1, 0)])
def test_thresholds_that_cannot_be_are_refused(tmp_path: Path, plan: RoleKeyPlan) -> None:
    fresh = Repository(tmp_path)
    with pytest.raises(UpdatesError, match="keys cannot be"):
        init(fresh.folder, fresh.keys, {"root": plan, "targets": RoleKeyPlan(1, 1)}, ask, fresh.at)


def test_a_repository_is_made_once(made: Repository) -> None:
    with pytest.raises(UpdatesError, match="already"):
        init(made.folder, made.keys, {r: RoleKeyPlan(1, 1) for r in ("root", "targets")}, ask, made.at)


def test_what_is_published_is_listed_signed_and_where_devices_look(made: Repository) -> None:
    content = archive({"bin/app": "one"})
    found = made.publish("edge-app", "1.0", content, health={"command": ["bin/app"]})
    (listed,) = TufUpdateRepository(made.folder.base).published()
    assert listed == found
    assert listed.target.health.command == ("bin/app",)
    served = made.served / "targets" / "edge-app" / "1.0" / f"{found.sha256}.content.tar.gz"
    assert served.read_bytes() == content
    roles = {one.role: one for one in TufUpdateRepository(made.folder.base).roles()}
    assert {name: one.version for name, one in roles.items()} == {
        "root": 1,
        "targets": 2,
        "snapshot": 2,
        "timestamp": 2,
    }
    assert (roles["root"].keys, roles["root"].threshold) == (2, 2)


def test_a_version_never_changes(made: Repository) -> None:
    made.publish("edge-app", "1.0", b"x", file="a.bin")
    with pytest.raises(UpdatesError, match="published already"):
        made.publish("edge-app", "1.0", b"y", file="b.bin")


def test_withdrawing_takes_it_from_metadata_and_disk(made: Repository) -> None:
    made.publish("edge-app", "1.0", b"x", file="a.bin")
    assert withdraw(made.folder, "edge-app", "1.0", made.keys, ask, made.at) == "edge-app/1.0/a.bin"
    assert TufUpdateRepository(made.folder.base).published() == ()
    assert not list((made.served / "targets").rglob("*.bin"))
    with pytest.raises(UpdatesError, match="not published"):
        withdraw(made.folder, "edge-app", "1.0", made.keys, ask, made.at)


def test_a_wrong_passphrase_or_too_few_keys_sign_nothing(made: Repository) -> None:
    found = made.publish("edge-app", "1.0", b"x", file="a.bin")
    with pytest.raises(UpdatesError, match="passphrase is wrong"):
        withdraw(made.folder, "edge-app", "1.0", made.keys, lambda _p, _n: "wrong", made.at)
    (made.keys / "targets-1.pem").rename(made.keys / "elsewhere")
    with pytest.raises(UpdatesError, match="1 keys of the role targets have to sign"):
        withdraw(made.folder, "edge-app", "1.0", made.keys, ask, made.at)
    assert TufUpdateRepository(made.folder.base).published() == (found,)


def test_an_offline_key_that_others_can_read_is_refused(made: Repository) -> None:
    (made.keys / "targets-1.pem").chmod(0o644)
    with pytest.raises(UpdatesError, match="chmod 600"):
        made.publish("edge-app", "1.0", b"x", file="a.bin")


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_rotated_keys_replace_all_of_a_role_and_the_chain_holds(made: Repository, role: str) -> None:
    made.publish("edge-app", "1.0", b"x", file="a.bin")
    before = made.folder.root().signed
    fresh = rotate(made.folder, made.keys, role, RoleKeyPlan(2, 2) if role == "targets" else None, ask, made.at)
    root = made.folder.root()
    assert set(root.signed.roles[role].keyids) == set(fresh)
    assert not set(fresh) & set(before.roles[role].keyids)
    before.verify_delegate("root", root.signed_bytes, root.signatures)  # the old keys say so too
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    assert len(TufUpdateRepository(made.folder.base).published()) == 1
    for metadata in (made.folder.snapshot(), made.folder.timestamp()):
        assert metadata is not None
        assert is_signed(root.signed, metadata)
    made.publish("edge-app", "2.0", b"y", file="a.bin")  # and the new keys can publish
    if role == "targets":
        assert root.signed.roles["targets"].threshold == 2
        assert len(made.folder.newest_targets().signatures) == 2


def test_renewed_roles_hold_longer(made: Repository) -> None:
    later = made.at + timedelta(days=160)
    assert any(
        "targets ends in 19 days" in text or "targets ends in 20 days" in text for text in warnings(made.folder, later)
    )
    assert renew(made.folder, made.keys, "targets", ask, later) > later + timedelta(days=179)
    assert renew(made.folder, made.keys, "root", ask, later) > later + timedelta(days=364)
    assert warnings(made.folder, later) == ()
    with pytest.raises(UpdatesError, match="signed by the running controller"):
        renew(made.folder, made.keys, "timestamp", ask, later)
    assert "has ended" in " ".join(warnings(made.folder, later + timedelta(days=200)))


def test_online_roles_are_renewed_in_time_and_not_before(made: Repository) -> None:
    product = TufUpdateRepository(made.folder.base)
    start = made.at.timestamp()
    assert product.refresh(start + 3600).signed == ()
    assert product.refresh(start + 13 * 3600).signed == ("timestamp",)
    assert product.refresh(start + 4 * 86_400).signed == ("snapshot", "timestamp")
    for day in range(5, 200, 4):
        product.refresh(start + day * 86_400)
    assert len(made.folder.versions("snapshot")) <= 16


def test_what_offline_keys_signed_elsewhere_is_taken_in_by_the_controller(made: Repository, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    made.folder.online.rename(hidden)
    found = made.publish("edge-app", "1.0", b"x", file="a.bin")
    snapshot = made.folder.snapshot()
    assert snapshot is not None
    assert snapshot.signed.meta["targets.json"].version == 1
    hidden.rename(made.folder.online)
    assert TufUpdateRepository(made.folder.base).refresh(made.at.timestamp()).signed == ("snapshot", "timestamp")
    assert TufUpdateRepository(made.folder.base).published() == (found,)


def test_targets_that_too_few_keys_signed_are_never_published(made: Repository) -> None:
    forged: Metadata[Targets] = made.folder.newest_targets()
    forged.signed.version += 1
    forged.signatures.clear()
    made.folder.write(forged)
    with pytest.raises(UpdatesError, match="not signed by enough keys"):
        sign_online(made.folder, made.at)
    with pytest.raises(UpdatesError, match="not signed by enough keys"):
        verified_targets(made.folder, made.folder.root().signed)
    with pytest.raises(UnsignedMetadataError):
        made.folder.root().signed.verify_delegate("targets", forged.signed_bytes, forged.signatures)


def test_a_stranger_s_online_key_is_not_used(made: Repository, tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    (other.folder.online / "timestamp.pem").replace(made.folder.online / "timestamp.pem")
    with pytest.raises(UpdatesError, match="not the key that the root names"):
        sign_online(made.folder, made.at, force=True)


def test_archives_are_looked_through_before_they_are_signed(tmp_path: Path) -> None:
    good = tmp_path / "good.tar.gz"
    good.write_bytes(archive({"a": "12345", "b/c": "123"}))
    assert unpacked_bytes(good) == 8
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(archive({"../../etc/passwd": "x"}))
    with pytest.raises(UpdatesError, match="would unpack"):
        unpacked_bytes(bad)


def test_without_a_repository_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoRepositoryError, match="cordon update init"):
        TufUpdateRepository(tmp_path / "nothing").published()


UNINSTALLABLE = [
    ("fileset", "file", "current", "app.tar.gz", "uses the name"),
    ("script", "script", "installed", "tune.sh", "uses the name"),
    ("apt", "package", "v1.0", "app.deb", "begins with a digit"),
    ("apt", "package", "1.0_1", "app.deb", "begins with a digit"),
    ("apt", "package", "1.0-1", "app.bin", "end in .deb"),
    ("dnf", "package", "1.0", "app.rpm", "VERSION-RELEASE"),
    ("dnf", "package", "0:1.0-1", "app.rpm", "without an epoch of 0"),
    ("dnf", "package", "1.0-1", "app.deb", "end in .rpm"),
    ("apk", "package", "1.0", "app.apk", "VERSION-rN"),
    ("apk", "package", "1.0-r0", "app.tar.gz", "end in .apk"),
    ("opkg", "package", "1.0", "app.pkg", "end in .ipk"),
]


@pytest.mark.parametrize(("installer", "kind", "version", "file", "words"), UNINSTALLABLE)
def test_what_no_device_can_install_is_not_published(
    made: Repository, installer: str, kind: str, version: str, file: str, words: str
) -> None:
    with pytest.raises(UpdatesError, match=words):
        made.publish("app", version, b"content", file=file, installer=installer, kind=kind, installed_bytes=7)
    assert not (made.folder.targets / "app").exists()


@pytest.mark.parametrize(
    ("installer", "kind", "version", "file"),
    [
        ("script", "script", "current", "tune.sh"),
        ("fileset", "file", "installed", "app.bin"),
        ("apt", "package", "2:1.0~rc1+b1-1", "app.deb"),
        ("dnf", "package", "1:1.0~rc1-3.fc41", "app.rpm"),
        ("apk", "package", "1.36.1-r29", "app.apk"),
        ("opkg", "package", "git-21.1", "app.ipk"),
        ("hook", "image", "V1", "system.raucb"),
    ],
)
def test_what_devices_can_install_is_published(
    made: Repository, installer: str, kind: str, version: str, file: str
) -> None:
    found = made.publish("app", version, b"content", file=file, installer=installer, kind=kind, installed_bytes=7)
    assert found.path == f"app/{version}/{file}"


@pytest.mark.parametrize(
    ("other", "value", "is_ordered"),
    [
        ({}, "1.4.0", True),
        ({}, "1.4.0-rc.1", True),
        ({}, "1.4~rc1", False),
        ({}, "2024a", False),
        ({"kind": "package", "installer": "apt", "file": "lib.deb"}, "1:1.4~rc1-1", True),
        ({"kind": "package", "installer": "apt", "file": "lib.deb"}, "1_4", False),
        ({"kind": "package", "installer": "apk", "file": "lib.apk"}, "1.4_git20240101-r0", True),
        ({"kind": "package", "installer": "apk", "file": "lib.apk"}, "1.4~rc1x", False),
    ],
)
def test_a_requirement_that_the_other_update_s_versions_cannot_meet_is_not_published(
    made: Repository, other: dict[str, str], value: str, is_ordered: bool
) -> None:
    version = "1.4-r0" if other.get("installer") == "apk" else "1.4"
    content = archive({"a": "b"}) if not other else b"package"
    made.publish("lib", version, content, **other)
    requires = [{"what": "installed:lib", "op": ">=", "value": value}]
    if is_ordered:
        made.publish("app", "1.0", archive({"a": "b"}), requires=requires)
        return
    with pytest.raises(UpdatesError, match="has no order among the versions that"):
        made.publish("app", "1.0", archive({"a": "b"}), requires=requires)
    made.publish("app", "1.0", archive({"a": "b"}), requires=[{**requires[0], "op": "=="}])
