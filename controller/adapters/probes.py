"""Probes of ports: whether a TCP connection is accepted, and what a TLS handshake shows of a listener."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

SECONDS: Final = 5.0  # for one handshake


@dataclass(frozen=True, slots=True)
class TlsHandshake:
    """The result; `trouble`: why the handshake failed. `ends_at` in Unix seconds."""

    host: str
    port: int
    ends_at: float | None = None
    subject: str = ""
    protocol: str = ""
    trouble: str = ""


def probe_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """A context that shows the given certificate and verifies nothing: only the peer's certificate is read.

    Nothing is sent over such a connection after the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    return context


async def look(host: str, port: int, context: ssl.SSLContext, seconds: float = SECONDS) -> TlsHandshake:
    """Does one handshake and closes the connection."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except (OSError, TimeoutError) as e:
        return TlsHandshake(host, port, trouble=f"no TLS handshake with {shown} from here: {e or type(e).__name__}")
    try:
        tls = writer.get_extra_info("ssl_object")
        content = tls.getpeercert(binary_form=True)
        if not content:
            return TlsHandshake(host, port, trouble=f"{shown} shows no certificate")
        certificate = x509.load_der_x509_certificate(content)
        ends = certificate.not_valid_after_utc.timestamp()
        return TlsHandshake(host, port, ends, certificate.subject.rfc4514_string(), str(tls.version()))
    except ValueError as e:
        return TlsHandshake(host, port, trouble=f"{shown}: its certificate cannot be read: {e}")
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                await writer.wait_closed()


CONNECT_SECONDS: Final = 2.0  # for one connection; a dropped packet gets no answer
AT_ONCE: Final = 64
MAX_PROBES: Final = 4096


async def reachable(
    targets: Sequence[tuple[str, int]], seconds: float = CONNECT_SECONDS
) -> dict[tuple[str, int], bool]:
    """Returns for each host and port whether a connection was made."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def probe(host: str, port: int) -> bool:
        async with turns:
            try:
                async with asyncio.timeout(seconds):
                    _, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError):
                return False
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return True

    wanted = list(dict.fromkeys(targets))[:MAX_PROBES]
    answers = await asyncio.gather(*(probe(host, port) for host, port in wanted))
    return dict(zip(wanted, answers, strict=True))
