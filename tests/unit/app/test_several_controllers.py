"""With a store on PostgreSQL a controller is one of several: its client id, its subscription, its keys."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from controller.adapters.sealing import KEY_SUFFIX, open_sealer
from controller.app.adapters import PEER_KEEPALIVE, mqtt_options
from controller.app.controllers import key_fingerprints
from controller.service.broker.versions import BrokerVersionWatch
from controller.service.settings.settings import Settings
from schemas.signing import key_id
from schemas.topics import ALL_UP, PRESENCE, SHARED_UP
from tests.support.controller_harness import SETTINGS
from tests.support.memory_broker import MemoryInspector

SHARED = {"store": {"url": "postgresql://cordon@/cordon", "folder": "/nowhere"}, "controller": {"name": "b"}}


def settings(**more: Any) -> Settings:
    return Settings.model_validate({**SETTINGS, **more})


def test_one_controller_keeps_its_session_and_its_client_id() -> None:
    options = mqtt_options(settings(controller={"name": "b"}))
    assert options.client_id == "cordon-controller"
    assert options.subscriptions == (ALL_UP, PRESENCE)
    assert options.session_expiry_seconds == 7200


def test_one_of_several_shares_the_messages_and_leaves_no_session() -> None:
    options = mqtt_options(settings(**SHARED))
    assert options.client_id == "cordon-controller-b"
    assert options.subscriptions == (SHARED_UP, PRESENCE) == ("$share/cordon/cordon/v1/+/up/+", PRESENCE)
    assert options.session_expiry_seconds == 0
    assert options.keepalive_seconds == PEER_KEEPALIVE


def test_a_client_id_that_the_name_makes_too_long_is_refused() -> None:
    mqtt = {**SETTINGS["mqtt"], "client_id": "c" * 40}
    with pytest.raises(ValidationError, match="64 are too few"):
        settings(**{**SHARED, "controller": {"name": "n" * 24}, "mqtt": mqtt})


def test_fingerprints_tell_keys_apart_and_show_none(tmp_path: Path) -> None:
    def host(name: str) -> tuple[dict[str, str], Ed25519PrivateKey]:
        folder, key = tmp_path / name, Ed25519PrivateKey.generate()
        folder.mkdir()
        path = folder / "command.key"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        open_sealer(folder / f"cordon{KEY_SUFFIX}")
        store = {**SHARED["store"], "folder": str(folder)}
        return key_fingerprints(settings(store=store, commands={"signing_key": str(path)})), key

    (first, key), (second, _) = host("a"), host("b")
    assert first["commands"] == key_id(key.public_key())
    assert first.keys() == second.keys() == {"commands", "second factors"}
    assert not set(first.values()) & set(second.values())
    sealing = (tmp_path / "a" / f"cordon{KEY_SUFFIX}").read_text()
    assert first["second factors"] not in sealing


async def test_an_old_broker_is_warned_of_once() -> None:
    inspector, logged = MemoryInspector(), list[str]()
    watch = BrokerVersionWatch(inspector, lambda event, _: logged.append(event))
    await watch.look()
    assert watch.warning == "", "nothing is known yet"
    inspector.answers["nodes"] = [{"version": "5.8.9"}, {"version": "5.8.6"}]
    await watch.look()
    await watch.look()
    text = "EMQX 5.8.6 may lose routes of several controllers: upgrade to 5.8.9"
    assert logged == ["the versions of EMQX's nodes are not known now", text]
    inspector.answers["nodes"] = [{"version": "5.8.9"}, {"version": "6.3.0-beta.2"}]
    await watch.look()
    assert watch.warning == ""
