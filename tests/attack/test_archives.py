"""Archives of file sets: nothing leaves the set, and publishing refuses exactly what devices refuse."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.tuf_repository.publishing import unpacked_bytes
from controller.ports.updates import UpdatesError
from device_agent.updates.installers.unpacking import unpack
from schemas import file_sets
from schemas.file_sets import ArchiveError

MIB: Final = 1024 * 1024
CONTENT: Final = b"written by the archive\n"


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    info.size = len(CONTENT) if kind == tarfile.REGTYPE else 0
    return info


def folder(name: str) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE)


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, target)


def hard(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, target)


def tar(members: Sequence[tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(CONTENT) if info.isreg() else None)
    return buffer.getvalue()


class Target:
    """A folder for the set beside files that have to stay as they are."""

    def __init__(self, base: Path) -> None:
        self.outside = base / "outside"
        self.outside.mkdir()
        (self.outside / "flag").write_text("untouched")
        self.set = base / "sets" / "app" / ".1.0.new"
        self.set.mkdir(parents=True)
        self.archive = base / "app-1.0.tar"

    def unpack(self, content: bytes, max_bytes: int = MIB) -> None:
        self.archive.write_bytes(content)
        unpack(self.archive, self.set, max_bytes)

    def publishes(self, content: bytes) -> bool:
        self.archive.write_bytes(content)
        try:
            unpacked_bytes(self.archive)
        except UpdatesError as e:
            assert "would unpack" in str(e)  # noqa: PT017 - the other outcome is no error either
            return False
        return True

    def assert_nothing_left(self) -> None:
        assert [path.name for path in self.outside.iterdir()] == ["flag"]
        assert (self.outside / "flag").read_text() == "untouched"
        assert sorted(path.name for path in self.set.parents[2].iterdir()) == ["app-1.0.tar", "outside", "sets"]
        assert [path.name for path in self.set.parent.iterdir()] == [self.set.name]
        inside = os.path.realpath(self.set)
        for path in self.set.rglob("*"):
            assert f"{os.path.realpath(path)}/".startswith(f"{inside}/"), path


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


def long_path() -> list[tarfile.TarInfo]:
    """The path is too long for `realpath`, which then takes the rest of it as it is written."""
    part, path, members = "d" * 247, "", []
    for step in "abcdefghijklmnop":
        members += [folder(f"{path}{part}"), link(f"{path}{step}", part)]
        path += f"{part}/"
    long = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    return [*members, link(long, "../" * 16), link("escape", f"{long}/../../../outside"), member("escape/new")]


def climbing_after_a_link() -> list[tarfile.TarInfo]:
    """Written `x/y/up/../../../outside` seems inside; `up` leads to the set, and from there it does not."""
    return [folder("x/y"), link("x/y/up", "../.."), link("x/y/out", "up/../../../outside"), member("x/y/out/new")]


ATTACKS: Final[dict[str, Callable[[], list[tarfile.TarInfo]]]] = {
    "long path": long_path,
    "climbing after a link": climbing_after_a_link,
    "name outside": lambda: [member("../../../outside/new")],
    "name that returns": lambda: [folder("a"), member("a/../b")],
    "absolute name": lambda: [member("/etc/cordon-attack")],
    "link outside": lambda: [link("out", "../../../outside")],
    "absolute link": lambda: [link("out", "/etc")],
    "link to nothing": lambda: [link("out", "")],
    "file through a link": lambda: [folder("a"), link("b", "a"), member("b/file")],
    "file over a link": lambda: [member("a"), link("b", "a"), member("b")],
    "folder over a link": lambda: [folder("a"), link("b", "a"), folder("b")],
    "link over a folder": lambda: [folder("a"), link("a", "b")],
    "link over the set": lambda: [link(".", "a")],
    "file twice": lambda: [member("a"), member("./a")],
    "hard link outside": lambda: [hard("a", "../../../outside/flag")],
    "absolute hard link": lambda: [hard("a", "/etc/passwd")],
    "hard link to a link": lambda: [member("a"), link("b", "a"), hard("c", "b")],
    "hard link to a later file": lambda: [hard("a", "b"), member("b")],
    "hard link through a link": lambda: [folder("d"), member("d/f"), link("l", "d"), hard("a", "l/f")],
    "device": lambda: [member("null", tarfile.CHRTYPE)],
    "block device": lambda: [member("disk", tarfile.BLKTYPE)],
    "pipe": lambda: [member("pipe", tarfile.FIFOTYPE)],
    "unknown kind": lambda: [member("x", b"Z")],
    "name that is no text": lambda: [member("a\udcff")],
    "long part": lambda: [member("a" * 256)],
    "deep": lambda: [member("/".join("a" * 65))],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_leaves_its_set_is_refused_on_both_sides(target: Target, attack: str) -> None:
    content = tar(ATTACKS[attack]())
    assert not target.publishes(content)
    with pytest.raises(ArchiveError):
        target.unpack(content)
    target.assert_nothing_left()


def test_what_sets_are_made_of_is_unpacked(target: Target) -> None:
    old = os.umask(0o077)
    try:
        target.unpack(
            tar(
                [
                    folder("./"),
                    folder("./bin/"),
                    member("./bin/app", mode=0o6775),
                    member("share/deep/data", mode=0o666),
                    link("share/deep/app", "../../bin/./app"),
                    link("lib", "share"),
                    link("later", "lib/deep/data"),
                    hard("copy", "./bin/app"),
                    folder("bin"),
                ]
            )
        )
    finally:
        os.umask(old)
    modes = {str(path.relative_to(target.set)): path.stat().st_mode & 0o7777 for path in target.set.rglob("*")}
    assert modes["bin/app"] == modes["copy"] == modes["bin"] == modes["share/deep"] == 0o755
    assert modes["share/deep/data"] == 0o644
    assert (target.set / "share/deep/app").read_bytes() == (target.set / "later").read_bytes() == CONTENT
    assert (target.set / "copy").samefile(target.set / "bin/app")
    target.assert_nothing_left()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_each_compression_is_read(target: Target, compress: Callable[[bytes], bytes]) -> None:
    content = compress(tar([member("a"), member("b")]))
    assert target.publishes(content)
    target.unpack(content)
    assert sorted(path.name for path in target.set.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_that_ends_early_is_refused_on_both_sides(
    target: Target, compress: Callable[[bytes], bytes]
) -> None:
    info = member("a")
    info.size = 3000
    content = compress(info.tobuf() + os.urandom(700))
    for cut in (content, content[: len(content) // 2]):
        assert not target.publishes(cut)
        with pytest.raises((ArchiveError, FileExistsError)):
            target.unpack(cut)


def test_more_than_was_signed_is_refused_before_it_is_written(target: Target) -> None:
    with pytest.raises(ArchiveError, match="more than 40 bytes"):
        target.unpack(tar([member("a"), member("b")]), max_bytes=40)
    assert [path.name for path in target.set.iterdir()] == ["a"]


def test_headers_do_not_decompress_without_end(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of a few kilobytes that decompresses to many megabytes."""
    monkeypatch.setattr(file_sets, "MAX_OVERHEAD_BYTES", 64 * 1024)
    monkeypatch.setattr(file_sets, "MAX_HEADER_BYTES", 8 * MIB)
    info = member("a")
    info.pax_headers = {"comment": "x" * 4 * MIB}
    with pytest.raises(ArchiveError, match="than its members need"):
        target.unpack(gzip.compress(tar([info])))


