"""Mails messages over SMTP: verified TLS, a bound on what the server says, and an end for every attempt."""

import asyncio
import contextlib
import hashlib
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.policy import SMTP as MAIL_POLICY
from email.utils import formatdate
from functools import cached_property
from typing import Any, Final

from controller.domain.notifications.model import AlertSeverity, Delivery, MailSecurity, MailTarget, Sink
from controller.domain.notifications.retry import DELIVERED, Fault, Outcome
from controller.domain.notifications.templates import plain_text

SECONDS: Final = 20.0  # of a whole attempt
STEP_SECONDS: Final = 10.0  # without a byte
MAX_ANSWERS: Final = 64 * 1024  # bytes that a server may say in one attempt
_THREADS: Final = 4
_READY: Final = 220
_PERMANENT: Final = 500  # status from which a repetition does not help


class SmtpSender:
    """Mails messages, each over a connection of its own in a thread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="notify-smtp")

    def close(self) -> None:
        """Ends the threads as their attempts end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def send(self, sink: Sink, delivery: Delivery, missed: int, password: str) -> Outcome:
        """Mails a message to all recipients of the sink."""
        target = sink.mail
        assert target is not None  # of its kind
        session = MailSession(target, None if target.security is MailSecurity.NONE else self._context)
        mail = mail_of(sink, delivery, missed)
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, _deliver, session, target, password, mail
                )
        except TimeoutError:
            return Outcome(Fault.SINK, f"the mail server took longer than {SECONDS:.0f} s")
        finally:
            session.abort()


class MailSession(smtplib.SMTP):
    """An SMTP connection that can be ended from another thread, at any step."""

    def __init__(self, target: MailTarget, context: ssl.SSLContext | None) -> None:
        self._target = target
        self._tls = context
        self._ended = False
        self._handle: socket.socket | None = None
        # The name of the sender's domain: finding this machine's would ask DNS, without a limit.
        super().__init__(local_hostname=target.sender.rpartition("@")[2], timeout=STEP_SECONDS)

    def abort(self) -> None:
        """Ends the connection; what waits for it fails."""
        self._ended = True
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
            handle.close()

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        plain = socket.create_connection((host, port), timeout)
        # A second handle on the connection: TLS takes the first one away.
        self._handle = plain.dup()
        if self._ended:
            plain.close()
            raise OSError("this attempt is over")
        if self._target.security is MailSecurity.TLS and self._tls is not None:
            try:
                return self._tls.wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise
        return plain

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _BoundedReader(self.sock.makefile("rb"))
        return super().getreply()

    def open(self, password: str) -> None:
        """Connects, encrypts and logs in.

        Raises:
            OSError, smtplib.SMTPException: that failed; nothing was sent in clear text that is not meant to be.
        """
        self._host = self._target.host  # the name that TLS verifies
        code, _ = self.connect(self._target.host, self._target.port)
        if code != _READY:
            raise smtplib.SMTPConnectError(code, b"")
        if self._target.security is MailSecurity.STARTTLS:
            self.starttls(context=self._tls)
        if self._target.username:
            self.login(self._target.username, password)


class _BoundedReader:
    """What a server says, up to `MAX_ANSWERS` bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = MAX_ANSWERS

    def readline(self, size: int) -> bytes:
        line: bytes = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise OSError("the mail server says too much")
        return line

    def close(self) -> None:
        self._file.close()


def _deliver(session: MailSession, target: MailTarget, password: str, mail: bytes) -> Outcome:
    try:
        session.open(password)
        session.sendmail(target.sender, list(target.recipients), mail)
    except smtplib.SMTPDataError as e:
        fault = Fault.MESSAGE if e.smtp_code >= _PERMANENT else Fault.SINK
        return Outcome(fault, f"the mail server refused the message with status {e.smtp_code}")
    except smtplib.SMTPRecipientsRefused as e:
        codes = ", ".join(sorted({str(code) for code, _ in e.recipients.values()}))
        return Outcome(Fault.SINK, f"the mail server refused every recipient with status {codes}")
    except smtplib.SMTPResponseException as e:
        return Outcome(Fault.SINK, f"{type(e).__name__}, status {e.smtp_code}")
    except smtplib.SMTPNotSupportedError as e:
        return Outcome(Fault.SINK, str(e))
    except ssl.SSLCertVerificationError as e:
        return Outcome(Fault.SINK, f"its certificate is not trusted: {e.verify_message}")
    except (smtplib.SMTPException, OSError, ValueError) as e:
        text = e.strerror if isinstance(e, OSError) and e.strerror else type(e).__name__
        return Outcome(Fault.SINK, text)
    else:
        with contextlib.suppress(smtplib.SMTPException, OSError):  # it was taken
            session.quit()
        return DELIVERED
    finally:
        session.close()


def mail_of(sink: Sink, delivery: Delivery, missed: int) -> bytes:
    """Returns the mail. All mails of a thread refer to one id and have one subject, so that they are shown together.

    The id of a mail is the idempotency key: a mail that is sent twice has the same one.
    """
    target, message = sink.mail, delivery.message
    assert target is not None  # of its kind
    domain = target.sender.rpartition("@")[2]
    root = hashlib.sha256(f"{sink.sink_id}\n{message.thread}".encode()).hexdigest()[:32]
    mail = EmailMessage(policy=MAIL_POLICY)
    is_first = message.headline == message.subject and not message.is_reminder
    # `email` decodes encoded words of a text that it is given: line breaks in them would become further headers.
    subject = message.subject.replace("=?", "= ?")
    mail["Subject"] = f"{'' if is_first else 'Re: '}[Cordon] {subject}"
    mail["From"] = target.sender
    mail["To"] = ", ".join(target.recipients)
    mail["Date"] = formatdate(message.at)
    mail["Message-ID"] = f"<{delivery.key}@{domain}>"
    mail["In-Reply-To"] = mail["References"] = f"<{root}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Cordon-Kind"] = message.kind
    mail["X-Cordon-Severity"] = message.severity.word
    mail["X-Cordon-Status"] = message.status.value
    mail["X-Cordon-Idempotency-Key"] = delivery.key
    if message.severity is AlertSeverity.CRITICAL:
        mail["Importance"] = "high"
    mail.set_content(plain_text(message, missed))
    return mail.as_bytes()
