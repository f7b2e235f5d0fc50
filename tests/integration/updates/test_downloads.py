"""Downloads over bad links and from other web servers than Cordon's, and a disk that fills up in the middle."""

import contextlib
import errno
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from tuf.api import exceptions

from device_agent.updates import download, requirements, tuf_client
from device_agent.updates.errors import from_tuf_error
from device_agent.updates.installers import fileset
from schemas.commands import CommandState
from schemas.updates import INSTALL
from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, archive, order
from tests.support.waiting import wait_for

CONTENT = bytes(range(251)) * 2000
PIECE = 50_200


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_RETRY_SECONDS", (0.0,))


def fetched(made: Repository, device: UpdateDevice, server: UpdateServer) -> list[int]:
    """Installs a file over a link that breaks again and again; returns where the requests began."""
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.cut["data.bin"] = (PIECE, 100)
    result = device.install(order(found))
    assert (result.state, result.reason) == (CommandState.SUCCEEDED, ""), result
    assert (device.current / "data.bin").read_bytes() == CONTENT
    ranges = [requested for path, requested in server.requests if path.endswith("data.bin")]
    return [int(one.removeprefix("bytes=").removesuffix("-") or 0) for one in ranges]


@pytest.mark.parametrize("tag", ['"65f1a2b3-7a120"', 'W/"weak"', ""])
def test_a_server_with_tags_of_its_own_resumes(
    made: Repository, device: UpdateDevice, server: UpdateServer, tag: str
) -> None:
    server.tag = tag
    assert fetched(made, device, server) == list(range(0, len(CONTENT), PIECE))


def test_a_cache_that_begins_at_a_block_before_is_honoured(
    made: Repository, device: UpdateDevice, server: UpdateServer
) -> None:
    server.block = 4096
    starts = fetched(made, device, server)
    assert starts == sorted(starts)
    assert len(starts) > len(CONTENT) // PIECE


def test_a_partial_answer_may_be_shorter_than_asked_for(
    made: Repository, device: UpdateDevice, server: UpdateServer
) -> None:
    server.most = 7000
    assert fetched(made, device, server)[1:3] == [PIECE, PIECE + 7000]


