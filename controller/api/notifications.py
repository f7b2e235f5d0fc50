"""Notifications: who is told, what was sent, and who looks after a case."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BeforeValidator, Field, StringConstraints

from controller.api.auth import CallerDep, scope
from controller.api.context import NotificationsDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, OptionalTimestamp, PageLimit, ReasonText, SequenceQuery, UtcTimestamp, View
from controller.domain.audit_kinds import AuditKind
from controller.domain.notifications.addresses import MAX_URL
from controller.domain.notifications.kinds import STORE_TROUBLE
from controller.domain.notifications.model import (
    MAX_RECIPIENTS,
    MAX_RULES,
    SEVERITIES,
    AlertSeverity,
    HttpTarget,
    MailSecurity,
    MailTarget,
    QuietHours,
    Sink,
    SinkKind,
    SinkRule,
    SinkState,
)
from controller.ports.notifications import LoggedDelivery
from controller.service.notifications.operations import NewSink, SinkError, UnknownCaseError, target_text
from controller.service.settings.notifications import SECRET_NAME

SinkName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
SinkPath = Annotated[SinkName, Path(description="name of the sink")]
CasePath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="id of the case")]
SecretName = Annotated[str, StringConstraints(pattern=SECRET_NAME)]
SeverityWord = Literal["info", "warning", "critical"]
SeverityView = Annotated[SeverityWord, BeforeValidator(lambda value: AlertSeverity(value).word)]
KindPattern = Annotated[str, StringConstraints(pattern=r"^[a-z_*]{1,40}(\.[a-z_*]{1,60})?$")]
ClassName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]
DayTime = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_Address = Annotated[str, StringConstraints(min_length=3, max_length=254)]
router = APIRouter(prefix="/notifications", tags=["notifications"], responses=problems(401, 403, 422, 429, 503))


class SinkRuleBody(Body):
    """What a sink is told of; `kinds` are audit kinds or patterns (`containment.*`). What is empty lets all pass."""

    kinds: Annotated[tuple[KindPattern, ...], Field(max_length=64)] = ()
    severity: SeverityWord = "info"
    classes: Annotated[tuple[ClassName, ...], Field(max_length=64)] = ()

    def to_rule(self) -> SinkRule:
        for pattern in self.kinds:
            if "*" not in pattern and pattern not in {STORE_TROUBLE, *(kind.value for kind in AuditKind)}:
                raise ApiError(409, "sink_mistake", f"there is no audit kind {pattern}: docs/audit.md lists them")
        return SinkRule(self.kinds, SEVERITIES[self.severity], self.classes)


class QuietHoursBody(Body):
    """From `begin` to `end` each day in `zone` only critical messages are sent; the others follow at the end."""

    begin: DayTime
    end: DayTime
    zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+/-]{1,64}$")] = "UTC"


class MailServerBody(Body):
    """`secret`: name of the secret with the password of `username`."""

    host: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: MailSecurity = MailSecurity.STARTTLS
    sender: _Address
    recipients: Annotated[tuple[_Address, ...], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    username: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{0,200}$")] = ""
    secret: SecretName | None = None


class NewSinkBody(Body):
    """A sink: `mail` for smtp, else one of `url` and `url_secret`; `secret` signs and is for webhooks.

    Secrets are names of `[notifications.secrets]` in `cordon.toml`.
    """

    name: SinkName
    kind: SinkKind
    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)] | None = None
    url_secret: SecretName | None = None
    secret: SecretName | None = None
    mail: MailServerBody | None = None
    rules: Annotated[tuple[SinkRuleBody, ...], Field(max_length=MAX_RULES)] = ()
    quiet: QuietHoursBody | None = None

    def to_sink(self) -> NewSink:
        is_http = self.url is not None or self.url_secret is not None or self.secret is not None
        http = HttpTarget(self.url or "", self.url_secret or "", self.secret or "") if is_http else None
        mail = None
        if self.mail is not None:
            one = self.mail
            mail = MailTarget(
                one.host, one.port, one.sender, one.recipients, one.security, one.username, one.secret or ""
            )
        quiet = None
        if self.quiet is not None:
            quiet = QuietHours(_minute(self.quiet.begin), _minute(self.quiet.end), self.quiet.zone)
        return NewSink(self.name, self.kind, http, mail, tuple(rule.to_rule() for rule in self.rules), quiet)


class SinkRuleView(View):
    kinds: tuple[str, ...]
    severity: SeverityView
    classes: tuple[str, ...]


class SinkView(View):
    """A sink. `target` is only the server: the rest of a URL may be a secret.

    `pending`: waiting to be sent. `dropped`: never sent, which the next message tells. `failing_since`: null while it
    takes messages.
    """

    name: str
    kind: SinkKind
    target: str
    rules: tuple[SinkRuleView, ...]
    quiet: str
    added_by: str
    added_at: UtcTimestamp
    pending: int
    dropped: int
    failing_since: OptionalTimestamp
    trouble: str


class SinkList(View):
    items: tuple[SinkView, ...]


class TestResult(View):
    """Whether the sink took the test message, and why not."""

    delivered: bool
    trouble: str


class DeliveryView(View):
    """A delivery. `id` is its idempotency key; `acknowledged_by` is empty if nobody acknowledged the case."""

    seq: int
    id: str
    sink: str
    kind: str
    severity: SeverityView
    status: str
    headline: str
    thread: str
    case_id: str
    device_id: str
    requester: str
    audit_id: str
    count: int
    reminder: bool
    state: str
    attempts: int
    trouble: str
    due: UtcTimestamp
    queued_at: UtcTimestamp
    ended_at: OptionalTimestamp
    acknowledged_by: str
    acknowledged_at: OptionalTimestamp


class DeliveryPage(View):
    """Deliveries, newest first; `next`: `after` of the next page, null on the last one."""

    items: tuple[DeliveryView, ...]
    next: int | None


class AcknowledgeBody(Body):
    reason: ReasonText | None = None


class AcknowledgementView(View):
    case_id: str
    by: str
    at: UtcTimestamp
    reason: str


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _sink_view(sink: Sink, state: SinkState) -> SinkView:
    quiet = sink.quiet
    return SinkView.of(
        sink,
        target=target_text(sink),
        quiet="" if quiet is None else f"{_clock(quiet.begin)}-{_clock(quiet.end)} {quiet.zone}",
        pending=state.pending,
        dropped=state.dropped,
        failing_since=state.failing_since,
        trouble=state.trouble,
    )


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _delivery_view(one: LoggedDelivery) -> DeliveryView:
    delivery, done = one.delivery, one.acknowledged
    message = delivery.message
    return DeliveryView.of(
        message,
        seq=one.seq,
        id=delivery.key,
        sink=delivery.sink,
        audit_id=message.line,
        reminder=message.is_reminder,
        state=one.state.value,
        attempts=delivery.attempts,
        trouble=delivery.trouble,
        due=delivery.due,
        queued_at=delivery.queued_at,
        ended_at=one.ended_at,
        acknowledged_by="" if done is None else done.by,
        acknowledged_at=0.0 if done is None else done.at,
    )


@router.get("/sinks", dependencies=[scope("read")])
async def list_sinks(notifications: NotificationsDep) -> SinkList:
    """Lists sinks by name, without secrets."""
    return SinkList(items=tuple(_sink_view(sink, state) for sink, state in await notifications.sinks()))


@router.post(
    "/sinks", status_code=201, dependencies=[scope("admin", step_up=True), Depends(writable)], responses=problems(409)
)
async def add_sink(notifications: NotificationsDep, caller: CallerDep, body: NewSinkBody) -> SinkView:
    """Adds a sink, which is told of what is recorded from now on."""
    try:
        sink = await notifications.add(body.to_sink(), caller)
    except SinkError as e:
        raise ApiError(409, "sink_mistake", str(e)) from e
    return _sink_view(sink, SinkState())


@router.delete(
    "/sinks/{name}",
    status_code=204,
    dependencies=[scope("admin", step_up=True), Depends(writable)],
    responses=problems(404),
)
async def remove_sink(notifications: NotificationsDep, caller: CallerDep, name: SinkPath) -> None:
    """Removes a sink, with all that it was still to be sent."""
    try:
        await notifications.remove(name, caller)
    except KeyError as e:
        raise _unknown_sink(name) from e


@router.post(
    "/sinks/{name}/test", dependencies=[scope("admin", step_up=True), Depends(writable)], responses=problems(404)
)
async def test_sink(notifications: NotificationsDep, caller: CallerDep, name: SinkPath) -> TestResult:
    """Sends a test message at once; takes up to 20 s where the receiver is slow."""
    try:
        outcome = await notifications.test(name, caller)
    except KeyError as e:
        raise _unknown_sink(name) from e
    return TestResult(delivered=outcome.fault is None, trouble=outcome.trouble)


@router.get("/log", dependencies=[scope("read")])
async def list_deliveries(
    notifications: NotificationsDep,
    sink: Annotated[SinkName | None, Query()] = None,
    case_id: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = None,
    limit: PageLimit = 100,
    after: SequenceQuery = 0,
) -> DeliveryPage:
    """Lists deliveries of the last 30 days, newest first, with the acknowledgement of their case."""
    items, following = await notifications.log(sink, case_id, limit, after)
    return DeliveryPage(items=tuple(map(_delivery_view, items)), next=following)


@router.post(
    "/cases/{case_id}/acknowledge", dependencies=[scope("contain"), Depends(writable)], responses=problems(404)
)
async def acknowledge_case(
    notifications: NotificationsDep, caller: CallerDep, case_id: CasePath, body: AcknowledgeBody
) -> AcknowledgementView:
    """Acknowledges a case: its state is told once more when it changes, and not repeated meanwhile."""
    try:
        return AcknowledgementView.of(await notifications.acknowledge(case_id, caller, body.reason or ""))
    except UnknownCaseError as e:
        raise ApiError(404, "case_unknown", str(e)) from e


def _unknown_sink(name: str) -> ApiError:
    return ApiError(404, "sink_unknown", f"there is no sink {name}")
