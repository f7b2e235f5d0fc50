"""Disk encryption on prepared roots: file systems and swap traced through every device below them."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.policy.facts import gather_facts
from device_agent.collectors.system import disk, fscrypt, zfs
from device_agent.collectors.system.block_devices import (
    BlockDevices,
    EncryptionStatus,
    cipher_in_status,
    cipher_in_table,
    read_cipher,
)
from device_agent.collectors.system.mounts import is_below
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System
from schemas.posture import ReportSections
from tests.support.root_folder import gap_texts, put

MOUNT = "{id} 1 {numbers} / {path} {options},relatime shared:1 - {kind} {source} {super}\n"


def collect(root: Path) -> dict[str, Any]:
    section = disk.collect(System(root, is_root_user=True))
    assert normalise_findings({"disk": section}).sections["disk"]["state"] == "ok"
    return section


def mounts(*lines: tuple[str, ...]) -> str:
    """Returns the text of mountinfo; a fifth value is the options of the file system."""
    return "".join(
        MOUNT.format(
            id=n, numbers=numbers, path=path, kind=kind, source=source, options=(more or ["rw"])[0].split(",")[0],
            super=(more or ["rw"])[0],
        )
        for n, (numbers, path, kind, source, *more) in enumerate(lines)
    )  # fmt: skip


def answers(root: Path) -> tuple[object, object, object]:
    section = collect(root)
    return section["root_encrypted"], section["data_encrypted"], section["swap"]


def block(root: Path, name: str, numbers: str, *, uuid: str = "", dm: str = "", below: tuple[str, ...] = ()) -> None:
    folder = root / "sys/class/block" / name
    folder.mkdir(parents=True, exist_ok=True)
    (root / "sys/dev/block").mkdir(parents=True, exist_ok=True)
    (root / "sys/dev/block" / numbers).symlink_to(folder)
    if dm:
        put(folder, "dm/uuid", uuid + "\n")
        put(folder, "dm/name", dm + "\n")
    (folder / "slaves").mkdir(exist_ok=True)
    for slave in below:
        (folder / "slaves" / slave).symlink_to(root / "sys/class/block" / slave)


def test_root_on_lvm_on_luks_with_open_data_and_swap(tmp_path: Path) -> None:
    lines = mounts(
        ("252:1", "/", "ext4", "/dev/mapper/vg-root"), ("8:1", "/boot", "ext4", "/dev/sda1"),
        ("8:17", "/srv/my\\040data", "xfs", "/dev/sdb1"),
        ("0:5", "/proc", "proc", "proc"), ("0:9", "/run", "tmpfs", "x"),
    )  # fmt: skip
    put(tmp_path, "/proc/self/mountinfo", lines)
    put(
        tmp_path,
        "/proc/swaps",
        "Filename Type Size Used Priority\n/dev/dm-2 partition 1 0 -2\n/dev/zram0 partition 1 0 9\n",
    )
    for name, numbers in (("sda1", "8:1"), ("sda2", "8:2"), ("sdb1", "8:17")):
        block(tmp_path, name, numbers)
    block(tmp_path, "dm-0", "252:0", uuid="CRYPT-LUKS2-0123-crypt", dm="crypt", below=("sda2",))
    block(tmp_path, "dm-1", "252:1", uuid="LVM-abc", dm="vg-root", below=("dm-0",))
    block(tmp_path, "dm-2", "252:2", uuid="CRYPT-PLAIN-swap", dm="swap", below=("sda2",))
    section = collect(tmp_path)
    assert (section["root_encrypted"], section["data_encrypted"], section["swap"]) == (True, False, "encrypted")
    encryption = {mount["path"]: (mount["encrypted"], mount["how"]) for mount in section["mounts"]}
    assert encryption == {"/": (True, "luks2"), "/boot": (False, ""), "/srv/my data": (False, "")}
    put(tmp_path, "/proc/swaps", "Filename Type Size Used Priority\n/srv/my\\040data/swap file 1 0 -2\n")
    assert collect(tmp_path)["swap"] == "plain"
    (tmp_path / "srv/my data/.fscrypt/policies").mkdir(parents=True)
    assert collect(tmp_path)["fscrypt"] == []  # set up, but nothing is encrypted


def test_verity_and_a_partly_encrypted_array_do_not_count_as_encrypted(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/proc/self/mountinfo",
        mounts(("252:0", "/", "ext4", "/dev/dm-0"), ("9:0", "/data", "ext4", "/dev/md0")),
    )
    block(tmp_path, "sda1", "8:1")
    block(tmp_path, "dm-0", "252:0", uuid="CRYPT-VERITY-abc-root", dm="root", below=("sda1",))
    block(tmp_path, "dm-1", "252:9", uuid="CRYPT-LUKS1-abc-half", dm="half", below=("sda1",))
    block(tmp_path, "md0", "9:0", below=("dm-1", "sda1"))
    section = collect(tmp_path)
    assert (section["root_encrypted"], section["data_encrypted"], section["swap"]) == (False, False, "none")


def test_btrfs_is_resolved_by_its_device_and_invisible_devices_are_unknown(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/proc/self/mountinfo",
        mounts(("0:30", "/", "btrfs", "/dev/mapper/crypt"), ("0:31", "/x", "zfs", "pool")),
    )
    block(tmp_path, "sda1", "8:1")
    block(tmp_path, "dm-0", "252:0", uuid="CRYPT-LUKS2-1-crypt", dm="crypt", below=("sda1",))
    put(tmp_path, "/sys/fs/btrfs/1-2/devices/dm-0")
    section = collect(tmp_path)
    assert (section["root_encrypted"], section["data_encrypted"]) == (True, None)
    reason = "encryption of ZFS can be read on the running system only"
    assert gap_texts(section) == [f"data_encrypted: {reason} (/x)", f"mounts: {reason} (/x)"]
    put(tmp_path, "/sys/fs/btrfs/1-2/devices/sda1")
    assert answers(tmp_path)[:2] == (False, None)
    container = put(tmp_path / "c", "/proc/self/mountinfo", mounts(("0:50", "/", "overlay", "overlay"))).parents[2]
    section = collect(container)
    assert section["root_encrypted"] is None
    assert {text.partition(":")[0] for text in gap_texts(section)} == {"root_encrypted", "data_encrypted", "mounts"}
    assert gap_texts(section)[0].endswith("the file system below an overlay is not visible from inside (/)")
    openwrt = mounts(("31:4", "/overlay", "jffs2", "/dev/mtdblock4"), ("0:20", "/", "overlay", "overlayfs:/overlay"))
    section = collect(put(tmp_path / "w", "/proc/self/mountinfo", openwrt).parents[2])
    assert section["data_encrypted"] is False
    with pytest.raises(FactsUnavailableError):
        disk.collect(System(tmp_path / "nothing"))


def test_every_device_of_btrfs_counts_and_invisible_ones_are_unknown(tmp_path: Path) -> None:
    put(tmp_path, "/proc/self/mountinfo", mounts(("0:25", "/", "btrfs", "/dev/mapper/crypt1")))
    block(tmp_path, "sda1", "8:1")
    block(tmp_path, "sdb1", "8:17")
    block(tmp_path, "dm-0", "253:0", uuid="CRYPT-LUKS2-0-crypt1", dm="crypt1", below=("sda1",))
    section = collect(tmp_path)
    assert section["root_encrypted"] is None
    assert "root_encrypted: the other devices of the file system are not visible (/)" in gap_texts(section)
    for name in ("dm-0", "sdb1"):
        put(tmp_path, f"/sys/fs/btrfs/1111-2222/devices/{name}")
    assert answers(tmp_path) == (False, False, "none")
    shutil.rmtree(tmp_path / "sys/class/block/sdb1")  # a container may not see it, the kernel knows its name
    assert answers(tmp_path) == (False, False, "none")


OPENWRT = (
    ("31:5", "/rom", "squashfs", "/dev/root", "ro"),
    ("0:16", "/overlay", "jffs2", "/dev/mtdblock6"),
    ("0:17", "/", "overlay", "overlayfs:/overlay", "rw,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work"),
)


def test_the_folders_of_an_overlay_decide(tmp_path: Path) -> None:
    put(tmp_path, "/proc/self/mountinfo", mounts(*OPENWRT))
    assert answers(tmp_path) == (False, False, "none")
    # On the laptop of a developer: everything below is encrypted.
    over = "rw,lowerdir=/low\\040er:/rom,upperdir=/up/u,workdir=/up/w"
    table = [("253:0", "/low\\040er", "ext4", "/dev/dm-0", "ro"), ("253:0", "/up", "ext4", "/dev/dm-0")]
    layered = ("0:17", "/", "overlay", "overlay", over)
    block(tmp_path, "dm-0", "253:0", uuid="CRYPT-LUKS2-0-x", dm="x")
    put(tmp_path, "/proc/self/mountinfo", mounts(*table, layered))
    assert collect(tmp_path)["root_encrypted"] is None  # /rom is in the overlay itself
    put(tmp_path, "/proc/self/mountinfo", mounts(("0:3", "/rom", "tmpfs", "x"), *table, layered))
    assert collect(tmp_path)["root_encrypted"] is True
    put(tmp_path, "/proc/self/mountinfo", mounts(("31:5", "/rom", "squashfs", "/dev/root"), *table, layered))
    assert collect(tmp_path)["root_encrypted"] is False
    outside = "rw,lowerdir=/var/lib/docker/a,upperdir=/var/lib/docker/b"
    put(tmp_path, "/proc/self/mountinfo", mounts(("0:50", "/", "overlay", "overlay", outside)))
    assert collect(tmp_path)["root_encrypted"] is None


@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_an_image_with_verity_is_not_encrypted(kind: str, tmp_path: Path) -> None:
    lines = (("253:0", "/", kind, "/dev/mapper/vroot", "ro"), ("8:2", "/data", "ext4", "/dev/sda2"))
    put(tmp_path, "/proc/self/mountinfo", mounts(*lines))
    block(tmp_path, "sda1", "8:1")
    block(tmp_path, "sda2", "8:2")
    block(tmp_path, "dm-0", "253:0", uuid="CRYPT-VERITY-0-vroot", dm="vroot", below=("sda1",))
    assert answers(tmp_path) == (False, False, "none")
    block(tmp_path, "dm-1", "253:1", uuid="CRYPT-LUKS2-0-d", dm="d", below=("sda2",))
    lines = (lines[0], ("253:1", "/data", "ext4", "/dev/mapper/d"))
    put(tmp_path, "/proc/self/mountinfo", mounts(*lines))
    assert answers(tmp_path) == (False, True, "none")


@pytest.mark.parametrize(
    ("line", "root", "reason"),
    [
        (("0:20", "/", "nfs4", "192.0.2.1:/srv"), None, "the root is on another machine (nfs4)"),
        (("0:20", "/", "rootfs", "rootfs"), None, "the root is in memory (rootfs)"),
        (("0:20", "/", "ubifs", "ubi0:rootfs"), False, ""),
        (("0:20", "/", "newfs", "pool"), None, "what is below a file system of the kind newfs is not known"),
        (("8:1", "/", "newfs", "/dev/sda1"), False, ""),
        (("0:20", "/", "zfs", "rpool/ROOT"), None, "encryption of ZFS can be read on the running system only"),
        (("0:20", "/", "bcachefs", "/dev/sda1:/dev/dm-1"), None, "encryption of bcachefs is not read"),
        (("0:20", "/", "bcachefs", "/dev/dm-1:/dev/dm-1"), True, ""),
        (("253:1", "/", "xfs", "/dev/dm-1", "rw,logdev=/dev/sda1"), False, ""),
        (("253:1", "/", "xfs", "/dev/dm-1", "rw,logdev=/dev/dm-1"), True, ""),
        (("253:9", "/", "ext4", "/dev/dm-9"), None, "what is below dm-9 is not visible"),
    ],
)  # fmt: skip
def test_roots_of_other_kinds(line: tuple[str, ...], root: bool | None, reason: str, tmp_path: Path) -> None:
    put(tmp_path, "/proc/self/mountinfo", mounts(line))
    block(tmp_path, "sda1", "8:1")
    block(tmp_path, "dm-1", "253:1", uuid="CRYPT-LUKS2-0-x", dm="x", below=("sda1",))
    (tmp_path / "sys/dev/block/253:9").symlink_to("/sys/class/block/dm-9")
    section = collect(tmp_path)
    assert (section["root_encrypted"], section["data_encrypted"]) == (root, root)
    assert not reason or f"root_encrypted: {reason} (/)" in gap_texts(section)


def test_paths_are_compared_by_component(tmp_path: Path) -> None:
    assert is_below("/var/lib", "/var/lib")
    assert is_below("/var/lib/x", "/")
    assert not is_below("/var/library", "/var/lib")
    block(tmp_path, "sda1", "8:1")
    block(tmp_path, "dm-0", "253:0", uuid="CRYPT-LUKS2-0-x", dm="x", below=("sda1",))
    table = (("253:0", "/", "ext4", "/dev/dm-0"), ("8:1", "/bootdata", "ext4", "/dev/sda1"))
    put(tmp_path, "/proc/self/mountinfo", mounts(*table))
    assert answers(tmp_path)[:2] == (True, False)
    put(tmp_path, "/proc/self/mountinfo", mounts(table[0], ("8:1", "/boot/firmware", "vfat", "/dev/sda1")))
    assert answers(tmp_path)[:2] == (True, True)
    # Mounted read-only below /boot first, and writable elsewhere.
    both = (("8:1", "/boot", "ext4", "/dev/sda1", "ro"), ("8:1", "/data", "ext4", "/dev/sda1"))
    put(tmp_path, "/proc/self/mountinfo", mounts(table[0], *both))
    assert answers(tmp_path)[:2] == (True, False)
    # The swap file is on /swapfiles, not on the root.
    put(tmp_path, "/proc/self/mountinfo", mounts(table[0], ("8:1", "/swap", "ext4", "/dev/sda1")))
    put(tmp_path, "/proc/swaps", "Filename Type Size Used Priority\n/swapfiles/a file 1 0 -2\n")
    assert answers(tmp_path)[2] == "encrypted"


def test_zram_that_writes_to_a_device_is_swap_on_that_device(tmp_path: Path) -> None:
    put(tmp_path, "/proc/self/mountinfo", mounts(("8:1", "/", "ext4", "/dev/sda1")))
    put(tmp_path, "/proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 1 0 9\n")
    block(tmp_path, "sda1", "8:1")
    put(tmp_path, "/sys/class/block/zram0/backing_dev", "none\n")
    assert collect(tmp_path)["swap"] == "none"
    put(tmp_path, "/sys/class/block/zram0/backing_dev", "/dev/sda1\n")
    assert collect(tmp_path)["swap"] == "plain"
    put(tmp_path, "/proc/swaps", "Filename Type Size Used Priority\n/dev/sdx partition 1 0 9\n")
    section = collect(tmp_path)
    assert section["swap"] is None
    assert "swap: no block device is known for /dev/sdx (/dev/sdx)" in gap_texts(section)


def test_images_in_files_count_with_the_file_system_that_holds_them(tmp_path: Path) -> None:
    put(tmp_path, "/sys/class/block/loop0/loop/backing_file", "/var/lib/snapd/snaps/core.snap\n")
    put(tmp_path, "/sys/class/block/loop1/loop/backing_file", "/srv/vault.img\n")
    block(tmp_path, "loop0", "7:0")
    block(tmp_path, "loop1", "7:1")
    block(tmp_path, "dm-0", "253:0", uuid="CRYPT-LUKS2-0-x", dm="x")
    root, snap = ("253:0", "/", "ext4", "/dev/dm-0"), ("7:0", "/snap/core/1", "squashfs", "/dev/loop0", "ro")
    put(tmp_path, "/proc/self/mountinfo", mounts(root, snap, ("7:1", "/vault", "ext4", "/dev/loop1")))
    section = collect(tmp_path)
    assert {mount["path"]: mount["encrypted"] for mount in section["mounts"]} == {"/": True, "/vault": True}
    assert (section["root_encrypted"], section["data_encrypted"], section["gaps"]) == (True, True, [])


def test_fscrypt_counts_where_a_folder_carries_a_policy(tmp_path: Path) -> None:
    system = System(tmp_path, is_root_user=True)
    put(tmp_path, "/data/.fscrypt/policies/.keep")
    (tmp_path / "data/home/ada").mkdir(parents=True)
    assert fscrypt.encrypted_folder(system, "/data", lambda _: True).value is False
    put(tmp_path, "/data/.fscrypt/policies/" + "0123456789abcdef" * 2)
    assert fscrypt.encrypted_folder(system, "/data", lambda path: path.name == "ada").value is True
    none = fscrypt.encrypted_folder(system, "/data", lambda _: False)
    assert (none.value, none.gaps) == (False, ())
    (tmp_path / "data/a/b/c/d").mkdir(parents=True)
    deep = fscrypt.encrypted_folder(system, "/data", lambda path: path.name == "d")
    assert (deep.value, len(deep.gaps)) == (False, 1)

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    assert fscrypt.encrypted_folder(system, "/data", refuse).gaps[0].reason == "needs root"


def test_fscrypt_that_is_only_set_up_leaves_the_rule_failing(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/proc/self/mountinfo",
        mounts(("8:1", "/", "ext4", "/dev/sda1"), ("8:2", "/data", "ext4", "/dev/sda2")),
    )
    put(tmp_path, "/.fscrypt/policies/.keep")
    block(tmp_path, "sda1", "8:1")
    block(tmp_path, "sda2", "8:2")
    sent = normalise_findings({"disk": collect(tmp_path)}).sections
    facts = gather_facts(ReportSections.model_validate(sent), "d", "", ())
    assert (facts.known["data_encrypted"], facts.known["fscrypt_mounts"]) == (False, [])
    assert "fscrypt_mounts" not in facts.partial


def test_the_null_cipher_and_an_unknown_one_do_not_count_as_encrypted(tmp_path: Path) -> None:
    block(tmp_path, "dm-0", "253:0", uuid="CRYPT-LUKS2-0-x", dm="x")
    found = {}
    for cipher in ("aes-xts-plain64", "cipher_null-ecb", None):
        devices = BlockDevices(System(tmp_path), lambda _: EncryptionStatus(None), lambda _, c=cipher: c)  # type: ignore[misc]
        found[cipher] = devices.status_of("/dev/mapper/x", "253:0").encrypted
    assert found == {"aes-xts-plain64": True, "cipher_null-ecb": False, None: None}
    assert cipher_in_table("0 4096 crypt aes-xts-plain64 :64:logon:x 0 8:2 32768\n") == "aes-xts-plain64"
    assert (
        cipher_in_table("0 8 crypt aes-xts-plain64 k 0 8:2 1\n8 8 crypt cipher_null-ecb - 0 8:2 9\n")
        == "cipher_null-ecb"
    )
    assert cipher_in_table("0 8 crypt aes-xts-plain64 k 0 8:2 1\n8 8 linear 8:2 9\n") is None
    assert cipher_in_table("") is None
    assert (
        cipher_in_status("/dev/mapper/x is active.\n  type:    LUKS2\n  cipher:  cipher_null-ecb\n")
        == "cipher_null-ecb"
    )
    assert cipher_in_status("  type:  LUKS2\n") is None
    assert read_cipher(System(is_root_user=False), "x") is None


@pytest.mark.parametrize(
    ("encryption", "device", "expected"),
    [
        ("aes-256-gcm\\nkeystatus\\tavailable", None, True),
        ("off\\nkeystatus\\tnone", True, True),
        ("off\\nkeystatus\\tnone", False, False),
        ("off\\nkeystatus\\tnone", None, None),
        ("?", None, None),
    ],
)
def test_zfs_is_asked_on_the_running_system(
    encryption: str, device: bool | None, expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "/zfs", f"#!/bin/sh\nprintf 'encryption\\t{encryption}\\n'\n", 0o755)
    put(tmp_path, "/zpool", "#!/bin/sh\necho '  /dev/sda1  ONLINE  0 0 0'\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    status = zfs.zfs_status(System(is_root_user=True), "rpool/ROOT", lambda _: EncryptionStatus(device))
    assert status.encrypted is expected


def test_answers_of_zfs() -> None:
    text = "encryption\t{}\nkeystatus\t{}\n"
    states = {
        words: zfs.dataset_status(text.format(*words)).encrypted
        for words in (("aes-256-gcm", "available"), ("off", "none"), ("-", "-"), ("aes-256-gcm", "none"), ("", ""))
    }
    assert list(states.values()) == [True, False, False, None, None]
    status = (
        "  pool: rpool\n state: ONLINE\nconfig:\n\n\tNAME  STATE  READ WRITE CKSUM\n\trpool  ONLINE  0 0 0\n"
        "\t  mirror-0  ONLINE  0 0 0\n\t    /dev/dm-0  ONLINE  0 0 0\n\t    /srv/vdev.img  DEGRADED  0 0 0\n"
        "\tcache\n\t  /dev/sdb1  ONLINE 0 0 0\n\nerrors: /x is fine\n"
    )
    assert zfs.pool_devices(status) == ["/dev/dm-0", "/srv/vdev.img", "/dev/sdb1"]


@given(st.data())
@settings(max_examples=40)
def test_a_cut_or_garbled_mount_table_never_encrypts_anything(data: st.DataObject) -> None:
    """What a damaged line hides may be a file system that is not encrypted."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, numbers in (("sda1", "8:1"), ("sdb1", "8:17")):
            block(root, name, numbers)
        block(root, "dm-0", "253:0", uuid="CRYPT-LUKS2-0-x", dm="x", below=("sda1",))
        table = (("253:0", "/", "ext4", "/dev/dm-0"), ("8:17", "/data", "ext4", "/dev/sdb1"))
        good, bad = mounts(*table).splitlines()
        cut = data.draw(st.integers(min_value=1, max_value=len(bad) - 1))
        junk = data.draw(
            st.text(st.characters(codec="ascii", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e"), max_size=8)
        )
        lines = data.draw(st.permutations([good, data.draw(st.sampled_from([bad[:cut], junk + bad, bad + junk]))]))
        put(root, "/proc/self/mountinfo", "\n".join(lines) + "\n")
        assert answers(root)[1] is not True
