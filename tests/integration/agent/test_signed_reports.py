"""An agent that signs its reports with the key of its certificate, over TLS to a real broker."""

from pathlib import Path
from typing import Any

from cryptography import x509

from schemas.posture import REPORT, FullReport
from schemas.report_signing import (
    ENVELOPE_START,
    UnverifiedReport,
    is_signed_by,
    load_public_key,
    parse_signed_report,
    public_key_der,
    report_key_id,
)
from tests.support.agent_process import DEVICE, AgentProcess, FakeController, write_config
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_for


class EnvelopeController(FakeController):
    """A controller that opens signed envelopes."""

    sealed: list[UnverifiedReport]
    plain = 0

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        if message.topic.endswith("/posture"):
            if message.payload.startswith(ENVELOPE_START):
                self.sealed.append(parse_signed_report(message.payload))
                message.payload = self.sealed[-1].payload
            else:
                self.plain += 1
        super()._on_message(client, data, message)


def test_every_report_is_signed_with_the_key_of_the_certificate(tmp_path: Path) -> None:
    certs = Certs(tmp_path / "certs")
    with Mosquitto(tls=certs) as broker:
        ears = EnvelopeController(broker.host, broker.port)
        ears.sealed = []
        with ears:
            servers = [f"mqtts://127.0.0.1:{broker.tls_port}"]
            config = write_config(tmp_path, servers, certs=certs, report="sign_reports = true")
            with AgentProcess(config):
                wait_for(ears.heartbeats, "a heartbeat")
            certificate, _ = certs.client(DEVICE)
            key = load_public_key(public_key_der(x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()))  # type: ignore[arg-type]  # of a kind that signs
            assert ears.plain == 0
            assert all(is_signed_by(one, key) and one.keyid == report_key_id(key) for one in ears.sealed)
            report = REPORT.validate_json(ears.sealed[0].payload)
            assert isinstance(report, FullReport)
            assert report.signing_key
            assert report.answers == ""
