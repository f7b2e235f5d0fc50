"""Sinks are added by administrators, without a secret; what is listed and recorded has none either."""

from typing import Any

import pytest

from controller.domain.audit_kinds import AuditKind
from tests.support.api import Api
from tests.support.fleet_devices import devices_of
from tests.support.notifications import deliver

SINKS = "/api/v1/notifications/sinks"
HOOK: dict[str, Any] = {
    "name": "ops",
    "kind": "webhook",
    "url": "https://ops.example.org/services/T0KEN?key=T0KEN",
    "secret": "key",
}
MAIL: dict[str, Any] = {
    "name": "mail",
    "kind": "smtp",
    "mail": {"host": "mail.example.org", "sender": "c@example.org", "recipients": ["ops@example.org"]},
}


async def test_no_secret_is_listed_or_recorded(api: Api) -> None:
    added = await api.json("POST", SINKS, 201, HOOK)
    assert added["target"] == "https://ops.example.org"
    await api.json("POST", SINKS, 201, MAIL)
    await api.json("POST", SINKS, 201, {"name": "chat", "kind": "slack", "url_secret": "address"})
    listed = await api.client.get(SINKS)
    audited = await api.client.get("/api/v1/audit")
    assert "T0KEN" not in listed.text + audited.text
    assert [one["name"] for one in listed.json()["items"]] == ["chat", "mail", "ops"]
    lines = await api.harness.store.audit(kind=AuditKind.NOTIFICATION_SINK_ADDED)
    assert {(one.entry.actor, one.entry.alert) for one in lines} == {("operator:tests", True)}
    await api.json("DELETE", f"{SINKS}/ops", 204)
    assert (await api.json("DELETE", f"{SINKS}/ops", 404))["error"]["code"] == "sink_unknown"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"url": "http://10.0.0.1/hook"}, "this machine only"),
        ({"url": "https://me:T0KEN@example.org/"}, "no user"),
        ({"url_secret": "address"}, "one of the URL"),
        ({"url": None}, "one of the URL"),
        ({"secret": None}, "needs a secret that signs"),
        ({"secret": "another"}, "[notifications.secrets]"),
        ({"secret": "password"}, "neither a URL nor a key"),
        ({"url": None, "url_secret": "password"}, "neither a URL nor a key"),
        ({"kind": "slack"}, "chats have none"),
        ({"kind": "smtp"}, "has a mail server"),
        ({"mail": MAIL["mail"]}, "has a mail server"),
        ({"quiet": {"begin": "22:00", "end": "22:00"}}, "different times"),
        ({"quiet": {"begin": "22:00", "end": "06:00", "zone": "Mars/Base"}}, "no time zone"),
        ({"quiet": {"begin": "22:00", "end": "06:00", "zone": "../etc/passwd"}}, ""),
        ({"rules": [{"kinds": ["containment.unheard_of"]}]}, "no audit kind"),
    ],
)
async def test_a_sink_that_could_not_work_is_refused(api: Api, changes: dict[str, Any], text: str) -> None:
    body = {name: value for name, value in {**HOOK, **changes}.items() if value is not None}
    response = await api.client.post(SINKS, json=body)
    assert response.status_code in (409, 422), response.text
    assert text in response.json()["error"]["message"]
    assert "T0KEN" not in response.json()["error"]["message"]
    assert (await api.json("GET", SINKS))["items"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "mail.example.org\r\nX"},
        {"host": "10.0.0.1", "security": "none"},
        {"recipients": ["ops@example.org\r\nBcc: x@example.org"]},
        {"recipients": ["ops@example.org, x@example.org"]},
        {"sender": "<c@example.org>"},
        {"username": "cordon"},
        {"recipients": []},
        {"recipients": ["a@example.org"] * 17},
    ],
)
async def test_a_mail_server_that_could_not_work_is_refused(api: Api, changes: dict[str, Any]) -> None:
    response = await api.client.post(SINKS, json={**MAIL, "mail": {**MAIL["mail"], **changes}})
    assert response.status_code in (409, 422), response.text


@pytest.mark.parametrize(
    ("host", "secret", "status"),
    [
        ("mail.example.org", "password", 201),
        ("mail.example.org:2525", "password", 409),  # of another program on that machine
        ("MAIL.example.org", "password", 201),
        ("mail.evil.example", "password", 409),
        ("mail.example.org.evil.example", "password", 409),
        ("mail.example.org", "key", 409),  # no password at all
        ("mail.example.org", "address", 409),
    ],
)
async def test_a_password_is_for_its_own_mail_server(api: Api, host: str, secret: str, status: int) -> None:
    host, _, port = host.partition(":")
    mail = {**MAIL["mail"], "host": host, "port": int(port or 587), "username": "cordon", "secret": secret}
    answer = await api.json("POST", SINKS, status, {**MAIL, "mail": mail})
    assert status == 201 or "[notifications.mail_servers]" in answer["error"]["message"]


async def test_a_test_and_an_acknowledgement_are_in_the_log(api: Api) -> None:
    await api.json("POST", SINKS, 201, HOOK)
    await api.harness.services.notifications.dispatcher.load()
    assert await api.json("POST", f"{SINKS}/ops/test") == {"delivered": True, "trouble": ""}
    await api.report("edge-1", ports=(23,))
    case = devices_of(api.harness.fleet)["edge-1"].case
    assert case is not None
    done = await api.json("POST", f"/api/v1/notifications/cases/{case.case_id}/acknowledge", body={"reason": "on it"})
    assert (done["by"], done["reason"]) == ("operator:tests", "on it")
    await api.json("POST", "/api/v1/notifications/cases/01JH/acknowledge", 404, {})
    await deliver(api.harness)
    log = (await api.json("GET", "/api/v1/notifications/log"))["items"]
    assert [one["kind"] for one in log] == ["notification.acknowledged", "containment.decided", "notification.test"]
    assert [one["acknowledged_by"] for one in log] == ["operator:tests", "operator:tests", ""]
    assert {one["state"] for one in log} == {"delivered"}
    page = await api.json("GET", "/api/v1/notifications/log?limit=1&sink=ops")
    assert page["next"] == log[0]["seq"]
    assert (await api.json("GET", f"/api/v1/audit?case_id={case.case_id}"))["items"][0]["kind"] == (
        AuditKind.NOTIFICATION_ACKNOWLEDGED
    )
    text = (await api.client.get("/metrics")).text
    assert 'cordon_notifications_total{outcome="delivered",sink="ops"} 2.0' in text
    assert 'cordon_notification_sink_failing_since_timestamp_seconds{sink="ops"} 0.0' in text
