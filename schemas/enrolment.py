"""Enrolment of a device over HTTPS, and renewal of its certificate over MQTT."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from schemas.base import DeviceId, Keyword, StrictWireModel, Text, Timestamp, WireModel

MAX_CSR: Final = 8 * 1024  # characters of a certificate request in PEM
MAX_CERTIFICATE: Final = 16 * 1024  # characters of a certificate, or of a chain, in PEM
MAX_SIGNATURE: Final = 1024  # characters of a signature in base64
MAX_UPDATES_ROOT: Final = 64 * 1024  # characters of TUF root metadata
MAX_ENROL_TOKEN: Final = 256  # characters

_PEM: Final = r"^-----BEGIN [A-Z0-9 ]{3,40}-----[A-Za-z0-9+/=\r\n -]+-----END [A-Z0-9 ]{3,40}-----\s*$"
RequestText = Annotated[str, StringConstraints(max_length=MAX_CSR, pattern=_PEM)]
CertificateText = Annotated[str, StringConstraints(max_length=MAX_CERTIFICATE, pattern=_PEM)]
ChainText = Annotated[str, StringConstraints(max_length=MAX_CERTIFICATE)]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class EnrolRequest(StrictWireModel):
    """The request of a new device: enrolment token, requested id, and a CSR signed by the device's key."""

    v: Literal[1] = 1
    token: Annotated[str, StringConstraints(min_length=1, max_length=MAX_ENROL_TOKEN, pattern=r"^[\x21-\x7e]+$")]
    device_id: DeviceId
    csr: RequestText


class EnrolResponse(WireModel):
    """The device's certificate and configuration; `trust` is the root certificate that verifies brokers.

    `updates_url` and `updates_root` are the URL and the initial TUF root metadata of signed updates; both are empty
    without updates.
    """

    v: Literal[1] = 1
    certificate: CertificateText
    chain: ChainText = ""
    trust: CertificateText
    controller_keys: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=128)], ...], Field(max_length=16, fail_fast=True)
    ]
    servers: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=300)], ...], Field(max_length=16, fail_fast=True)
    ] = ()
    not_after: Timestamp
    renew_at: Timestamp
    updates_url: Annotated[str, StringConstraints(max_length=300)] = ""
    updates_root: Annotated[str, StringConstraints(max_length=MAX_UPDATES_ROOT)] = ""


class RenewRequest(StrictWireModel):
    """`up/renew`: a CSR for a new key; `proof` is the current key's signature over `renewal_bytes`, in base64.

    `serial` is that of the current certificate, in hex.
    """

    v: Literal[1] = 1
    device_id: DeviceId
    serial: Annotated[str, StringConstraints(pattern=r"^[1-9a-f][0-9a-f]{0,39}$")]
    csr: RequestText
    proof: Annotated[str, StringConstraints(max_length=MAX_SIGNATURE, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]


class RenewResponse(StrictWireModel):
    """`down/certificate`: the answer to the CSR with the SHA-256 `request`: a certificate, or why it was refused."""

    v: Literal[1] = 1
    request: Fingerprint
    certificate: CertificateText | None = None
    chain: ChainText = ""
    refused: Keyword | None = None
    detail: Text | None = None


def renewal_bytes(device_id: str, serial: str, csr: str) -> bytes:
    """Returns the text that the current key signs; its prefix separates it from all other signatures of the key."""
    return b"cordon renewal v1\n" + f"{device_id}\n{serial}\n{csr}".encode()
