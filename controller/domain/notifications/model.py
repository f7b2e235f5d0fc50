"""Sinks, rules, messages and deliveries. Times are Unix seconds, durations seconds."""

import fnmatch
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import IntEnum, StrEnum
from typing import Final

MAX_SINKS: Final = 20
MAX_RULES: Final = 16  # of one sink
MAX_RECIPIENTS: Final = 16  # of one mail


class AlertSeverity(IntEnum):
    """How urgent a message is; a higher value is more urgent."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2

    @property
    def word(self) -> str:
        return self.name.lower()


SEVERITIES: Final = {one.word: one for one in AlertSeverity}


class SinkKind(StrEnum):
    """What a message is sent to; all but `smtp` are HTTP requests that differ in their bodies."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    TEAMS = "teams"
    MATTERMOST = "mattermost"
    SMTP = "smtp"


class MailSecurity(StrEnum):
    """How the connection to a mail server is encrypted; `none` is for a server on this machine."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SinkRule:
    """Lets a message through that is of one of `kinds` and `classes`, and at least as urgent as `severity`.

    `kinds` are audit kinds, or patterns with `*` (`containment.*`); `classes` are device classes. Empty: any.
    """

    kinds: tuple[str, ...] = ()
    severity: AlertSeverity = AlertSeverity.INFO
    classes: tuple[str, ...] = ()

    def matches(self, kind: str, severity: AlertSeverity, device_class: str) -> bool:
        """Whether it lets a message through."""
        return (
            severity >= self.severity
            and (not self.kinds or any(fnmatch.fnmatchcase(kind, pattern) for pattern in self.kinds))
            and (not self.classes or device_class in self.classes)
        )


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The minutes of the day, in `zone` (IANA), from `begin` to before `end`; over midnight where `end` is smaller."""

    begin: int
    end: int
    zone: str = "UTC"

    def until(self, now: float, zone: tzinfo) -> float | None:
        """When they end (Unix seconds) if `now` is in them, else `None`."""
        local = datetime.fromtimestamp(now, zone)
        minute = local.hour * 60 + local.minute
        is_over_midnight = self.end < self.begin
        is_quiet = minute >= self.begin or minute < self.end if is_over_midnight else self.begin <= minute < self.end
        if not is_quiet:
            return None
        day = local.date() + timedelta(days=1 if is_over_midnight and minute >= self.begin else 0)
        end = datetime(day.year, day.month, day.day, self.end // 60, self.end % 60, tzinfo=zone).timestamp()
        # An hour that the clocks skip or repeat may put the end before now.
        return max(end, now + 60.0 - local.second)


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where a webhook or chat is posted to: `url`, or the name of the secret that holds it; never both.

    `secret`: name of the secret that signs; webhooks only.
    """

    url: str = ""
    url_secret: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class MailTarget:
    """A mail server with sender and recipients; `secret` names the secret that holds the password."""

    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    security: MailSecurity = MailSecurity.STARTTLS
    username: str = ""
    secret: str = ""

    @property
    def server(self) -> str:
        """As `host:port`."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sink:
    """A receiver of messages. `sink_id` is never given to another sink; `rules`: any of them suffices, none: all."""

    name: str
    sink_id: str
    kind: SinkKind
    added_by: str
    added_at: float
    http: HttpTarget | None = None
    mail: MailTarget | None = None
    rules: tuple[SinkRule, ...] = ()
    quiet: QuietHours | None = None

    def takes(self, kind: str, severity: AlertSeverity, device_class: str) -> bool:
        """Whether a rule lets a message through."""
        return not self.rules or any(rule.matches(kind, severity, device_class) for rule in self.rules)


class ThreadStatus(StrEnum):
    """What a message says about its thread: something is open, or is over; `event`: it has no end."""

    OPEN = "open"
    RESOLVED = "resolved"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Message:
    """What is told; every text is harmless already (`texts.clean`).

    `line` and `at` are of the audit line; `line` is empty where there is none. `facts`: label and text. `count`: audit
    lines that it stands for.
    `requester`: who asked for what it is about, and `account` that person's account id. `is_reminder`: nothing is new,
    but nobody acknowledged it.
    """

    kind: str
    severity: AlertSeverity
    status: ThreadStatus
    headline: str
    thread: str
    subject: str
    at: float
    line: str
    facts: tuple[tuple[str, str], ...] = ()
    case_id: str = ""
    device_id: str = ""
    device_class: str = ""
    actor: str = ""
    requester: str = ""
    account: str = ""
    count: int = 1
    is_reminder: bool = False


@dataclass(frozen=True, slots=True)
class Thread:
    """What one sink was told about one case or subject.

    `told`: each state that was told, and when; empty again once it got better. `silent`: lines that said nothing new
    since. `last`: the last open message, for reminders.
    """

    sink: str
    key: str
    subject: str
    opened_at: float
    told_at: float
    severity: AlertSeverity
    is_open: bool
    told: tuple[tuple[str, float], ...] = ()
    silent: int = 0
    reminders: int = 0
    case_id: str = ""
    last: Message | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to a sink; `key` is its idempotency key. Not before `due` (Unix seconds).

    `attempts`: begun so far. `trouble`: of the last attempt. `queued_at`: 0 until it is stored.
    """

    key: str
    sink: str
    due: float
    message: Message
    attempts: int = 0
    trouble: str = ""
    queued_at: float = 0.0


class DeliveryState(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody looks after a case: no more reminders."""

    case_id: str
    by: str
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class SinkState:
    """A sink's running state. `failing_since`: Unix seconds, 0 if it takes messages; `dropped`: not told yet."""

    pending: int = 0
    dropped: int = 0
    failing_since: float = 0.0
    trouble: str = ""
    is_alerted: bool = False
