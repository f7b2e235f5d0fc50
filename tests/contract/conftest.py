"""Chooses the broker: a stand-in of three nodes, or the EMQX cluster that the environment names."""

import copy
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.standin.release import RELEASES
from tests.contract.target import VARIABLES, Broker, Lab
from tests.support.mqtt_probe import Endpoint
from tests.support.standin import StandInProcess

_RESTART_SECONDS = 120.0
ZONE = "/configs/global_zone"


def _real_broker() -> Broker | None:
    """The cluster of the CORDON_TEST_EMQX_* variables; None when the first of them is absent."""
    values = {name: os.environ.get(f"CORDON_TEST_EMQX_{name}", "") for name in VARIABLES}
    if not values["API"]:
        return None
    missing = [name for name in ("KEY", "SECRET", "MQTT") if not values[name]]
    if missing:
        raise pytest.UsageError(f"CORDON_TEST_EMQX_API is set, but not CORDON_TEST_EMQX_{missing[0]}")
    endpoints = []
    for address in values["MQTT"].split(","):
        host, _, port = address.strip().rpartition(":")
        endpoints.append(Endpoint(host, int(port), values["MQTT_USER"] or None, values["MQTT_PASSWORD"] or None))
    urls = [url.strip().rstrip("/") for url in values["API"].split(",")]
    return Broker(
        urls,
        endpoints,
        values["KEY"],
        values["SECRET"],
        restart=_command("RESTART"),
        hang=_command("HANG"),
        resume=_command("RESUME"),
        foreign_bans=_foreign_bans(),
    )


def _foreign_bans() -> int:
    return int(os.environ.get("CORDON_TEST_EMQX_FOREIGN_BANS", "500"))


def _command(name: str) -> Callable[[int], None] | None:
    """What does this to a node: a command line in which `{node}` becomes its number from 1; run without a shell."""
    template = os.environ.get(f"CORDON_TEST_EMQX_{name}", "")
    if not template:
        return None

    def run(number: int) -> None:
        argv = [part.replace("{node}", str(number + 1)) for part in shlex.split(template)]
        subprocess.run(argv, check=True, timeout=_RESTART_SECONDS, stdin=subprocess.DEVNULL)

    return run


# The releases that the stand-in answers as, the first by default; a real cluster is what it is.
_OTHERS = [pytest.param(release, marks=pytest.mark.slow) for release in list(RELEASES)[1:]]
BROKERS = ["cluster"] if os.environ.get("CORDON_TEST_EMQX_API") else [next(iter(RELEASES)), *_OTHERS]


@pytest.fixture(scope="session", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The broker of the whole run, set as the recorded ones were: password chain, no_match allow, cache on."""
    real = _real_broker()
    if real is not None:
        yield real
        return
    user, password = "lab", secrets.token_urlsafe(8)
    with StandInProcess(nodes=3, users=[(user, password)], emqx=request.param) as standin:
        endpoints = [Endpoint(host, port, user, password) for host, port in standin.mqtt]
        yield Broker(
            list(standin.api_urls),
            endpoints,
            standin.key,
            standin.secret,
            restart=standin.restart_node,
            hang=standin.hang_node,
            resume=standin.resume_node,
            foreign_bans=_foreign_bans(),
        )


@pytest.fixture
def lab(broker: Broker) -> Iterator[Lab]:
    """A test's own names on the broker, removed afterwards."""
    lab = Lab(broker, f"ct{secrets.token_hex(4)}", [broker.client(n) for n in range(len(broker.api_urls))])
    try:
        yield lab
    finally:
        lab.clean()
        for api in lab.apis:
            api.close()


@pytest.fixture
def cluster(lab: Lab) -> Lab:
    """The same, for what needs more than one node."""
    if len(lab.broker.endpoints) < 2:
        pytest.skip("the broker under test has only one node")
    return lab


@pytest.fixture
def hashed(lab: Lab) -> Iterator[None]:
    """Messages of a publisher go to the same member; restored afterwards."""
    before: dict[str, Any] = lab.api.get(ZONE).json()
    changed = copy.deepcopy(before)
    changed["mqtt"]["shared_subscription_strategy"] = "hash_clientid"
    assert lab.api.put(ZONE, json=changed).status_code == 200
    yield
    assert lab.api.put(ZONE, json=before).status_code == 200
