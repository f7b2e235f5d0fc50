"""A real mail server (aiosmtpd) that keeps what it was sent."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Final

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

USER: Final = "cordon"
PASSWORD: Final = "a mail password"


@dataclass(slots=True)
class MailServer:
    """`mails`: what was taken, parsed. `logins`: whether each log-in was right. `data_status`: the answer to a mail."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    logins: list[bool] = field(default_factory=list)
    data_status: str = "250 taken"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.data_status.startswith("250"):
            found = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(found, EmailMessage)
            self.mails.append(found)
            self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        return self.data_status

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        self.logins.append(is_right)
        return AuthResult(success=is_right, handled=False)


@contextlib.asynccontextmanager
async def mail_server(tls: ssl.SSLContext | None = None, *, starttls: bool = True) -> AsyncIterator[MailServer]:
    """Runs a server on a free port; with `tls` it demands a log-in, and STARTTLS unless it speaks TLS at once."""
    kept = MailServer()
    options: dict[str, Any] = {}
    if tls is not None:
        options = {"authenticator": kept.authenticate, "auth_required": starttls, "auth_require_tls": starttls}
        options |= {"tls_context": tls, "require_starttls": True} if starttls else {}
    connections: list[SMTP] = []

    def connection() -> SMTP:
        connections.append(SMTP(kept, hostname="mail.example.org", **options))
        return connections[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=None if starttls else tls)
    kept.port = server.sockets[0].getsockname()[1]
    async with server:
        yield kept
        for one in connections:
            if isinstance(one.transport, asyncio.WriteTransport):
                one.transport.abort()
        await asyncio.sleep(0)  # in which the transports close their sockets
