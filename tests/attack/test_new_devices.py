"""Throw-away devices that are to switch automatic containment off, and ids that are to be taken from others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from controller.domain.audit_kinds import AuditKind
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import NEWCOMER_FOR, FleetGuards
from controller.domain.identity.enrolment import matches_ids
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRule, Ban
from controller.ports.errors import BrokerUnreachableError
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.clocks import START
from tests.support.identity import request_for

BASE = "/api/v1"
LIMIT = 2
GUARDS = FleetGuards(BlastRadius(BlastRadiusLimits(LIMIT, 100.0, 3600.0)))
TELNET = (23,)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A fleet of four, of which policies may contain two, with an authority."""
    async with open_api(tmp_path / "c.db", authority=tmp_path, guards=GUARDS) as made:
        for number in range(4):
            await made.report(f"good-{number}")
        yield made


async def _token(api: Api, **wanted: Any) -> tuple[str, str]:
    made = await api.json("POST", f"{BASE}/enrolment/tokens", 201, {"uses": 20, **wanted})
    return made["token"], made["kept"]["token_id"]


async def _enrol(api: Api, secret: str, device: str) -> tuple[int, Any]:
    body = {"token": secret, "device_id": device, "csr": request_for(device)}
    response = await api.client.post(f"https://cordon{BASE}/enrolment/enrol", json=body, headers={"Authorization": ""})
    return response.status_code, response.json()


async def _throw_away(api: Api, secret: str, name: str = "sybil", count: int = LIMIT + 1) -> None:
    for number in range(count):
        device = f"{name}-{number}"
        assert (await _enrol(api, secret, device))[0] == 200
        await api.report(device, ports=TELNET)


async def test_throw_away_devices_of_a_token_use_up_nothing_of_the_others(api: Api) -> None:
    secret, token_id = await _token(api)
    await _throw_away(api, secret)
    assert api.harness.level("sybil-2") is ContainmentLevel.NONE, "they have a limit too"
    await api.report("good-0", ports=TELNET, seq=2)
    assert api.harness.level("good-0") is ContainmentLevel.RESTRICTED
    shown = await api.json("GET", f"{BASE}/guard")
    assert (shown["contained"], shown["reached"]) == (1, False)
    assert shown["pools"] == [{"pool": f"token:{token_id}", "contained": LIMIT, "waiting": 1}]


def _used(api: Api, name: str, what: str) -> None:
    broker = api.harness.broker
    match what:
        case "a session":
            broker.foreign_sessions.add(name)
        case "a ban":
            broker.bans_held[name] = Ban("clientid", name, "somebody", "", START, None)
        case "access rules":
            broker.rules_held[name] = (AccessRule("plant/#", "allow", "all"),)


@pytest.mark.parametrize("what", ["a session", "a ban", "access rules"])
@pytest.mark.parametrize("ids", [None, "plc-*"])
async def test_a_fleet_token_takes_no_client_id_of_another_application(api: Api, what: str, ids: str | None) -> None:
    """Finding: any free name could be enrolled, and the broker took its certificate for the other client's."""
    secret, _ = await _token(api, **({} if ids is None else {"ids": ids}))
    _used(api, "plc-gateway", what)
    status, body = await _enrol(api, secret, "plc-gateway")
    assert (status, body["error"]["code"]) == (409, "id_in_use")
    assert what in body["error"]["message"]
    (alert,) = [one.entry for one in await api.harness.store.audit(alerts_only=True)]
    assert (alert.kind, alert.device_id) == (AuditKind.ENROLMENT_REFUSED, "plc-gateway")
    assert (await _enrol(api, secret, "plc-1"))[0] == 200, "the token is not used up"


async def test_an_operator_gives_the_id_of_a_client_to_a_device_by_name(api: Api) -> None:
    secret, _ = await _token(api, uses=1, device_id="plc-gateway")
    _used(api, "plc-gateway", "a session")
    assert (await _enrol(api, secret, "plc-gateway"))[0] == 200


async def test_nobody_enrols_freely_while_the_broker_cannot_be_asked(api: Api) -> None:
    secret, _ = await _token(api)
    api.harness.broker.fails.append(BrokerUnreachableError("no node answers"))
    status, body = await _enrol(api, secret, "edge-1")
    assert (status, body["error"]["code"]) == (503, "broker_unreachable")
    assert "try again" in body["error"]["message"]
    assert (await _enrol(api, secret, "edge-1"))[0] == 200, "later it is served"


async def test_a_device_that_asks_again_is_not_taken_for_another_application(api: Api) -> None:
    secret, _ = await _token(api)
    key = ec.generate_private_key(ec.SECP256R1())
    body = {"token": secret, "device_id": "edge-1", "csr": request_for("edge-1", key)}
    for _ in range(2):
        response = await api.client.post(
            f"https://cordon{BASE}/enrolment/enrol", json=body, headers={"Authorization": ""}
        )
        assert response.status_code == 200
        _used(api, "edge-1", "a session")


