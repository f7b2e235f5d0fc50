"""Authentication by certificate, on mosquitto, on the stand-in as far as it supports it, and on a real EMQX."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.tls_brokers import Gate, emqx_gate, mosquitto_gate, standin_gate
from tests.support.certs import Certs
from tests.support.mqtt_probe import Endpoint, Probe, close_all
from tests.support.standin import StandInProcess

FETCHED_WITHIN = 180.0  # seconds until a broker has read a list anew; a bound, nothing is measured with it


@pytest.fixture(scope="module", params=["mosquitto", "stand-in", "emqx"])
def gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with contextlib.ExitStack() as stack:
        if request.param == "emqx":
            yield stack.enter_context(emqx_gate())
        else:
            make = mosquitto_gate if request.param == "mosquitto" else standin_gate
            yield stack.enter_context(make(tmp_path_factory.mktemp(str(request.param))))


def name() -> str:
    return f"ct{secrets.token_hex(4)}"


def test_only_certificates_of_the_authority_are_admitted(gate: Gate) -> None:
    one = name()
    assert gate.lets_in(gate.files.issue(one), one)
    assert not gate.lets_in(None, one)


def test_the_client_id_is_taken_from_the_certificate(gate: Gate) -> None:
    """Connections that claim other client ids are one client: the second takes over the session of the first."""
    issued = gate.files.issue(name())
    first = gate.probe(issued, name()).enter()
    second = gate.probe(issued, name()).enter()
    first.ended()
    assert second.alive()


def test_the_client_id_of_another_device_cannot_be_used(gate: Gate) -> None:
    victim, thief = name(), name()
    live = gate.probe(gate.files.issue(victim), victim).enter()
    gate.probe(gate.files.issue(thief), victim).enter()
    assert live.alive()


def test_a_revoked_certificate_is_refused_once_the_crl_was_fetched(gate: Gate) -> None:
    if gate.no_lists:
        pytest.skip(gate.no_lists)
    one = name()
    issued, other = gate.files.issue(one), gate.files.issue(name())
    assert gate.lets_in(issued, one)
    gate.files.publish(issued.certificate)
    gate.refresh()
    deadline = time.monotonic() + FETCHED_WITHIN
    while gate.lets_in(issued, one):
        assert time.monotonic() < deadline, "the list was not fetched, or is not looked at"
        time.sleep(0.2)
    assert gate.lets_in(other, other.certificate.name)  # it is the list that refuses, not the listener
    assert gate.lets_in(gate.files.issue(one), one)  # and a new certificate of that name is good


def test_a_certificate_alone_is_refused_while_authenticators_ask_for_a_password(tmp_path: Path) -> None:
    """As recorded: CONNACK 134 until the listener has `enable_authn = false`. The stand-in's, which can be set so."""
    certs = Certs(tmp_path)
    with StandInProcess(users=[("lab", "lab-password")], certs=certs) as emqx:
        endpoint = Endpoint(*emqx.tls[0], tls=certs.context("dev"))
        refused = Probe(endpoint, "dev")
        assert refused.connect().code == 134
        emqx.configure({"listeners": {"ssl:default": {"enable_authn": False}}})
        admitted = Probe(endpoint, "dev")
        assert admitted.connect().code == 0
        assert Probe(Endpoint(*emqx.mqtt[0]), "dev").connect().code == 134
        close_all((refused, admitted))