@pytest.mark.parametrize(
    "text",
    ["", "bytes */5", "bytes {end}-{end}/{total}", "items {start}-{end}/{total}", "bytes -5-{end}/{total}"],
)
def test_a_range_that_begins_elsewhere_starts_over_and_keeps_the_retries(
    made: Repository, device: UpdateDevice, server: UpdateServer, text: str
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.range_text = text
    server.cut["data.bin"] = (PIECE, 4)  # the first, the useless range, and two more from the start
    result = device.install(order(found))
    assert (result.state, result.reason) == (CommandState.SUCCEEDED, ""), result
    ranges = [requested for path, requested in server.requests if path.endswith("data.bin")]
    assert ranges == ["", f"bytes={PIECE}-", "", "", ""]


@pytest.mark.parametrize("text", ["bytes {start}-{end}/{total}", "bytes {start}-{end}/*"])
def test_a_range_answered_with_200_is_believed_by_its_content_range(
    made: Repository, device: UpdateDevice, server: UpdateServer, text: str
) -> None:
    server.partial_status = 200
    server.range_text = text
    assert fetched(made, device, server) == list(range(0, len(CONTENT), PIECE))


@pytest.mark.parametrize("text", ["", "bytes {end}-{end}/{total}", "items {start}-{end}/{total}"])
@pytest.mark.parametrize("status", [200, 400, 404, 416])
def test_a_useless_answer_to_a_range_starts_over(
    made: Repository, device: UpdateDevice, server: UpdateServer, text: str, status: int
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.partial_status = status
    server.range_text = text
    server.cut["data.bin"] = (PIECE, 1)
    result = device.install(order(found))
    assert (result.state, result.reason) == (CommandState.SUCCEEDED, ""), result
    ranges = [requested for path, requested in server.requests if path.endswith("data.bin")]
    assert ranges == ["", f"bytes={PIECE}-", ""]


def test_a_truncated_copy_of_a_cache_is_not_asked_for_by_range_again(
    made: Repository, device: UpdateDevice, server: UpdateServer
) -> None:
    """The cache has fewer bytes with their own length; the whole, fetched again, is the signed one."""
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.range_text = "bytes {start}-{end}/12345"
    server.cut["data.bin"] = (PIECE, 1)
    assert device.install(order(found)).state is CommandState.SUCCEEDED


def test_a_range_beyond_the_end_starts_over(made: Repository, device: UpdateDevice, server: UpdateServer) -> None:
    """A part of an earlier attempt that a server with a shorter file refuses: the whole decides."""
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.replace["data.bin"] = CONTENT[:PIECE]
    part = device.settings.agent.state_dir / "updates/downloads/edge-app/1.0/data.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[: PIECE + 1])
    assert device.install(order(found)).detail["reason_code"] == "wrong_length"
    server.replace.clear()
    assert device.install(order(found)).state is CommandState.SUCCEEDED


def test_a_whole_of_another_length_is_refused(made: Repository, device: UpdateDevice, server: UpdateServer) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.replace["data.bin"] = CONTENT[: 2 * PIECE]
    server.cut["data.bin"] = (PIECE, 1)
    assert device.install(order(found)).detail["reason_code"] == "wrong_length"
    ranges = [requested for path, requested in server.requests if path.endswith("data.bin")]
    assert ranges == ["", f"bytes={PIECE}-", ""]


def test_content_mixed_of_two_is_fetched_again_in_one_piece(
    made: Repository, device: UpdateDevice, server: UpdateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the servers behind a name has another content of the same length."""
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.replace["data.bin"] = bytes(len(CONTENT))
    server.cut["data.bin"] = (PIECE, 1)
    answer = server._answer

    def other_after_the_first(request: Any) -> None:
        answer(request)
        if request.path.endswith("data.bin"):
            server.replace.clear()

    monkeypatch.setattr(server, "_answer", other_after_the_first)
    assert device.install(order(found)).state is CommandState.SUCCEEDED
    assert (device.current / "data.bin").read_bytes() == CONTENT


def test_without_ranges_and_progress_it_gives_up(made: Repository, device: UpdateDevice, server: UpdateServer) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.knows_ranges = False
    server.cut["data.bin"] = (PIECE, 100)
    assert device.install(order(found)).detail["reason_code"] == "unreachable"
    assert len([path for path, _ in server.requests if path.endswith("data.bin")]) == download.MAX_FAILURES


FILES = ["2.root.json", "timestamp.json", "snapshot.json", "targets.json", "data.bin"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("status", "retry_after"), [(503, "0"), (429, "0"), (429, "")])
def test_a_busy_server_is_asked_again_until_it_has_time(
    made: Repository,
    device: UpdateDevice,
    server: UpdateServer,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    status: int,
    retry_after: str,
) -> None:
    for name in ("MIN_BUSY_SECONDS", "_BUSY_SECONDS"):
        monkeypatch.setattr(download, name, 0.0)
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.refuse[file] = (status, 3 * download.MAX_FAILURES)
    server.retry_after = retry_after
    result = device.install(order(found))
    assert (result.state, result.reason) == (CommandState.SUCCEEDED, ""), result
    assert server.refuse[file][1] == 0


@pytest.mark.parametrize("file", ["timestamp.json", "data.bin"])
def test_a_server_that_is_busy_until_the_deadline_ends_the_update_with_it(
    made: Repository, device: UpdateDevice, server: UpdateServer, file: str
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.refuse[file] = (503, 1000)
    server.retry_after = "30"
    result = device.install(order(found, seconds=2))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "deadline"), result
    assert "503" in result.reason


def test_a_stopping_agent_does_not_wait_for_a_busy_server(
    made: Repository, device: UpdateDevice, server: UpdateServer
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.refuse["timestamp.json"] = (503, 1)
    server.retry_after = "86400"
    device.send(INSTALL, order(found).params())
    wait_for(lambda: server.refuse["timestamp.json"][1] == 0, "the server was asked")
    device.stop()
    device.start()  # the order goes on
    assert device.ended().state is CommandState.SUCCEEDED


@pytest.mark.parametrize("file", FILES)
def test_a_passing_error_of_one_request_is_no_failure_of_the_update(
    made: Repository, device: UpdateDevice, server: UpdateServer, file: str
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.refuse[file] = (502, download.MAX_FAILURES - 1)
    assert device.install(order(found)).state is CommandState.SUCCEEDED
    if file != "2.root.json":  # there is none: 404
        again = made.publish("edge-app", "1.1", CONTENT[1:], file="data.bin")
        server.cut[file] = (100, 2)
        assert device.install(order(again)).state is CommandState.SUCCEEDED
        assert server.cut[file][1] == 0


@pytest.mark.parametrize("file", FILES)
def test_a_lasting_error_ends_after_six_attempts(
    made: Repository, device: UpdateDevice, server: UpdateServer, file: str
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.refuse[file] = (503, 1000)  # without Retry-After
    result = device.install(order(found))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "unreachable"), result
    assert 1000 - server.refuse[file][1] == download.MAX_FAILURES


SIZE = 400_000


def published(made: Repository, version: str) -> Any:
    content = archive({"data": version * (SIZE // len(version))})
    return order(made.publish("edge-app", version, content, installed_bytes=SIZE))


def disk(folder: Path, capacity: int) -> Callable[[object], Any]:
    """`shutil.disk_usage` of a disk of that many bytes with nothing else than this folder."""

    def usage(_path: object) -> Any:
        used = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        return shutil._ntuple_diskusage(capacity, used, capacity - used)

    return usage


def full_disk(_file: Path, folder: Path, _most: int) -> None:
    (folder / "half").write_bytes(b"x" * SIZE)
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("restart", [False, True])
def test_what_a_full_disk_left_does_not_refuse_the_next_order(
    made: Repository, device: UpdateDevice, monkeypatch: pytest.MonkeyPatch, *, restart: bool
) -> None:
    assert device.install(published(made, "1.0")).state is CommandState.SUCCEEDED
    folder = device.settings.agent.state_dir / "updates"
    monkeypatch.setattr(requirements, "SPARE_BYTES", 0)
    with monkeypatch.context() as full:
        full.setattr(fileset, "unpack", full_disk)
        failed = device.install(published(made, "1.1"))
        assert (failed.detail["phase"], failed.detail["reason_code"]) == ("failed", "install"), failed
    if restart:  # what an agent of before left is gone after the next start
        (folder / "sets/edge-app/.1.1.new").mkdir(exist_ok=True)
        device.stop()
        device.start()
        wait_for(lambda: not (folder / "sets/edge-app/.1.1.new").exists(), "the leftovers are gone")
    assert not (folder / "sets/edge-app/.1.1.new").exists()
    # Room for one more set, and not for leftovers.
    used = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    monkeypatch.setattr(shutil, "disk_usage", disk(folder, used + SIZE * 5 // 4))
    done = device.install(published(made, "1.2"))
    assert (done.state, done.reason) == (CommandState.SUCCEEDED, ""), done


def test_leftovers_of_a_kill_go_before_the_next_space_check(
    made: Repository, device: UpdateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another version of this name, and of another name: both are in the way."""
    assert device.install(published(made, "1.0")).state is CommandState.SUCCEEDED
    folder = device.settings.agent.state_dir / "updates"
    used = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    for left in ("sets/edge-app/.1.1.new/half", "downloads/edge-app/1.1/content.tar.gz.part"):
        (folder / left).parent.mkdir(parents=True)
        (folder / left).write_bytes(b"x" * SIZE)
    monkeypatch.setattr(requirements, "SPARE_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", disk(folder, used + SIZE * 5 // 4))
    done = device.install(published(made, "1.2"))
    assert (done.state, done.reason) == (CommandState.SUCCEEDED, ""), done


def test_an_unfinished_download_stays_for_the_next_order(
    made: Repository, device: UpdateDevice, server: UpdateServer
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")
    server.knows_ranges = False
    server.cut["data.bin"] = (PIECE, 100)
    assert device.install(order(found)).detail["reason_code"] == "unreachable"
    device.stop()
    device.start()
    part = device.settings.agent.state_dir / "updates/downloads/edge-app/1.0/data.bin.part"
    assert part.stat().st_size == PIECE
    server.knows_ranges = True
    server.cut.clear()
    server.requests.clear()
    assert device.install(order(found)).state is CommandState.SUCCEEDED
    assert [requested for path, requested in server.requests if path.endswith("data.bin")] == [f"bytes={PIECE}-"]


@pytest.mark.parametrize(
    ("start", "end", "code"),
    [(timedelta(days=1), timedelta(days=9), "clock"), (-timedelta(days=9), -timedelta(days=1), "unreachable")],
)
def test_certificate_of_the_server_that_begins_later_is_a_matter_of_the_clock(
    tmp_path: Path, start: timedelta, end: timedelta, code: str
) -> None:
    authority, now = trustme.CA(), datetime.now(UTC)
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1", not_before=now + start, not_after=now + end).configure_cert(context)
    authority.configure_trust(trusting)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/metadata/1.root.json"
        fetcher = download.MetadataFetcher(trusting, 1.0, lambda: 60.0, threading.Event())
        with pytest.raises(exceptions.DownloadError) as failure:
            b"".join(fetcher.fetch(url))
        listening.shutdown(socket.SHUT_RDWR)
    assert from_tuf_error(failure.value).code == code


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EISDIR, errno.EROFS])
def test_versions_that_cannot_be_remembered_are_a_failure_with_a_reason(
    made: Repository, device: UpdateDevice, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    found = made.publish("edge-app", "1.0", CONTENT, file="data.bin")

    def broken(path: Path, *_more: Any) -> None:
        raise OSError(error, os.strerror(error), str(path))

    with monkeypatch.context() as full:
        full.setattr(tuf_client, "write_whole", broken)
        result = device.install(order(found))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "other")
    assert os.strerror(error) in result.reason
    assert device.install(order(found)).state is CommandState.SUCCEEDED
