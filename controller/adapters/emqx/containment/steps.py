"""What every step of a plan is at EMQX: a class that describes its requests and sends them, for one subject."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi, find_sessions
from controller.adapters.emqx.client.http import ApiRequest
from controller.adapters.emqx.client.paths import Placeholder, segment
from controller.adapters.emqx.client.requests import portions
from controller.adapters.emqx.containment.context import ContainmentRequest, RunContext
from controller.domain.containment.plan import Subject, SubjectKind
from controller.ports.broker_tables import AccessRules, restriction
from controller.ports.errors import BrokerRefusedError

SESSIONS_AT_ONCE: Final = 16  # sessions of a user worked on at once; the HTTP client bounds the requests of all plans
NAMED: Final = 5  # sessions named in a text

P = ParamSpec("P")
T = TypeVar("T")


class ContainmentStep:
    """A step of a plan for one subject.

    A subclass declares each of its requests in `__init__`, with `sends` or `sends_varying`, and sends only what these
    return: so a plan shows every request that its steps may send.
    """

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        self.subject = subject
        self.request = request
        self.planned: list[tuple[ApiRequest[Any], str]] = []  # with the case in which it is sent, empty: always

    def sends(self, request: ApiRequest[T], only: str = "") -> ApiRequest[T]:
        """Declares a request that is fully known beforehand."""
        self.planned.append((request, only))
        return request

    def sends_varying(
        self, only: str, build: Callable[P, ApiRequest[T]], *shown: P.args, **named: P.kwargs
    ) -> Callable[P, ApiRequest[T]]:
        """Declares a request that `build` makes from values found at run time; it is shown with `shown`."""
        self.planned.append((build(*shown, **named), only))
        return build

    @property
    def is_client(self) -> bool:
        return self.subject.kind is SubjectKind.CLIENT


class BrokerAction(ContainmentStep, ABC):
    """Changes something at the broker; safe to repeat."""

    @abstractmethod
    async def run(self, run: RunContext) -> None:
        """Makes the change.

        Raises:
            BrokerError: it may not have been made.
        """


class BrokerCheck(ContainmentStep, ABC):
    """Reads whether something is as wanted; `label` names it in the proof."""

    label: ClassVar[str]
    on_every_node: bool = True  # because each node answers from its own copy of a table

    @abstractmethod
    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        """Returns what is not as wanted, read through `api`.

        Raises:
            BrokerError: it could not be read.
        """


class SessionStep(ContainmentStep):
    """A step for each session of the subject: of a client its own, of a user those that EMQX lists."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self.shown_id = subject.name if self.is_client else Placeholder("<client id>")
        if not self.is_client:
            self._listing = self.sends_varying("page by page", partial(requests.list_sessions, subject.name))

    def each(self, only: str = "") -> str:
        """In which case a request for each session is sent."""
        if self.is_client:
            return only
        return f"for each session, {only}" if only else "for each session"

    async def sessions(self, api: EmqxApi) -> tuple[Sequence[str], int]:
        """Client ids of the sessions, and how many more there are whose client id Cordon does not act on."""
        if self.is_client:
            return (self.subject.name,), 0
        rows = await find_sessions(api, self._listing, self.subject.name)
        ids = [row.clientid for row in rows if _is_actable(row.clientid)]
        return ids, len(rows) - len(ids)


async def for_each(client_ids: Sequence[str], work: Callable[[str], Awaitable[T]]) -> list[T]:
    """Works on several sessions at once.

    Raises:
        BrokerError: the work on a session failed; that on the others of its portion is finished.
    """
    values: list[T] = []
    for portion in portions(client_ids, SESSIONS_AT_ONCE):
        for outcome in await asyncio.gather(*map(work, portion), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            values.append(outcome)
    return values


def name_in_rules(subject: Subject) -> str:
    """The client id in the subject's rules; in those of a user the broker fills in that of each session."""
    return subject.name if subject.kind is SubjectKind.CLIENT else "${clientid}"


def restriction_of(subject: Subject, prefixes: Iterable[str] = ()) -> AccessRules:
    """The rules of a restricted subject; `prefixes`: see `restriction`."""
    return restriction(name_in_rules(subject), prefixes)


def named(client_ids: Sequence[str]) -> str:
    shown = ", ".join(client_ids[:NAMED])
    return f"{shown} and {len(client_ids) - NAMED} more" if len(client_ids) > NAMED else shown


def _is_actable(client_id: str) -> bool:
    try:
        segment(client_id)
    except BrokerRefusedError:
        return False
    return True
