"""Sinks, tests, the delivery log and acknowledgements, for the API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.notifications.addresses import (
    AddressError,
    check_host,
    check_mail_address,
    check_secret_use,
    check_url,
    is_this_machine,
    origin_of,
)
from controller.domain.notifications.model import (
    MAX_SINKS,
    Acknowledgement,
    AlertSeverity,
    Delivery,
    DeliveryState,
    HttpTarget,
    MailSecurity,
    MailTarget,
    Message,
    QuietHours,
    Sink,
    SinkKind,
    SinkRule,
    SinkState,
    ThreadStatus,
)
from controller.domain.notifications.retry import Outcome
from controller.domain.notifications.texts import clean
from controller.ports.errors import ControllerError
from controller.ports.notifications import LoggedDelivery, SinkChange
from controller.ports.store import Store
from controller.service.fleet_state import FleetState
from controller.service.notifications.dispatcher import NotificationDispatcher
from controller.service.unit_of_work import UnitOfWork

TEST_KIND: Final = "notification.test"


class SinkError(ControllerError):
    """A sink that is not valid; `str()` says why."""


class UnknownCaseError(ControllerError):
    """No audit line is of this case."""


@dataclass(frozen=True, slots=True)
class NewSink:
    """A sink to be added; exactly one of `http` and `mail`, as its kind needs."""

    name: str
    kind: SinkKind
    http: HttpTarget | None
    mail: MailTarget | None
    rules: tuple[SinkRule, ...]
    quiet: QuietHours | None


class NotificationOperations:
    """What operators do with notifications. `secrets`: names of cordon.toml, and the mail server that each is for."""

    def __init__(
        self, fleet: FleetState, audit: Store, dispatcher: NotificationDispatcher, secrets: Mapping[str, str]
    ) -> None:
        self.dispatcher = dispatcher
        self._fleet = fleet
        self._audit = audit
        self._secrets = secrets

    async def sinks(self) -> Sequence[tuple[Sink, SinkState]]:
        """Every sink by name, with its state."""
        states = await self.dispatcher.store.states()
        return [(sink, states.get(sink.name, SinkState())) for sink in await self.dispatcher.store.sinks()]

    async def add(self, new: NewSink, by: str) -> Sink:
        """Adds a sink; it is told of everything from now on.

        Raises:
            SinkError: it is not valid, its name is taken, or there are `MAX_SINKS` already.
        """
        self._check(new)
        now = self._fleet.clock.now()
        sink = Sink(
            new.name, self._fleet.new_id(), new.kind, by, now, new.http, new.mail, rules=new.rules, quiet=new.quiet
        )
        batch = _record(AuditKind.NOTIFICATION_SINK_ADDED, by, sink, now)
        match await self.dispatcher.store.add_sink(sink, MAX_SINKS, batch.to_writes()):
            case SinkChange.EXISTS:
                raise SinkError(f"there is a sink {new.name} already: remove it first")
            case SinkChange.TOO_MANY:
                raise SinkError(f"there are {MAX_SINKS} sinks already: remove one first")
        self._changed(batch)
        return sink

    async def remove(self, name: str, by: str) -> None:
        """Removes a sink and all that it was still to be sent.

        Raises:
            KeyError: there is none of this name.
        """
        sink = await self._sink(name)
        batch = _record(AuditKind.NOTIFICATION_SINK_REMOVED, by, sink, self._fleet.clock.now())
        if await self.dispatcher.store.remove_sink(name, batch.to_writes()) is not SinkChange.DONE:
            raise KeyError(name)
        self._changed(batch)

    async def test(self, name: str, by: str) -> Outcome:
        """Sends a test message at once, whatever rules and quiet hours say, and records it in the delivery log.

        Raises:
            KeyError: there is no sink of this name.
        """
        sink = await self._sink(name)
        now = self._fleet.clock.now()
        headline = f"Cordon: This is a test of the sink {clean(name)}."
        message = Message(
            TEST_KIND,
            AlertSeverity.INFO,
            ThreadStatus.EVENT,
            headline,
            f"test:{name}",
            headline,
            now,
            "",
            actor=clean(by),
        )
        delivery = Delivery(f"test-{self._fleet.new_id()}", name, now, message, attempts=1)
        outcome = await self.dispatcher.sender.send(sink, delivery, 0)
        state = DeliveryState.DELIVERED if outcome.fault is None else DeliveryState.GIVEN_UP
        logged = Delivery(delivery.key, name, now, message, 1, outcome.trouble)
        await self.dispatcher.store.record_test(logged, state, self._fleet.clock.now())
        return outcome

    async def log(
        self, sink: str | None, case_id: str | None, limit: int, after: int
    ) -> tuple[Sequence[LoggedDelivery], int | None]:
        """Returns a page of deliveries, newest first, and the `after` of the next page."""
        items = await self.dispatcher.store.log(sink=sink, case_id=case_id, limit=limit, after=after)
        return items, items[-1].seq if len(items) == limit else None

    async def acknowledge(self, case_id: str, by: str, reason: str) -> Acknowledgement:
        """Records that somebody looks after a case: it is not repeated any more. The first one stays.

        Raises:
            UnknownCaseError: there is no such case.
        """
        lines = await self._audit.audit(case_id=case_id, limit=1)
        if not lines:
            raise UnknownCaseError(f"the audit knows no case {clean(case_id)}")
        now = self._fleet.clock.now()
        one = Acknowledgement(case_id, by, now, reason)
        detail: dict[str, object] = {"reason": reason} if reason else {}
        entry = AuditEntry(AuditKind.NOTIFICATION_ACKNOWLEDGED, lines[0].entry.device_id, by, case_id, detail)
        batch = UnitOfWork(audit=[(now, entry)])
        await self.dispatcher.store.acknowledge(one, batch.to_writes())
        self._fleet.publish_committed(batch)
        return one

    async def _sink(self, name: str) -> Sink:
        found = next((sink for sink in await self.dispatcher.store.sinks() if sink.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def _changed(self, batch: UnitOfWork) -> None:
        self._fleet.publish_committed(batch)
        self.dispatcher.sinks_changed()

    def _check(self, new: NewSink) -> None:
        try:
            used = _check_http(new) if new.mail is None else _check_mail(new, new.mail)
            for name in filter(None, used):
                if name not in self._secrets:
                    raise SinkError(f"there is no {name} in [notifications.secrets] of cordon.toml")
                check_secret_use(name, self._secrets[name], "" if new.mail is None else new.mail.server)
        except AddressError as e:
            raise SinkError(str(e)) from e
        if new.quiet is not None:
            _check_zone(new.quiet)


def _check_http(new: NewSink) -> tuple[str, ...]:
    """Returns the names of the secrets that are used."""
    http = new.http
    if new.kind is SinkKind.SMTP or http is None:
        raise SinkError("a sink smtp has a mail server, every other one a URL")
    if bool(http.url) == bool(http.url_secret):
        raise SinkError("give one of the URL and the name of the secret that holds it")
    if http.url:
        check_url(http.url)
    if bool(http.secret) != (new.kind is SinkKind.WEBHOOK):
        raise SinkError("a webhook needs a secret that signs, and chats have none: their URL is the secret")
    return http.url_secret, http.secret


def _check_mail(new: NewSink, mail: MailTarget) -> tuple[str, ...]:
    if new.kind is not SinkKind.SMTP or new.http is not None:
        raise SinkError("a sink smtp has a mail server, every other one a URL")
    check_host(mail.host)
    for address in (mail.sender, *mail.recipients):
        check_mail_address(address)
    if mail.security is MailSecurity.NONE and not is_this_machine(mail.host):
        raise SinkError("mail without TLS is for a server on this machine only")
    if bool(mail.username) != bool(mail.secret):
        raise SinkError("a username and the secret with its password belong together")
    return (mail.secret,)


def _check_zone(quiet: QuietHours) -> None:
    if quiet.begin == quiet.end:
        raise SinkError("quiet hours begin and end at different times")
    try:
        ZoneInfo(quiet.zone)
    except (ValueError, OSError) as e:  # also `ZoneInfoNotFoundError`, a `KeyError`
        raise SinkError(f"there is no time zone {clean(quiet.zone)}: write it as Europe/Vienna") from e
    except KeyError as e:
        raise SinkError(f"there is no time zone {clean(quiet.zone)}: write it as Europe/Vienna") from e


def target_text(sink: Sink) -> str:
    """Where a sink is, without path, query or name of a user: these may be secrets."""
    if sink.mail is not None:
        return f"{sink.mail.server} to {', '.join(sink.mail.recipients)}"
    http = sink.http
    if http is None:
        return ""
    return origin_of(http.url) if http.url else f"secret {http.url_secret}"


def _record(kind: AuditKind, by: str, sink: Sink, now: float) -> UnitOfWork:
    detail: dict[str, object] = {"sink": sink.name, "sink_kind": sink.kind.value, "target": target_text(sink)}
    return UnitOfWork(audit=[(now, AuditEntry(kind, "", by, "", detail, alert=True))])