def test_negative_sizes_neither_loop_nor_lower_the_sum(target: Target) -> None:
    info = member("a")
    info.size = -512
    block = bytearray(member("a").tobuf())
    block[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512, in base 256
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block[:512])
    content = bytes(block) + tar([member("b")])
    assert not target.publishes(content)
    with pytest.raises(ArchiveError):
        target.unpack(content)


def test_implied_folders_count_as_members(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sets, "MAX_MEMBERS", 10)
    content = tar([member("/".join("abcdefghijk"))])
    assert not target.publishes(content)
    with pytest.raises(ArchiveError, match="more than 10 members"):
        target.unpack(content)


def extension(kind: bytes, content: bytes) -> bytes:
    """A header of tar's extensions with its content."""
    info = member("x", kind)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def records(**values: str) -> bytes:
    """The extended header of one member: names, `__` for a dot, with their values."""
    lines = [f" {name.replace('__', '.')}={value}\n" for name, value in values.items()]
    return extension(tarfile.XHDTYPE, "".join(f"{len(each) + 2}{each}" for each in lines).encode())


MALFORMED: Final = {
    "size of a sparse file": records(GNU__sparse__size="1x"),
    "true size of a sparse file": records(GNU__sparse__realsize="1x"),
    "map of a sparse file": records(GNU__sparse__map="1,x"),
    "map before the content": records(GNU__sparse__major="1", GNU__sparse__minor="0"),
    "extended headers of each other": records(a="b") * 3000,
    "long names of each other": extension(tarfile.GNUTYPE_LONGNAME, b"a") * 3000,
    "long targets of each other": extension(tarfile.GNUTYPE_LONGLINK, b"a") * 3000,
}


