"""Paths of an image resolve as chroot would, and lead nowhere else."""

import ctypes
import os
import random
import struct
from pathlib import Path, PosixPath, PurePath

import pytest

from device_agent.host.files import list_files, read_text
from device_agent.host.image_path import MAX_ENTRIES, REFUSED, ImagePath, image_root
from device_agent.host.system import System
from schemas.safe_files import NotRegularError, UnsafePathError, open_for_reading
from tests.support.root_folder import put

_OPENAT2 = 437  # the number of the system call, the same on every architecture
_RESOLVE_IN_ROOT = 0x10
_TREES = 60


@pytest.fixture
def image(tmp_path: Path) -> Path:
    put(tmp_path, "secret", "of the examining machine")
    root = tmp_path / "image"
    put(root, "/etc/secret", "of the image")
    return root


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("{root}/../secret", ""),
        ("../../../../../../../etc/secret", "of the image"),
        ("/etc/secret", "of the image"),
        ("../../secret", ""),
        ("{outside}/secret", ""),
        ("/etc/../../etc/secret", "of the image"),
        ("loop", ""),
    ],
)
def test_links_stay_below_the_root(image: Path, link: str, expected: str) -> None:
    put(image, "/usr/x")
    target = link.format(root=image, outside=image.parent)
    (image / "usr/loop").symlink_to(target)
    path = System.image(image).path("/usr/loop")
    if expected:
        assert path.read_text() == expected
        assert [read_text(found) for found in list_files(path.parent, "loo*")] == [expected]
        assert path.resolve().relative_to(image) == PurePath("etc/secret")
        return
    assert not path.exists()
    assert path.is_symlink()
    assert list_files(path.parent, "loo*") == []
    with pytest.raises(OSError, match=r"No such file|too many"):
        open_for_reading(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/absent/a", "absent/a"),
        ("/short/log/x", "var/volatile/log/x"),
        ("/relative/x", "etc/gone/x"),
        ("/up", "absent"),
        ("/again", "again"),
    ],
)
def test_what_is_absent_resolves_as_far_as_there_are_links(image: Path, path: str, expected: str) -> None:
    for link, target in {
        "short": "/var/volatile",
        "relative": "etc/gone",
        "up": "../../../absent",
        "again": "again",
    }.items():
        (image / link).symlink_to(target)
    assert System.image(image).path(path).resolve().relative_to(image) == PurePath(expected)


def test_folders_that_are_links_lead_into_the_image_for_every_way_of_listing(image: Path) -> None:
    put(image.parent, "outside/only-outside")
    (image / "out").symlink_to(image.parent / "outside")
    (image / "conf").symlink_to("/etc")
    root = System.image(image).root
    assert [path.name for path in root.glob("conf/*")] == ["secret"]
    assert [path.name for path in (root / "conf").iterdir()] == ["secret"]
    assert list(root.glob("out/*")) == list(root.glob("*/only-outside")) == []
    with pytest.raises(FileNotFoundError):
        list((root / "out").iterdir())


def test_what_the_kernel_makes_is_not_part_of_an_image(image: Path) -> None:
    put(image, "/proc/1/comm", "systemd")
    put(image, "/run/reboot-required")
    (image / "var").mkdir()
    (image / "var/run").symlink_to("../run")
    system = System.image(image)
    for path in ("/proc/1/comm", "/run/reboot-required", "/var/run/reboot-required", "/etc/../proc"):
        assert not system.path(path).exists()


def test_devices_and_pipes_are_never_opened(image: Path) -> None:
    os.mkfifo(image / "etc/pipe")
    (image / "etc/null").symlink_to("/dev/null")
    system = System.image(image)
    with pytest.raises(NotRegularError):
        system.path("/etc/pipe").open()
    assert read_text(system.path("/etc/pipe")) == read_text(system.path("/etc/null")) == ""
    assert not system.path("/etc/pipe").is_file()


def test_an_image_path_neither_leaves_its_class_nor_changes_or_hands_out_anything(image: Path) -> None:
    root = image_root(image)
    path = root / "etc" / "secret"
    for same in (path.parent, path.with_name("x"), root.joinpath("etc"), path.parents[0], next(root.glob("e*"))):
        assert type(same) is type(root)
    for use in (os.stat, open, os.listdir, os.scandir, os.unlink, os.fspath):
        with pytest.raises(UnsafePathError):
            use(path)
    for name in REFUSED:
        with pytest.raises(UnsafePathError):
            getattr(path, name)()
    with pytest.raises(UnsafePathError):
        path.open("w")
    assert (image / "etc/secret").read_text() == "of the image"


def test_every_method_that_this_python_has_for_files_is_replaced() -> None:
    pure = {*dir(PurePath), "absolute", "cwd", "home", "from_uri"}  # they use no file
    inherited = [
        name
        for name in dir(Path)
        if not name.startswith("_") and name not in pure and getattr(ImagePath, name) is getattr(PosixPath, name)
    ]
    assert inherited == []


def test_a_folder_and_a_file_without_end_are_bounded(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.host.image_path.MAX_ENTRIES", 3)
    monkeypatch.setattr("device_agent.host.image_path._MAX_BYTES", 3)
    for number in range(4):
        put(image, f"/many/{number}", "1234")
    path = System.image(image).path("/many")
    with pytest.raises(OSError, match="more than 3 entries"):
        list(path.iterdir())
    with pytest.raises(OSError, match="larger than 3 bytes"):
        (path / "0").read_text()
    assert MAX_ENTRIES > 3


def test_the_running_machine_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "top").symlink_to("/")
    for root in (Path("/"), Path("/etc/.."), tmp_path / "top"):
        with pytest.raises(ValueError, match="root of this machine"):
            image_root(root)
    with pytest.raises(NotADirectoryError):
        image_root(put(tmp_path, "file"))


def test_random_trees_of_links_resolve_as_the_kernel_resolves_them_in_a_root(tmp_path: Path) -> None:
    """The oracle is openat2 with RESOLVE_IN_ROOT."""
    chance = random.Random(20261130)
    for number in range(_TREES):
        root = tmp_path / str(number)
        (root / "a/b/c").mkdir(parents=True)
        put(root, "/a/b/file", "x")
        in_path = ["a", "b", "c", "file", "..", "l0", "l1", "l2", "l3"]  # pathlib drops `.` and empty parts
        words = [*in_path, ".", "", "/", "//a"]
        for link in range(4):
            folder = root / chance.choice(["", "a", "a/b", "a/b/c"])
            (folder / f"l{link}").symlink_to("/".join(chance.choices(words, k=chance.randint(1, 5))) or ".")
        for _ in range(20):
            text = "/".join(chance.choices(in_path, k=chance.randint(1, 6)))
            expected = _inode_by_kernel(root, text)
            found = image_root(root) / text
            try:
                actual: int | None = found.stat().st_ino
            except OSError:
                actual = None
            assert actual == expected, text


def _inode_by_kernel(root: Path, text: str) -> int | None:
    top = os.open(root, os.O_PATH)
    try:
        how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_PATH, 0, _RESOLVE_IN_ROOT))
        libc = ctypes.CDLL(None, use_errno=True)
        opened = libc.syscall(_OPENAT2, top, text.encode(), how, 24)
        if opened < 0:
            return None
        try:
            return os.fstat(opened).st_ino
        finally:
            os.close(opened)
    finally:
        os.close(top)
