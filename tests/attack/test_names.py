"""Client ids that are patterns or another's: passwords at a broker that lets clients choose their id."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.models import AuthenticatorRow
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.emqx.wildcard import is_wildcard_banned, unban_wildcard
from controller.adapters.system import SystemClock
from controller.domain.events import ContainmentOrdered, ReleaseOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import CLOCK_SLACK, AuthStrength
from controller.ports.broker_setup import DesiredSetup
from controller.service.containment.returns import ReturnMonitor
from schemas.topics import UpChannel, up
from tests.support.controller_harness import open_harness
from tests.support.emqx_calls import PATIENT
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

MALLORY, VICTIM, BANNED, DENIED = ("mallory", "pwm"), ("victim", "pwv"), 138, 135


@pytest.fixture(scope="module")
def emqx() -> Iterator[StandInProcess]:
    """A broker where everybody has a password, as EMQX 5.8 is."""
    with StandInProcess(users=[MALLORY, VICTIM], no_match="deny") as process:
        yield process


@pytest.fixture
async def broker(emqx: StandInProcess) -> AsyncIterator[EmqxBroker]:
    """The broker after `cordon broker setup --apply`."""

    async def save(_before: str) -> None:
        pass

    async with open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT) as opened:
        await EmqxSetup(opened.api).apply(DesiredSetup("cordon-controller"), save)
        yield opened


async def test_the_id_that_is_a_wildcard_does_not_connect(emqx: StandInProcess, broker: EmqxBroker) -> None:
    assert await is_wildcard_banned(broker.api)
    with Device("+", emqx.mqtt, user=MALLORY, reconnects=False) as wildcard:
        assert wildcard.connacks[-1] == BANNED


async def test_without_the_ban_it_would_publish_as_the_victim_and_contains_nobody(
    emqx: StandInProcess, broker: EmqxBroker
) -> None:
    await unban_wildcard(broker.api)
    with Device("victim", emqx.mqtt, user=VICTIM), Device("+", emqx.mqtt, user=MALLORY) as wildcard:
        assert await asyncio.to_thread(wildcard.publish, up("victim", UpChannel.POSTURE)) != DENIED
        heard_at = time.time() + 2 * CLOCK_SLACK
        assert await broker.auth_strength("victim", heard_at=heard_at) is AuthStrength.ADMITTED


async def test_setup_bans_it_again_and_drift_is_seen(emqx: StandInProcess, broker: EmqxBroker) -> None:
    await unban_wildcard(broker.api)
    changes = await EmqxSetup(broker.api).changes(DesiredSetup("cordon-controller"))
    assert [change.what for change in changes] == ["ban of the client id +"]
    body = {"as": "clientid", "who": "+", "by": "somebody", "until": int(time.time()) + 3600}
    await broker.api.send(requests.json_request("POST", "/banned", "ban", body=body))
    assert not await is_wildcard_banned(broker.api), "a ban that ends is none"


async def test_a_victims_id_with_another_password_is_no_evidence(emqx: StandInProcess, broker: EmqxBroker) -> None:
    with Device("victim", emqx.mqtt, user=MALLORY) as impostor:
        heard_at = time.time()
        assert await asyncio.to_thread(impostor.publish, up("victim", UpChannel.POSTURE)) != DENIED
        assert await broker.auth_strength("victim", heard_at=heard_at) is AuthStrength.ADMITTED


async def test_what_was_said_before_the_owners_session_is_no_evidence(emqx: StandInProcess, broker: EmqxBroker) -> None:
    with Device("victim", emqx.mqtt, user=MALLORY):
        heard_at = time.time()
    with Device("victim", emqx.mqtt, user=VICTIM):
        assert await broker.auth_strength("victim", heard_at=heard_at) is AuthStrength.LATER
        assert await broker.auth_strength("victim", heard_at=time.time() + 60) is AuthStrength.KNOWN


@pytest.mark.parametrize("client_id", ["#", "+/#", "+/up/#"])
async def test_other_ids_that_are_no_device_ids_reach_nobody(
    emqx: StandInProcess, broker: EmqxBroker, client_id: str
) -> None:
    with Device(client_id, emqx.mqtt, user=MALLORY) as odd:
        assert await asyncio.to_thread(odd.publish, up("victim", UpChannel.POSTURE)) == DENIED


@pytest.mark.parametrize(
    ("row", "by_client_id", "checks_username"),
    [
        ({"mechanism": "password_based", "backend": "built_in_database", "user_id_type": "clientid"}, True, False),
        ({"mechanism": "password_based", "backend": "built_in_database", "user_id_type": "username"}, False, True),
        ({"mechanism": "password_based", "backend": "http"}, False, True),
        ({"mechanism": "jwt"}, False, False),
        ({"mechanism": "jwt", "verify_claims": {"sub": "${clientid}"}}, True, False),
        ({"mechanism": "jwt", "verify_claims": [{"name": "sub", "value": "${username}"}]}, False, True),
    ],
)
def test_which_authenticators_bind_what(row: dict[str, object], by_client_id: bool, checks_username: bool) -> None:
    found = AuthenticatorRow.model_validate({"id": "x", **row})
    assert (found.is_by_client_id, found.checks_username) == (by_client_id, checks_username)


async def test_an_isolated_device_that_comes_back_under_another_id_is_contained(
    emqx: StandInProcess, broker: EmqxBroker, tmp_path: Path
) -> None:
    """With its own password; another application's client, with another user name, is left alone."""
    async with open_harness(tmp_path / "cordon.db", emqx=broker) as harness:
        event = ContainmentOrdered(harness.fleet.new_id(), ContainmentLevel.ISOLATED, "operator:a", "stolen", None)
        await harness.fleet.apply_and_commit("mallory", event)
        await harness.drain()
        with (
            Device("app", emqx.mqtt, user=VICTIM) as application,
            Device("x", emqx.mqtt, user=MALLORY, reconnects=False) as returned,
        ):
            assert returned.connacks[-1] == 0
            await harness.loop(ReturnMonitor).compare()
            await harness.services.containment.users.tick()
            assert harness.services.containment.users.cases["mallory"].is_proven
            wait_for(lambda: returned.disconnects)
            assert application.is_connected
        with Device("y", emqx.mqtt, user=MALLORY, reconnects=False) as again:
            assert again.connacks[-1] == BANNED
        for _ in range(2):
            await harness.fleet.apply_and_commit("mallory", ReleaseOrdered(harness.fleet.new_id(), "operator:a", "r"))
            await harness.drain()
        await harness.loop(ReturnMonitor).compare()
        await harness.services.containment.users.tick()
        with Device("z", emqx.mqtt, user=MALLORY) as free:
            assert free.connacks[-1] == 0