@pytest.mark.parametrize("header", MALFORMED)
def test_malformed_headers_are_refused_on_both_sides(target: Target, header: str) -> None:
    """Finding: `tarfile` raised ValueError and RecursionError for them, which neither side expected."""
    content = MALFORMED[header] + tar([member("a")])
    assert not target.publishes(content)
    with pytest.raises(ArchiveError):
        target.unpack(content)
    target.assert_nothing_left()


def test_damaged_bzip2_is_a_damaged_archive(target: Target) -> None:
    """`bz2` raises OSError without a number, as if the disk had failed."""
    content = bytearray(bz2.compress(tar([member("a")])))
    content[20] ^= 0xFF
    assert not target.publishes(bytes(content))
    with pytest.raises(ArchiveError):
        target.unpack(bytes(content))
    target.assert_nothing_left()


_NUMBERS: Final = st.sampled_from(["", "0", "1", "1x", "-1", "1,x", "1,2,3", "9" * 30, "nan"])
_SPARSE: Final = [f"GNU__sparse__{key}" for key in ("major", "minor", "size", "realsize", "map", "numblocks", "offset")]
_KEYS: Final = st.sampled_from([*_SPARSE, "size", "mtime", "path", "linkpath", "hdrcharset"])


@given(st.dictionaries(_KEYS, _NUMBERS, max_size=4), st.binary(max_size=40))
def test_extended_headers_raise_nothing_else(values: dict[str, str], text: bytes) -> None:
    content = records(**values) + extension(tarfile.REGTYPE, text) + tar([member("b")])
    try:
        for each in file_sets.read_members(io.BytesIO(content), MIB):
            assert sum(len(piece) for piece in each.content) == each.size
    except ArchiveError:
        return


_PARTS: Final = st.sampled_from(["a", "b", "c", "..", ".", ""])
_NAMES: Final = st.lists(_PARTS, min_size=1, max_size=4).map("/".join)
_MEMBERS: Final = st.builds(
    member,
    _NAMES,
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    _NAMES,
    st.integers(0, 0o7777),
)


@given(st.lists(_MEMBERS, max_size=8))
def test_any_archive_stays_inside_and_both_sides_agree(members: list[tarfile.TarInfo]) -> None:
    content = tar(members)
    with TemporaryDirectory() as base:
        target = Target(Path(base))
        is_published = target.publishes(content)
        try:
            target.unpack(content)
        except ArchiveError:
            assert not is_published
        else:
            assert is_published
        target.assert_nothing_left()


@given(st.data())
def test_damaged_archives_raise_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(tar([member("a"), folder("b"), link("b/c", "../a"), hard("d", "a")]))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as base:
        target = Target(Path(base))
        is_published = target.publishes(bytes(whole))
        try:
            target.unpack(bytes(whole))
        except ArchiveError:
            assert not is_published
        else:
            assert is_published


def with_headers(headers: dict[str, str], content: bytes = CONTENT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.size, info.pax_headers = len(content), headers
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def nested(kind: bytes) -> bytes:
    """Thousands of headers that each belong to the next one."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 1
    return (info.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 3000


def long_header(kind: bytes) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, file_sets.MAX_HEADER_BYTES + 1
    return info.tobuf(tarfile.GNU_FORMAT) + b"a" * (MIB // 2)


LARGE_HEADERS: Final[dict[str, Callable[[], bytes]]] = {
    "a few nested": lambda: nested(tarfile.XHDTYPE)[: 1024 * (file_sets.MAX_HEADERS + 1)],
    "long header": lambda: with_headers({"comment": "x" * file_sets.MAX_HEADER_BYTES}),
    "long name": lambda: long_header(tarfile.GNUTYPE_LONGNAME),
    "long global header": lambda: long_header(tarfile.XGLTYPE),
    "long sparse map": lambda: with_headers({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, b"9" * (MIB // 2)),
}


@pytest.mark.parametrize("name", LARGE_HEADERS)
def test_large_headers_are_refused_before_they_are_read(target: Target, name: str) -> None:
    """Finding: 70 KiB of archive took hundreds of MiB."""
    content = LARGE_HEADERS[name]()
    with pytest.raises(ArchiveError, match=r"extension header|sparse file"):
        list(file_sets.read_members(io.BytesIO(content), MIB))
    assert not target.publishes(content)


def test_headers_of_all_members_take_no_memory() -> None:
    """Each was kept, with a copy of the headers of the whole archive."""
    buffer = io.BytesIO()
    headers = {f"k{number}": "v" for number in range(1000)}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as archive:
        for number in range(1000):
            archive.addfile(member(f"f{number}"), io.BytesIO(CONTENT))
    buffer.seek(0)
    tracemalloc.start()
    try:
        assert sum(1 for one in file_sets.read_members(buffer, MIB) if one.size) == 1000
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
