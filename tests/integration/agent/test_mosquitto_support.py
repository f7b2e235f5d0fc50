"""The broker fixture of other tests."""

import ssl
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto


def _connect(broker: Mosquitto, certs: Certs | None, cn: str) -> str:
    answered = threading.Event()
    words: list[str] = []

    def on_connect(_c: object, _u: object, _f: object, reason: object, _p: object) -> None:
        words.append(str(reason))
        answered.set()

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=cn, protocol=mqtt.MQTTv5)
    client.on_connect = on_connect
    if certs is not None:
        cert, key = certs.client(cn)
        client.tls_set(ca_certs=str(certs.ca), certfile=str(cert), keyfile=str(key))
    client.connect(broker.host, broker.port if certs is None else broker.tls_port)
    client.loop_start()
    assert answered.wait(5)
    client.disconnect()
    client.loop_stop()
    return words[0]


def test_plain_and_tls_listeners_answer(tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    with Mosquitto(tls=certs) as broker:
        assert _connect(broker, None, "plain") == "Success"
        assert _connect(broker, certs, "edge-1") == "Success"
        assert "edge-1" in broker.log


def test_the_tls_listener_requires_a_certificate(tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    with Mosquitto(tls=certs) as broker:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="nobody", protocol=mqtt.MQTTv5)
        client.tls_set(ca_certs=str(certs.ca))
        # In TLS 1.3 the client learns of it only after the handshake, with the first read.
        try:
            client.connect(broker.host, broker.tls_port)
            code = next(rc for rc in iter(client.loop, None) if rc != mqtt.MQTT_ERR_SUCCESS)
        except ssl.SSLError:
            code = mqtt.MQTT_ERR_TLS
        assert code != mqtt.MQTT_ERR_SUCCESS


def test_the_broker_restarts_on_the_same_port() -> None:
    with Mosquitto(persistence=True) as broker:
        port = broker.port
        broker.stop()
        with pytest.raises(ConnectionRefusedError):
            _connect(broker, None, "a")
        broker.start()
        assert broker.port == port
        assert _connect(broker, None, "a") == "Success"
