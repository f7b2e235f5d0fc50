"""Mail over a real server: encrypted, in one thread for each case, and no way into its headers."""

import asyncio
import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.notifications import smtp
from controller.adapters.notifications.sender import NotificationSecrets, NotificationSender
from controller.adapters.notifications.smtp import SmtpSender
from controller.domain.notifications.model import MailSecurity, MailTarget, Sink, SinkKind
from controller.domain.notifications.retry import Fault, Outcome
from tests.support.certs import Certs
from tests.support.http_receiver import tcp_server, tls_listener
from tests.support.mail_server import PASSWORD, USER, mail_server
from tests.support.notifications import delivery, sink


def _sink(port: int, security: MailSecurity = MailSecurity.NONE, **changes: Any) -> Sink:
    target = MailTarget("127.0.0.1", port, "cordon@example.org", ("ops@example.org", "b@example.org"), security)
    return sink(kind=SinkKind.SMTP, http=None, mail=replace(target, **changes))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server whose authority is among those of the system."""
    certs = Certs(tmp_path / "certs")
    monkeypatch.setenv("SSL_CERT_FILE", str(certs.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    return context


async def test_the_mails_of_a_case_are_one_thread_and_a_second_copy_has_the_same_id() -> None:
    sender = SmtpSender()
    async with mail_server() as server:
        one = _sink(server.port)
        for sent in (delivery(), delivery(), delivery(key="n" * 32, headline="pump-7: It is proven.")):
            assert await sender.send(one, sent, 2, "") == Outcome()
        first, again, later = server.mails
        assert first["Message-ID"] == again["Message-ID"] == f"<{'k' * 32}@example.org>"
        assert later["Message-ID"] != first["Message-ID"]
        assert first["References"] == later["References"] == later["In-Reply-To"]
        assert (first["Subject"], later["Subject"]) == (
            "[Cordon] pump-7: A containment was decided.",
            "Re: [Cordon] pump-7: A containment was decided.",
        )
        assert server.envelopes[0] == ("cordon@example.org", ["ops@example.org", "b@example.org"])
        assert "pump-7: It is proven." in later.get_content()
        assert "2 earlier notifications were dropped" in later.get_content()
    sender.close()


@pytest.mark.parametrize("security", [MailSecurity.STARTTLS, MailSecurity.TLS])
async def test_the_password_goes_over_verified_tls_only(
    context: ssl.SSLContext, security: MailSecurity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mail_server(context, starttls=security is MailSecurity.STARTTLS) as server:
        one = _sink(server.port, security, username=USER, secret="key")
        taken = await SmtpSender().send(one, delivery(), 0, PASSWORD)
        assert taken == Outcome(), taken.trouble
        wrong = await SmtpSender().send(one, delivery(), 0, "wrong password")
        assert (wrong.fault, server.logins[:2]) == (Fault.SINK, [True, False])
        assert "password" not in wrong.trouble
        assert len(server.mails) == 1
    monkeypatch.delenv("SSL_CERT_FILE")
    with tls_listener(context) as (port, heard):
        unverified = await SmtpSender().send(_sink(port, MailSecurity.TLS), delivery(), 0, PASSWORD)
        assert ("certificate is not trusted" in unverified.trouble, heard) == (True, [])


async def test_a_server_without_starttls_gets_nothing() -> None:
    async with mail_server() as server:
        outcome = await SmtpSender().send(_sink(server.port, MailSecurity.STARTTLS), delivery(), 0, "")
        assert (outcome.fault, server.mails) == (Fault.SINK, [])


async def test_a_refused_mail_lets_the_others_pass() -> None:
    async with mail_server() as server:
        server.data_status = "554 no"
        assert (await SmtpSender().send(_sink(server.port), delivery(), 0, "")).fault is Fault.MESSAGE
        server.data_status = "451 later"
        assert (await SmtpSender().send(_sink(server.port), delivery(), 0, "")).fault is Fault.SINK


async def test_a_server_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "SECONDS", 0.5)

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"220-" + b"x" * 1000 + b"\r\n")
            await writer.drain()

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def dripping(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"2")
            await writer.drain()
            await asyncio.sleep(0.02)

    sender = SmtpSender()
    for answer in (endless, silent, dripping):
        async with tcp_server(answer) as port:
            for security in MailSecurity:
                assert (await sender.send(_sink(port, security), delivery(), 0, "")).fault is Fault.SINK
    sender.close()


@pytest.mark.parametrize(("of", "got"), [("127.0.0.1:{}", True), ("127.0.0.2:{}", False), ("127.0.0.1:1", False)])
async def test_a_server_gets_only_its_own_password(tmp_path: Path, context: ssl.SSLContext, of: str, got: bool) -> None:
    (tmp_path / "key").write_text(PASSWORD)
    (tmp_path / "key").chmod(0o600)
    async with mail_server(context) as server:
        secrets = NotificationSecrets({"key": tmp_path / "key"}, {"key": of.format(server.port)})
        sender = NotificationSender(secrets, time.time)
        one = _sink(server.port, MailSecurity.STARTTLS, username=USER, secret="key")
        outcome = await sender.send(one, delivery(), 0)
    assert server.logins == ([True] if got else [])
    assert ("[notifications.mail_servers]" in outcome.trouble) is not got
    sender.close()
