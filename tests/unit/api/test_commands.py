"""Commands by hand."""

from typing import Any

import pytest

from controller.domain.commands import MAX_OPEN_BY_HAND
from controller.domain.events import CommandReported, CommandRequested
from schemas.commands import CommandState
from tests.support.api import Api

BASE = "/api/v1/commands"


async def test_a_command_is_kept_signed_and_sent(api: Api) -> None:
    await api.report("edge-1")
    body = {"device_id": "edge-1", "action": "service.disable", "params": {"name": "telnetd", "now": True, "n": 3}}
    made = await api.json("POST", BASE, 201, {**body, "dry_run": True, "within": "2m"})
    assert made["state"] == "scheduled"
    assert made["params"] == {"name": "telnetd", "now": True, "n": 3}
    assert (made["issued_at"], made["expires_at"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:02:00.000Z")
    await api.harness.drain()
    sent = [payload for topic, payload in api.harness.link.sent if topic.endswith("/down/command")]
    assert len(sent) == 1
    assert sent[0].startswith(b"signed:")
    assert made["command_id"].encode() in sent[0]
    assert await api.json("GET", f"{BASE}/{made['command_id']}") == made
    page = await api.json("GET", f"{BASE}?device_id=edge-1&state=scheduled")
    assert [one["command_id"] for one in page["items"]] == [made["command_id"]]
    assert (await api.json("GET", f"{BASE}?state=failed"))["items"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"action": "Rm -rf"},
        {"params": {"Name": "x"}},
        {"params": {f"p{number}": 1 for number in range(17)}},
        {"params": {"name": {"nested": 1}}},
        {"within": "1s"},
        {"within": "2d"},
        {"device_id": "a/b"},
        {"counter": 7},
    ],
)
async def test_what_is_no_command_is_refused(api: Api, change: dict[str, Any]) -> None:
    await api.report("edge-1")
    await api.json("POST", BASE, 422, {"device_id": "edge-1", "action": "rescan", **change})
    assert (await api.json("GET", BASE))["items"] == []


async def test_unknown_ones(api: Api) -> None:
    await api.json("POST", BASE, 404, {"device_id": "nobody", "action": "rescan"})
    assert (await api.json("GET", f"{BASE}/none", 404))["error"]["code"] == "command_unknown"


async def test_a_device_has_so_many_open_commands_and_no_more(api: Api) -> None:
    await api.report("edge-1")
    for _ in range(MAX_OPEN_BY_HAND):
        await api.json("POST", BASE, 201, {"device_id": "edge-1", "action": "rescan"})
    answer = await api.json("POST", BASE, 409, {"device_id": "edge-1", "action": "rescan"})
    assert answer["error"]["code"] == "too_many_open"


async def _sent(api: Api) -> int:
    await api.harness.drain()
    return sum(topic.endswith("/down/command") for topic, _ in api.harness.link.sent)


async def _command(api: Api, **more: Any) -> str:
    made = await api.json("POST", BASE, 201, {"device_id": "edge-1", "action": "rescan", **more})
    return str(made["command_id"])


async def test_what_is_withdrawn_in_time_is_never_sent(api: Api) -> None:
    await api.report("edge-1")
    command = await _command(api, hold=True)
    ended = await api.json("POST", f"{BASE}/{command}/withdraw", 200, {"reason": "mistyped"})
    assert (ended["state"], ended["reason"], ended["was_sent"]) == ("expired", "mistyped", False)
    assert await _sent(api) == 0
    assert (await api.json("GET", f"/api/v1/approvals/{command}"))["state"] == "withdrawn"
    again = await api.json("POST", f"{BASE}/{command}/withdraw", 409, {"reason": "mistyped"})
    assert again["error"]["code"] == "command_ended"


async def test_what_was_sent_is_not_sent_again(api: Api) -> None:
    await api.report("edge-1")
    command = await _command(api)
    assert await _sent(api) == 1
    ended = await api.json("POST", f"{BASE}/{command}/withdraw", 200, {"reason": "mistyped"})
    assert ended["was_sent"] is True
    api.harness.clock.at += 60.0
    await api.report("edge-1", seq=2)
    assert await _sent(api) == 1


async def test_what_has_begun_or_belongs_to_a_rollout_is_not_withdrawn(api: Api) -> None:
    await api.report("edge-1")
    begun, fleet = await _command(api), api.harness.fleet
    event = CommandReported(fleet.new_id(), begun, CommandState.EXECUTING, "", ())
    await fleet.apply_and_commit("edge-1", event)
    ordered = CommandRequested(fleet.new_id(), "update.install", (), "rollout:r-0001", 600.0, dry_run=False)
    (record,) = (await fleet.apply_and_commit("edge-1", ordered)).commands
    for command, code in ((begun, "command_begun"), (record.command_id, "command_of_rollout")):
        answer = await api.json("POST", f"{BASE}/{command}/withdraw", 409, {"reason": "x"})
        assert answer["error"]["code"] == code