async def test_the_alert_names_the_token(api: Api) -> None:
    secret, token_id = await _token(api, **{"class": "sensor"})
    await _throw_away(api, secret)
    (alert,) = [
        one.entry
        for one in await api.harness.store.audit(alerts_only=True)
        if one.entry.kind is AuditKind.GUARD_BLAST_RADIUS_REACHED
    ]
    assert alert.detail is not None
    assert alert.detail["enrolment_token"] == token_id
    assert f"cordon enrol withdraw {token_id}" in str(alert.detail["what"])


async def test_one_token_uses_up_nothing_of_another_ones_devices(api: Api) -> None:
    bad, good = (await _token(api))[0], (await _token(api))[0]
    await _throw_away(api, bad)
    await _throw_away(api, good, "honest", 1)
    assert api.harness.level("honest-0") is ContainmentLevel.RESTRICTED


async def test_made_up_ids_use_up_nothing_of_an_established_fleet(api: Api) -> None:
    api.harness.clock.at += NEWCOMER_FOR
    for number in range(LIMIT + 1):
        await api.report(f"made-up-{number}", ports=TELNET)
    assert api.harness.level(f"made-up-{LIMIT}") is ContainmentLevel.NONE
    await api.report("good-1", ports=TELNET, seq=2)
    assert api.harness.level("good-1") is ContainmentLevel.RESTRICTED


async def test_what_waits_does_not_grow_into_the_limit_of_the_others(api: Api) -> None:
    secret, _ = await _token(api)
    await _throw_away(api, secret)
    for day in range(1, 9):
        api.harness.clock.at += NEWCOMER_FOR / 7
        await api.report("sybil-2", ports=TELNET, seq=1 + day)
    await api.report("good-0", ports=TELNET, seq=2)
    assert api.harness.level("good-0") is ContainmentLevel.RESTRICTED


async def test_pools_survive_a_restart(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db", authority=tmp_path, guards=GUARDS) as api:
        secret, token_id = await _token(api)
        await api.report("good-0")
        await _throw_away(api, secret)
        clock = api.harness.clock
    async with open_api(tmp_path / "c.db", authority=tmp_path, guards=GUARDS, clock=clock) as api:
        pool = api.harness.fleet.guards.pools[f"token:{token_id}"]
        assert (set(pool.charged), pool.waiting) == ({"sybil-0", "sybil-1"}, 1)
        assert api.harness.fleet.guards.radius.waiting == 0
        await api.report("good-0", ports=TELNET, seq=2)
        assert api.harness.level("good-0") is ContainmentLevel.RESTRICTED


@pytest.mark.parametrize(
    ("pattern", "device", "allowed"),
    [
        ("sensor-*", "sensor-17", True),
        ("sensor-*", "gateway-1", False),
        ("sensor-*", "SENSOR-1", False),
        ("sensor-??", "sensor-1", False),
        ("a.b-*", "axb-1", False),
        ("", "good-9", True),
        ("", "GOOD-0", False),
        ("", "Good-9", False),
    ],
)
async def test_a_fleet_token_enrols_ids_of_its_pattern_only(api: Api, pattern: str, device: str, allowed: bool) -> None:
    secret, _ = await _token(api, ids=pattern)
    status, answer = await _enrol(api, secret, device)
    assert (status == 200) is allowed
    if not allowed:
        assert (status, answer["error"]["code"]) == (403, "id_not_allowed")
        (alert,) = [one.entry for one in await api.harness.store.audit(alerts_only=True)]
        assert alert.kind is AuditKind.ENROLMENT_REFUSED


async def test_patterns_that_make_no_sense_are_refused(api: Api) -> None:
    for body in ({"ids": "a*b*c*d*e*"}, {"ids": "a b"}, {"ids": "x-*", "device_id": "x-1", "uses": 1}):
        await api.json("POST", f"{BASE}/enrolment/tokens", 422, {"uses": 2, **body})


async def test_the_bound_of_enrolment_tokens_holds_at_one_moment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.service.identity.enrolment.MAX_TOKENS", 3)
    answers = await asyncio.gather(*(api.client.post(f"{BASE}/enrolment/tokens", json={}) for _ in range(10)))
    assert sorted(one.status_code for one in answers) == [201] * 3 + [409] * 7
    assert len((await api.json("GET", f"{BASE}/enrolment/tokens"))["items"]) == 3


def test_a_pattern_is_of_the_whole_id() -> None:
    assert matches_ids("*", "anything")
    assert not matches_ids("edge", "edge-1")
    assert not matches_ids("edge-*", "my-edge-1")
