"""Each place that gives certificates or keys to a parser: from outside by `schemas.pem`, or with a reason beside it."""

import re
from typing import Final

from tests.support.project_tree import PRODUCT, name_of, python_files

_PARSERS: Final = re.compile(
    r"load_verify_locations|cadata=|cafile=|PEM_cert_to_DER_cert|load_pem_\w+|load_der_\w+|create_default_context"
)
_OWN_TRUST: Final = "whom to trust: the operator's file or the system's store, as a whole; nothing was checked before"
_OWN_KEY: Final = "this program's own private key"
_COLLECTED: Final = "facts of a report; nothing is trusted because of them"
_PLACES: Final = {
    "schemas/pem.py": "the readers of what comes from outside",
    "schemas/report_signing.py": "DER of one key, which the readers of certificates and the store hand over",
    "controller/adapters/keys.py": _OWN_KEY,
    "controller/adapters/tuf_repository/keys.py": _OWN_KEY,
    "controller/adapters/x509/folder.py": _OWN_KEY,
    "controller/cli/keys/operator_keys.py": _OWN_KEY,
    "device_agent/reporting/signer.py": _OWN_KEY,
    "controller/adapters/mqtt/buffered_socket.py": _OWN_TRUST,
    "controller/adapters/notifications/http.py": _OWN_TRUST,
    "controller/adapters/notifications/smtp.py": _OWN_TRUST,
    "controller/api/client.py": _OWN_TRUST,
    "controller/app/adapters.py": _OWN_TRUST,
    "controller/app/peers.py": _OWN_TRUST,
    "controller/app/sso.py": _OWN_TRUST,
    "device_agent/collectors/crypto/fetch.py": _OWN_TRUST,
    "device_agent/mqtt_client.py": _OWN_TRUST,
    "device_agent/simulator/connection.py": _OWN_TRUST,
    "device_agent/simulator/fleet.py": _OWN_TRUST,
    "device_agent/updates/factory.py": _OWN_TRUST,
    "controller/demo/broker.py": _OWN_TRUST,
    "controller/standin/server.py": _OWN_TRUST,
    "controller/adapters/probes.py": "DER as the peer showed it, for the audit of the broker",
    "device_agent/identity/enrol.py": "DER of the one root that was parsed and compared with the fingerprint",
    "controller/adapters/x509/own_certificates.py": "this controller's own certificate files, as OpenSSL takes them",
    "device_agent/identity/keypair.py": "this device's own key and certificate files",
    "device_agent/collectors/crypto/certificate_chain.py": _COLLECTED,
    "device_agent/collectors/crypto/ocsp.py": _COLLECTED,
    "device_agent/collectors/crypto/revocation.py": _COLLECTED,
}


def test_certificates_are_parsed_where_a_reason_is_given() -> None:
    found = {name_of(path) for path in python_files(*PRODUCT) if _PARSERS.search(path.read_text())}
    assert found == _PLACES.keys(), "read what comes from outside with schemas.pem, or give a reason here"
