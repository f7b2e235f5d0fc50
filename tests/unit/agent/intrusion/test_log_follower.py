"""Growing files through rotation, truncation and restarts; what was lost is said."""

import os
from pathlib import Path

import pytest

from device_agent.intrusion.log_follower import MAX_LINE_BYTES, FilePosition, LogFollower
from tests.support.root_folder import put


def _append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _read(follower: LogFollower) -> list[str]:
    return [line.decode() for line in follower.read().lines]


def test_a_file_is_followed_from_its_end_and_through_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _append(path, "old")
    follower = LogFollower(path, None)
    assert _read(follower) == []
    _append(path, "a", "b")
    assert _read(follower) == ["a", "b"]
    _append(path, "last of the old")
    path.rename(tmp_path / "log.1")
    assert _read(follower) == ["last of the old"]
    assert _read(follower) == []
    _append(path, "first of the new")
    assert _read(follower) == ["first of the new"]
    follower.close()


def test_an_incomplete_line_is_returned_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follower = LogFollower(path, None)
    assert _read(follower) == []
    path.write_text("whole\nhal")
    assert _read(follower) == ["whole"]
    _append(path, "f")
    assert _read(follower) == ["half"]
    follower.close()


def test_reading_continues_after_a_restart_even_if_the_file_was_rotated_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    first = LogFollower(path, None)
    first.read()
    _append(path, "a")
    assert _read(first) == ["a"]
    first.close()
    _append(path, "while away")
    path.rename(tmp_path / "log.1")
    _append(path, "new")
    second = LogFollower(path, first.position)
    assert _read(second) == ["while away"]
    assert _read(second) == ["new"]
    second.close()
    lost = LogFollower(path, FilePosition(path.stat().st_ino + 10_000_000, 5))
    chunk = lost.read()
    assert (chunk.is_truncated, chunk.lines) == (True, [b"new"])
    lost.close()


def test_a_file_emptied_in_place_is_read_from_its_start_and_an_overlong_line_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    follower = LogFollower(path, None)
    follower.read()
    _append(path, "aaaaaaaa")
    assert _read(follower) == ["aaaaaaaa"]
    path.write_text("b\n")
    chunk = follower.read()
    assert (chunk.is_truncated, chunk.lines) == (True, [b"b"])
    _append(path, "x" * (MAX_LINE_BYTES * 6), "after")
    lines, dropped = [], 0
    for _ in range(6):
        chunk = follower.read()
        lines += chunk.lines
        dropped += chunk.lines_dropped
    assert (lines, dropped) == ([b"after"], 1)
    follower.close()


def test_a_file_that_was_emptied_and_filled_beyond_the_position_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    follower = LogFollower(path, None)
    follower.read()
    _append(path, "aaaa")
    assert _read(follower) == ["aaaa"]
    path.write_text("b1\nb2\nb3\n")  # in place, as copytruncate and a writer do between two reads
    chunk = follower.read()
    assert (chunk.is_truncated, chunk.lines) == (True, [b"b1", b"b2", b"b3"])
    follower.close()
    path.write_text("c1 is a longer line\nc2\n")  # while the agent is stopped
    restarted = LogFollower(path, follower.position)
    chunk = restarted.read()
    assert (chunk.is_truncated, chunk.lines) == (True, [b"c1 is a longer line", b"c2"])
    restarted.close()


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_file_that_was_rotated_away_unread_says_so(tmp_path: Path, is_compressed: bool) -> None:
    path = tmp_path / "log"
    path.write_text("")
    follower = LogFollower(path, None)
    follower.read()
    _append(path, "a")
    path.rename(tmp_path / "log.2")
    os.utime(tmp_path / "log.2", (1000, 1000))
    between = tmp_path / ("log.1.gz" if is_compressed else "log.1")
    between.write_text("never read\n")
    put(tmp_path, "/log.other", "of another program\n")
    _append(path, "c")
    assert _read(follower) == ["a"]
    chunk = follower.read()
    assert (chunk.is_truncated, chunk.lines) == (True, [b"c"])
    follower.close()


def test_the_last_line_of_a_rotated_file_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    follower = LogFollower(path, None)
    follower.read()
    path.write_text("last")
    path.rename(tmp_path / "log.1")
    _append(path, "new")
    chunk = follower.read()
    assert (chunk.is_truncated, chunk.lines) == (False, [b"last", b"new"])
    follower.close()
