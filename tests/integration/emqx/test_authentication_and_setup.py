"""Authentication strength by the broker's settings, and its setup: planned, applied once, undone."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.setup.baseline import read_all_rules, rules_for_all, rules_for_controller
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.emqx.wildcard import ban_wildcard, unban_wildcard
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import Subject
from controller.ports.broker import CLOCK_SLACK, AuthStrength
from controller.ports.broker_setup import DesiredSetup
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import BrokerNotFoundError, BrokerRefusedError
from schemas.topics import ALL_UP, PRESENCE, DownChannel, UpChannel, down, up
from tests.integration.emqx.conftest import USER, SavedRules
from tests.support.certs import Certs
from tests.support.emqx_calls import PATIENT, delete_rules, rules_of, write_rules
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

DENIED = 135
CONTROLLER = "cordon-controller"
WANTED = DesiredSetup(CONTROLLER)


@dataclass
class SavedStates:
    """Takes the place of the store: the states that `apply` saved before its first change."""

    texts: list[str] = field(default_factory=list)

    async def __call__(self, before: str) -> None:
        self.texts.append(before)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module")
def open_broker(certs: Certs) -> Iterator[StandInProcess]:
    """A broker without authentication chain, with a TLS listener that requires certificates."""
    with StandInProcess(nodes=1, certs=certs) as process:
        yield process


def client_tls(certs: Certs, cn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certs.ca)
    context.load_cert_chain(*certs.client(cn))
    return context


async def test_a_certificate_proves_a_device_and_a_client_without_credentials_only_claims(
    open_broker: StandInProcess, certs: Certs
) -> None:
    tls = client_tls(certs, "g-cert")
    async with open_emqx(
        open_broker.api_urls, open_broker.key, open_broker.secret, clock=SystemClock(), limits=PATIENT
    ) as broker:
        await ban_wildcard(broker.api)
        assert await broker.auth_strength("g-nobody") is AuthStrength.UNSEEN
        with Device("g-cert", open_broker.tls, tls=tls), Device("g-plain", open_broker.mqtt):
            assert await broker.auth_strength("g-cert") is AuthStrength.PROVEN
            assert await broker.auth_strength("g-plain") is AuthStrength.CLAIMED
            assert await broker.allows_unauthenticated()
            now = time.time()
            assert await broker.auth_strength("g-cert", heard_at=now - 60) is AuthStrength.LATER
            assert await broker.auth_strength("g-plain", heard_at=now - 60) is AuthStrength.CLAIMED
            assert await broker.auth_strength("g-cert", heard_at=now + 2 * CLOCK_SLACK) is AuthStrength.PROVEN


async def test_a_claim_before_the_victims_session_is_not_its_own(open_broker: StandInProcess, certs: Certs) -> None:
    tls = client_tls(certs, "g-victim")
    async with open_emqx(
        open_broker.api_urls, open_broker.key, open_broker.secret, clock=SystemClock(), limits=PATIENT
    ) as broker:
        await ban_wildcard(broker.api)
        with Device("g-victim", open_broker.tls, tls=tls) as victim:
            with Device("g-victim", open_broker.mqtt) as impostor:
                await asyncio.to_thread(impostor.publish, up("g-victim", UpChannel.POSTURE))
                heard_at = time.time()
                assert await broker.auth_strength("g-victim", heard_at=heard_at) is AuthStrength.CLAIMED
            victim.close()
        with Device("g-victim", open_broker.tls, tls=tls):
            assert await broker.auth_strength("g-victim") is AuthStrength.PROVEN
            assert await broker.auth_strength("g-victim", heard_at=heard_at) is AuthStrength.LATER


async def test_a_password_makes_a_device_known_where_the_id_is_the_user_name(
    emqx: StandInProcess, broker: EmqxBroker
) -> None:
    await ban_wildcard(broker.api)
    try:
        with Device(USER[0], [emqx.mqtt[0]], user=USER), Device("g-other", [emqx.mqtt[0]], user=USER):
            assert await broker.auth_strength(USER[0]) is AuthStrength.KNOWN
            assert await broker.auth_strength(USER[0], heard_at=1.0) is AuthStrength.LATER, "others can take its id"
            assert await broker.auth_strength("g-other") is AuthStrength.ADMITTED
            assert await broker.allows_unauthenticated()
        assert await broker.auth_strength("g-nobody") is AuthStrength.UNSEEN
    finally:
        await unban_wildcard(broker.api)


async def test_setup_is_planned_applied_once_and_undone(emqx: StandInProcess, broker: EmqxBroker) -> None:
    theirs = (AccessRule("fleet/#", "allow", "all"), AccessRule("secret/#", "deny", "subscribe", qos=(1, 2)))
    mine = (AccessRule("extra/#", "allow", "subscribe"),)
    await broker.api.send(requests.write_all_rules(theirs))
    await write_rules(broker.api, CONTROLLER, mine)
    setup = EmqxSetup(broker.api)
    before = await setup.state(CONTROLLER)

    planned = await setup.changes(WANTED)
    assert [change.what for change in planned] == [
        "rules for all clients", f"rules of the client {CONTROLLER}", "ban of the client id +"
    ]  # fmt: skip
    assert planned[0].before == "allow all fleet/#\ndeny subscribe secret/# qos 1,2"
    assert planned[0].after.endswith(planned[0].before)
    assert await setup.state(CONTROLLER) == before, "a plan writes nothing"

    states = SavedStates()
    assert await setup.apply(WANTED, states) == tuple(planned)
    assert await setup.changes(WANTED) == []
    assert await setup.apply(WANTED, states) == ()
    assert states.texts == [before], "an apply that changes nothing saves nothing"
    assert await read_all_rules(broker.api) == rules_for_all() + theirs
    assert await rules_of(broker.api, CONTROLLER) == rules_for_controller() + mine

    assert await setup.undo(before) == []
    assert await setup.state(CONTROLLER) == before
    await broker.api.send(requests.delete_all_rules())
    await delete_rules(broker.api, CONTROLLER)


async def test_after_setup_a_device_uses_its_own_branch_and_the_controller_receives_all(
    emqx: StandInProcess, broker: EmqxBroker
) -> None:
    setup, states = EmqxSetup(broker.api), SavedStates()
    await setup.apply(WANTED, states)
    try:
        with Device("s-one", [emqx.mqtt[0]], user=USER) as one, Device(CONTROLLER, [emqx.mqtt[1]], user=USER) as boss:
            assert await asyncio.to_thread(boss.subscribe, ALL_UP) == 1
            assert await asyncio.to_thread(boss.subscribe, PRESENCE) in {0, 1}
            assert await asyncio.to_thread(boss.publish, down("s-one", DownChannel.COMMAND)) != DENIED
            assert await asyncio.to_thread(one.publish, up("s-one", UpChannel.POSTURE)) == 0
            assert await asyncio.to_thread(one.subscribe, down("s-one", DownChannel.COMMAND)) == 1
            assert await asyncio.to_thread(one.publish, up("s-two", UpChannel.POSTURE)) == DENIED
            assert await asyncio.to_thread(one.publish, down("s-two", DownChannel.COMMAND)) == DENIED
            assert await asyncio.to_thread(one.subscribe, down("s-two", DownChannel.COMMAND)) == DENIED
            assert await asyncio.to_thread(one.subscribe, ALL_UP) == DENIED
            assert await asyncio.to_thread(one.publish, "fleet/telemetry") != DENIED
    finally:
        assert await setup.undo(states.texts[0]) == []


async def test_a_restriction_that_the_broker_does_not_consult_is_no_proof(
    open_broker: StandInProcess, saved: SavedRules, certs: Certs
) -> None:
    async with open_emqx(
        open_broker.api_urls, open_broker.key, open_broker.secret, clock=SystemClock(), limits=PATIENT
    ) as broker:
        source = (await broker.api.send(requests.read_sources()))[0]
        await broker.api.send(requests.write_source(source.model_copy(update={"enable": False})))
        try:
            proof = await broker.restrict(Subject.client("s-off"), saved)
            assert not proof.holds
            assert "no effect" in proof.missing
            changes = await EmqxSetup(broker.api).apply(WANTED, SavedStates())
            assert changes[0].before == "built_in_database (off)"
            assert changes[0].after == "built_in_database"
            assert (await broker.restrict(Subject.client("s-off"), saved)).holds
        finally:
            await broker.api.send(requests.write_source(source))
            await broker.release(Subject.client("s-off"), ())


async def test_a_wrong_key_is_explained_and_not_retried(emqx: StandInProcess) -> None:
    async with open_emqx(emqx.api_urls, emqx.key, "not-the-secret", clock=SystemClock(), limits=PATIENT) as broker:
        with pytest.raises(BrokerRefusedError, match="key or secret is wrong") as caught:
            await EmqxSetup(broker.api).changes(WANTED)
        assert "not-the-secret" not in str(caught.value)
        assert [up_now for _, up_now, _ in await broker.ping()] == [False] * 3


async def test_ping_returns_the_version_of_each_node(emqx: StandInProcess, broker: EmqxBroker) -> None:
    seen = await broker.ping()
    assert [base for base, _, _ in seen] == emqx.api_urls
    assert all(up_now and version for _, up_now, version in seen)


async def test_a_missing_database_is_added_and_removed_again(open_broker: StandInProcess, saved: SavedRules) -> None:
    async with open_emqx(
        open_broker.api_urls, open_broker.key, open_broker.secret, clock=SystemClock(), limits=PATIENT
    ) as broker:
        await broker.api.send(requests.delete_source("built_in_database"))
        assert await broker.api.send(requests.read_sources()) == ()
        setup = EmqxSetup(broker.api)
        before = await setup.state(CONTROLLER)
        with pytest.raises(BrokerNotFoundError):
            await broker.restrict(Subject.client("s-bare"), saved)

        states = SavedStates()
        changes = await setup.apply(WANTED, states)
        # The ban of `+` is a fourth one where no other test has left it.
        assert len([change for change in changes if not change.what.startswith("ban of")]) == 3
        assert states.texts == [before]
        assert await setup.changes(WANTED) == []
        assert (await broker.restrict(Subject.client("s-bare"), saved)).holds

        left = await setup.undo(before)
        assert left == ["the built-in database stays: s-bare has rules in it"]
        assert (await broker.release(Subject.client("s-bare"), ())).holds
        assert await setup.undo(before) == []
        assert await setup.state(CONTROLLER) == before
        await broker.api.send(requests.create_database())


async def test_the_restriction_of_a_superuser_is_no_proof(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    chain = (await broker.api.send(requests.read_authenticators()))[0].id
    make_user(emqx, chain, {"user_id": "root", "password": "root-password", "is_superuser": True})
    with Device("s-super", [emqx.mqtt[0]], user=("root", "root-password")) as device:
        proof = await broker.restrict(Subject.client("s-super"), saved)
        assert not proof.holds
        assert "superuser" in proof.missing
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") != DENIED, "it does pass"
        proof = await broker.isolate(Subject.client("s-super"), saved, case="c", reason="r", until=None)
        assert proof.holds, proof.missing
        wait_for(lambda: device.disconnects != [], "the disconnect")
    await broker.release(Subject.client("s-super"), ())


def make_user(emqx: StandInProcess, chain: str, user: dict[str, object]) -> None:
    answer = httpx.post(
        f"{emqx.api_urls[0]}/api/v5/authentication/{chain}/users",
        json=user,
        auth=(emqx.key, emqx.secret),
        trust_env=False,
    )
    assert answer.status_code == 201, answer.text
