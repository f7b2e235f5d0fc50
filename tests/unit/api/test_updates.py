"""The API about updates, and the server that hands them to devices."""

import base64
from pathlib import Path

import httpx
import pytest

from controller.adapters.tuf_repository.repository import TufUpdateRepository
from controller.api.downloads import BandwidthLimiter, DownloadThrottle, create_downloads
from tests.support.api import api
from tests.support.updates import Repository, repository


@pytest.fixture
def made(tmp_path: Path) -> Repository:
    fresh = repository(tmp_path / "repository")
    fresh.publish("edge-app", "1.0", bytes(range(256)) * 20, file="content.bin")
    return fresh


async def test_published_versions_and_roles_are_told(tmp_path: Path, made: Repository) -> None:
    async with api(tmp_path / "none.db") as it:
        assert (await it.json("GET", "/api/v1/updates", 404))["error"]["code"] == "updates_not_set_up"
    async with api(tmp_path / "cordon.db", updates=TufUpdateRepository(made.folder.base)) as it:
        refresher = it.services.rollouts.refresher
        assert refresher is not None
        refresher.trouble = "the key is gone"
        (one,) = (await it.json("GET", "/api/v1/updates"))["items"]
        assert (one["path"], one["target"]["version"]) == ("edge-app/1.0/content.bin", "1.0")
        assert await it.json("GET", "/api/v1/updates/edge-app/1.0") == one
        assert (await it.json("GET", "/api/v1/updates/edge-app/2.0", 404))["error"]["code"] == "update_unknown"
        status = await it.json("GET", "/api/v1/updates/status")
        assert [role["role"] for role in status["roles"]] == ["root", "targets", "snapshot", "timestamp"]
        assert status["trouble"] == "the key is gone"
        measured = (await it.client.get("/metrics")).text
        assert "cordon_update_metadata_trouble 1.0" in measured
        assert "cordon_update_metadata_warnings 0.0" in measured


async def test_a_folder_without_a_repository_is_said_to_be_so(tmp_path: Path) -> None:
    async with api(tmp_path / "cordon.db", updates=TufUpdateRepository(tmp_path / "none")) as it:
        assert "cordon update init" in (await it.json("GET", "/api/v1/updates", 404))["error"]["message"]
        assert (await it.json("GET", "/api/v1/updates/status", 503))["error"]["code"] == "updates_not_readable"


async def test_downloads_have_ranges_and_content_hashes_and_nothing_else_is_served(made: Repository) -> None:
    (found,) = TufUpdateRepository(made.folder.base).published()
    app = create_downloads(made.served, mib_per_second=0, most=4, most_per_address=4)
    path = f"/targets/edge-app/1.0/{found.sha256}.content.bin"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://updates") as client:
        whole = await client.get(path)
        assert (whole.status_code, len(whole.content)) == (200, found.length)
        assert whole.headers["etag"] == f'"{found.sha256}"'
        digest = base64.b64encode(bytes.fromhex(found.sha256)).decode()
        assert whole.headers["repr-digest"] == f"sha-256=:{digest}:"
        rest = await client.get(path, headers={"Range": "bytes=100-", "If-Range": whole.headers["etag"]})
        assert (rest.status_code, rest.content) == (206, whole.content[100:])
        other = await client.get(path, headers={"Range": "bytes=100-", "If-Range": '"other"'})
        assert (other.status_code, other.content) == (200, whole.content)
        assert (await client.get(path, headers={"If-None-Match": whole.headers["etag"]})).status_code == 304
        timestamp = await client.get("/metadata/timestamp.json")
        assert timestamp.headers["cache-control"] == "no-cache"
        for hidden in ("/online/timestamp.pem", "/metadata/../../online/timestamp.pem", "/targets/%2e%2e/%2e%2e/lock"):
            assert (await client.get(hidden)).status_code == 404


async def test_too_many_downloads_are_told_to_come_again(made: Repository) -> None:
    served = create_downloads(made.served, mib_per_second=0, most=4, most_per_address=4)
    app = DownloadThrottle(served, bandwidth=BandwidthLimiter(0), most=0, most_per_address=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://updates") as client:
        busy = await client.get("/metadata/timestamp.json")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "30")


async def test_bandwidth_is_shared() -> None:
    bandwidth = BandwidthLimiter(1_000_000.0)
    for _ in range(3):
        await bandwidth.take(10_000)
    assert bandwidth._free > 0  # the third one waited for its share
    free = BandwidthLimiter(0)
    await free.take(10**12)
    assert free._free == 0
