"""What surrounds every request: one shape for errors, bounds, headers, the reference page, the record."""

from collections.abc import AsyncIterator

import pytest

from controller.api.middleware import MAX_BODY
from controller.domain.audit_id import AuditId
from controller.ports.messages import IncomingMessage
from tests.support.api import Api

OVERSIZED = b"x" * (MAX_BODY + 1)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/v1/devices/", 404, "not_found"),
        ("DELETE", "/api/v1/devices", 405, "method_not_allowed"),
        ("GET", "/api/v1/devices/a%20b", 422, "invalid"),
        ("GET", "/docs", 404, "not_found"),
    ],
)
async def test_every_error_has_one_shape(api: Api, method: str, path: str, status: int, code: str) -> None:
    response = await api.client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/sessions", rb'{"name": "ada\u0000", "password": "correct horse battery"}'),
        ("POST", "/api/v1/sessions", rb'{"name": "ada\udC00", "password": "correct horse battery"}'),
        ("POST", "/api/v1/enrolment/enrol", rb'{"token": ["x", {"a": "\u0000"}]}'),
        ("POST", "/api/v1/tokens", rb'{"\u0000": 1}'),
        ("GET", "/api/v1/accounts/a%00b", b""),
        ("GET", "/api/v1/devices?search=a%00b", b""),
        ("GET", "/setup?code=%00", b""),
    ],
)
async def test_texts_that_a_database_refuses_reach_none(api: Api, method: str, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Authorization": ""}
    response = await api.client.request(method, path, content=body, headers=headers)
    assert response.status_code == 422
    assert "NUL" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"reason": "\\ud800"}', b"[" * 20_000])
async def test_bodies_that_are_none(api: Api, body: bytes) -> None:
    await api.report("edge-1")
    response = await api.client.put(
        "/api/v1/quarantine/edge-1", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (400, 422)
    assert set(response.json()["error"]) == {"code", "message"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/v1/quarantine/edge-1", b'{"level": "restricted", "reason": "x", "level": "isolated"}'),
        ("PUT", "/api/v1/quarantine/edge-1", b'{"level": "restricted", "reason": "x", "\\u006cevel": "isolated"}'),
        ("PUT", "/api/v1/devices/edge-1/labels", b'{"tags": [], "tags": ["ring:test"]}'),
        ("POST", "/api/v1/rollouts", b'{"target": "app/2.0", "rings": [{"name": "a", "name": "b"}]}'),
        ("POST", "/api/v1/commands", b'{"device_id": "edge-1", "params": {"name": "a", "name": "b"}}'),
        ("POST", "/api/v1/tokens", b'{"name": "a", "scopes": ["read"], "scopes": ["admin"]}'),
        ("POST", "/api/v1/enrolment/tokens", b'{"token": "a", "token": "b"}'),
        ("POST", "/api/v1/policies/preview", b'{"policies": [], "policies": []}'),
    ],
)
async def test_body_that_repeats_a_key_is_refused(api: Api, method: str, path: str, body: bytes) -> None:
    await api.report("edge-1")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    for content in (body, pieces()):
        response = await api.client.request(method, path, content=content, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, response.text
        assert response.json()["error"]["code"] == "invalid"
        assert "more than once" in response.json()["error"]["message"]
    assert api.harness.level("edge-1").value == "none"


async def test_a_body_that_says_it_is_too_large(api: Api) -> None:
    response = await api.client.put("/api/v1/quarantine/edge-1", content=OVERSIZED)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


async def test_a_body_that_turns_out_too_large(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(OVERSIZED), 4096):
            yield OVERSIZED[start : start + 4096]

    response = await api.client.put(
        "/api/v1/quarantine/edge-1", content=pieces(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/api/v1/devices", "/api/docs"])
async def test_headers_for_browsers(api: Api, path: str) -> None:
    headers = (await api.client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


async def test_a_failure_nobody_foresaw_tells_nothing_of_its_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_self: object, device_id: str, **_more: object) -> None:
        raise RuntimeError(f"secret of {device_id}")

    monkeypatch.setattr(type(api.harness.fleet), "find", broken)
    answer = await api.json("GET", "/api/v1/devices/edge-1", 500)
    assert answer["error"]["code"] == "internal"
    assert "secret" not in answer["error"]["message"]
    assert "secret of edge-1" in caplog.text


async def test_reference_page_has_every_route_and_no_script(api: Api) -> None:
    page = (await api.client.get("/api/docs")).text
    for path in api.app.openapi()["paths"]:
        assert f"<code>{path}</code>" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


async def test_record_pages_through_both_ways(api: Api) -> None:
    for number in range(5):
        await api.report(f"edge-{number}", ports=(23,) if number == 0 else ())
    total = await api.json("GET", "/api/v1/audit?limit=1000")
    newest = [line["id"] for line in total["items"]]
    assert newest == sorted(newest, reverse=True, key=AuditId.parse)
    assert total["next"] is None
    for order, wanted in (("newest", newest), ("oldest", newest[::-1])):
        seen: list[str] = []
        after = ""
        while True:
            page = await api.json("GET", f"/api/v1/audit?limit=2&order={order}{after}")
            seen += [line["id"] for line in page["items"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert seen == wanted
    (contained,) = (await api.json("GET", "/api/v1/audit?kind=containment.decided"))["items"]
    refused = await api.json("GET", "/api/v1/audit?kind=contained", 422)
    assert refused["error"]["message"] == "query.kind.0: is not one of the values in the API's description"
    assert contained["device_id"] == "edge-0"
    assert contained["detail"]["level"] == "restricted"
    same_case = await api.json("GET", f"/api/v1/audit?case_id={contained['case_id']}")
    assert {line["device_id"] for line in same_case["items"]} == {"edge-0"}


async def test_dead_letters_show_what_was_kept(api: Api) -> None:
    bad = IncomingMessage("cordon/v1/edge-2/up/posture", b"\xff\x00{", 1, False, False, 2, 0.0)
    await api.harness.ingest.process_batch([bad])
    (letter,) = (await api.json("GET", "/api/v1/dead-letters?device_id=edge-2"))["items"]
    assert (letter["reason"], letter["size"], letter["payload"]) == ("malformed", 3, "\\xff\x00{")
    assert (await api.json("GET", "/api/v1/dead-letters?device_id=edge-1"))["items"] == []
