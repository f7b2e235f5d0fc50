"""Servers use a changed certificate for their next connections, without a restart."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from cryptography import x509

from controller.adapters.http_server.admission import ConnectionLimits
from controller.adapters.http_server.certificate_reload import CertificateReloader
from controller.adapters.http_server.server import BoundedServer
from controller.domain.identity.certificates import CertificateKind
from tests.support.controller_harness import START
from tests.support.identity import Files


async def _app(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("nothing is requested")


@contextlib.asynccontextmanager
async def serving(chain: Path, key: Path) -> AsyncIterator[tuple[uvicorn.Config, int]]:
    config = uvicorn.Config(_app, log_config=None, lifespan="off", ssl_certfile=str(chain), ssl_keyfile=str(key))
    server, listener = (
        BoundedServer(config, ConnectionLimits(10, 10, ()), "test"),
        socket.create_server(("127.0.0.1", 0)),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        try:
            yield config, listener.getsockname()[1]
        finally:
            server.should_exit = True


async def shown(port: int) -> int:
    """The serial number of the certificate that the server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return x509.load_der_x509_certificate(der).serial_number


async def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(tmp_path: Path) -> None:
    files = Files(tmp_path, START)
    first, second = (files.issue("localhost", CertificateKind.SERVER, ["localhost"]) for _ in range(2))
    logged: list[str] = []
    async with serving(first.chain, first.key) as (config, port):
        reloader = CertificateReloader([config], lambda event, _fields: logged.append(event))
        assert await shown(port) == int(first.certificate.serial, 16)
        reloader.run_once()
        chain, key = first.chain.read_bytes(), first.key.read_bytes()
        first.chain.write_bytes(second.chain.read_bytes())
        reloader.run_once()
        assert await shown(port) == int(first.certificate.serial, 16), "the pair does not match"
        first.key.write_bytes(second.key.read_bytes())
        reloader.run_once()
        assert await shown(port) == int(second.certificate.serial, 16)
        reloader.run_once()
        first.chain.unlink()
        reloader.run_once()
        reloader.run_once()
        assert await shown(port) == int(second.certificate.serial, 16)
        first.chain.write_bytes(chain)
        first.key.write_bytes(key)
        reloader.run_once()
        assert await shown(port) == int(first.certificate.serial, 16)
    assert logged == [
        "certificate not reloaded", "certificate reloaded", "certificate not reloaded", "certificate reloaded"
    ]  # fmt: skip
