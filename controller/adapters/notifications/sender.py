"""Chooses how a message is sent, and has the secrets read that it needs."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from controller.adapters.files import read_line
from controller.adapters.notifications.http import HttpSender, target_of
from controller.adapters.notifications.smtp import SmtpSender
from controller.domain.notifications.addresses import AddressError, check_secret_use
from controller.domain.notifications.model import Delivery, Sink, SinkKind
from controller.domain.notifications.retry import Fault, Outcome
from controller.domain.notifications.texts import clean
from controller.ports.errors import SettingsError
from controller.ports.notifications import Sender
from schemas.secret_sources import SecretSource

_THREADS: Final = 2
SECRET_SECONDS: Final = 60.0  # that a secret is kept: a password manager may take a second, and be asked often


class NotificationSecrets:
    """The configured secrets, by name."""

    def __init__(self, sources: Mapping[str, SecretSource], mail_servers: Mapping[str, str]) -> None:
        self._sources = dict(sources)
        self._mail_servers = dict(mail_servers)
        # Of its own: a password manager that hangs must not hold the threads that others need.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="notify-secret")
        self._reading = {name: asyncio.Lock() for name in self._sources}
        self._known: dict[str, tuple[float, str]] = {}

    async def get(self, name: str, server: str = "") -> str:
        """Returns the first line of a secret; empty for no name. `server`: the mail server that gets it.

        Raises:
            SettingsError: there is none of this name, it cannot be read, or it is not for this server.
        """
        if not name:
            return ""
        if name not in self._sources:
            raise SettingsError(f"there is no {name} in [notifications.secrets] of cordon.toml")
        try:
            check_secret_use(name, self._mail_servers.get(name, ""), server)
        except AddressError as e:
            raise SettingsError(str(e)) from e
        async with self._reading[name]:
            at, value = self._known.get(name, (-SECRET_SECONDS, ""))
            if time.monotonic() - at >= SECRET_SECONDS:
                read = partial(read_line, self._sources[name], f"notifications.secrets.{name}")
                value = await asyncio.get_running_loop().run_in_executor(self._threads, read)
                self._known[name] = time.monotonic(), value
            return value

    def close(self) -> None:
        """Ends the threads as their programs end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def forget(self, name: str) -> None:
        """Has a secret read again: it may have been replaced."""
        self._known.pop(name, None)


class NotificationSender(Sender):
    """`controller.ports.notifications.Sender` over HTTP and SMTP."""

    def __init__(self, secrets: NotificationSecrets, now: Callable[[], float]) -> None:
        self.secrets = secrets
        self._http = HttpSender(now)
        self._smtp = SmtpSender()

    def close(self) -> None:
        """Ends what waits for mail servers and password managers."""
        self.secrets.close()
        self._smtp.close()

    async def send(self, sink: Sink, delivery: Delivery, missed: int) -> Outcome:
        try:
            outcome = await self._send(sink, delivery, missed)
        except SettingsError as e:
            outcome = Outcome(Fault.SINK, str(e))
        except Exception as e:  # noqa: BLE001 - whatever a receiver does, the others are told
            outcome = Outcome(Fault.SINK, type(e).__name__)
        if outcome.fault is None:
            return outcome
        for name in _secrets_of(sink):
            self.secrets.forget(name)
        return Outcome(outcome.fault, clean(outcome.trouble), outcome.retry_after)

    async def _send(self, sink: Sink, delivery: Delivery, missed: int) -> Outcome:
        if sink.kind is SinkKind.SMTP:
            password = "" if sink.mail is None else await self.secrets.get(sink.mail.secret, sink.mail.server)
            return await self._smtp.send(sink, delivery, missed, password)
        target = target_of(sink)
        url = target.url or await self.secrets.get(target.url_secret)
        return await self._http.send(sink, delivery, missed, url, await self.secrets.get(target.secret))


def _secrets_of(sink: Sink) -> tuple[str, ...]:
    given = (sink.http.url_secret, sink.http.secret) if sink.http is not None else ()
    return tuple(name for name in (*given, "" if sink.mail is None else sink.mail.secret) if name)
