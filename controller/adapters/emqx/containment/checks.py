"""Each check of a plan at EMQX: the requests it may send, and what is missing at a node."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi, find_ban, find_sessions
from controller.adapters.emqx.client.http import ApiRequest
from controller.adapters.emqx.client.models import DATABASE, CacheRow, SourceRow
from controller.adapters.emqx.client.paths import Placeholder
from controller.adapters.emqx.containment.context import ContainmentRequest, RunContext
from controller.adapters.emqx.containment.left_open import LeftOpen
from controller.adapters.emqx.containment.steps import (
    NAMED,
    BrokerCheck,
    SessionStep,
    for_each,
    name_in_rules,
    named,
)
from controller.domain.containment.plan import ContainmentCheck, Subject, SubjectKind
from controller.ports.broker_tables import AccessRules, Ban, is_restriction
from controller.ports.errors import BrokerNotFoundError
from schemas import topics

_SHARED: Final = ("$share/", "$queue/", "$exclusive/")
_WHERE_SESSION: Final = "where it has a session"
_WHEN_LISTED: Final = "in its place, page by page, where many are looked for in the same moment"
_WHEN_BATCHED: Final = "in its place where many are looked for in the same moment: 100 in one call"


def disallowed_subscriptions(client_id: str, filters: Sequence[str]) -> tuple[str, ...]:
    """The filters that a restricted client may not hold."""
    own = topics.down_branch(client_id).removesuffix("#")
    return tuple(each for each in filters if not _plain_topic(each).startswith(own))


def cached_disallowed_topics(client_id: str, cache: Sequence[CacheRow]) -> tuple[str, ...]:
    """The topics outside its branch that the cache of the client's connection still allows."""
    own = {
        "publish": topics.up_branch(client_id).removesuffix("#"),
        "subscribe": topics.down_branch(client_id).removesuffix("#"),
    }
    return tuple(
        row.topic
        for row in cache
        if row.result != "deny" and not _is_own(_plain_topic(row.topic), own.get(row.access.action_type))
    )


def source_order_problem(sources: Sequence[SourceRow]) -> str:
    """Empty if EMQX consults its built-in database before all other sources: else rules may have no effect."""
    enabled = [source.type for source in sources if source.enable]
    if DATABASE not in enabled:
        return "EMQX does not ask its built-in database for access: rules have no effect"
    if enabled[0] != DATABASE:
        return f"EMQX asks {enabled[0]} before its built-in database: rules may have no effect"
    return ""


def is_ban_active(ban: Ban | None, now: float) -> bool:
    """EMQX lists expired rows for up to a minute."""
    return ban is not None and (ban.until is None or ban.until > now)


def _is_own(topic: str, branch: str | None) -> bool:
    return branch is not None and topic.startswith(branch)


def _plain_topic(topic: str) -> str:
    """The topic of a shared or exclusive subscription."""
    if topic.startswith(_SHARED[0]):
        return topic.split("/", 2)[-1]
    for prefix in _SHARED[1:]:
        if topic.startswith(prefix):
            return topic.removeprefix(prefix)
    return topic


class DatabaseIsFirst(BrokerCheck):
    """EMQX consults its rule database before all other sources."""

    label = "order of sources read"
    on_every_node = False

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self.sends(requests.read_sources())  # through `run.shared`

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        del api
        problem = source_order_problem(await run.shared.sources.get())
        return [problem] if problem else []


class ClientIsNoSuperuser(BrokerCheck):
    """A superuser passes every rule: it can be isolated, but a restriction would have no effect."""

    label = "superuser read"
    on_every_node = False

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        # The session and the authenticators are read through `run.shared`.
        self.sends(requests.read_client(subject.name))
        self.sends(requests.read_clients([subject.name]), _WHEN_BATCHED)
        self.sends(requests.read_authenticators(), _WHERE_SESSION)
        self._user = self.sends_varying(
            _WHERE_SESSION, requests.read_user, Placeholder("<built-in database>"), Placeholder("<its user>")
        )

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        client = await run.shared.clients_at[api.node].get(self.subject.name, run.record.add)
        run.state.client = client
        if client is None:
            return []
        for link in await run.shared.authenticators.get():
            user = self.subject.name if link.user_id_type == "clientid" else client.username or ""
            if not link.enable or link.backend != DATABASE or user in {"", ".", ".."}:
                continue
            row = await api.send(self._user(link.id, user))
            if row is not None and row.is_superuser:
                return ["the client's user is a superuser at EMQX: access rules do not bind it"]
        return []


class UserIsNoSuperuser(BrokerCheck):
    """A superuser passes every rule: it can be isolated, but a restriction would have no effect."""

    label = "superuser read"
    on_every_node = False

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self.sends(requests.read_authenticators())  # through `run.shared`
        self._user = self.sends_varying(
            "where the built-in database names users", requests.read_user, Placeholder("<built-in database>"),
            subject.name,
        )  # fmt: skip

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        for link in await run.shared.authenticators.get():
            if not link.enable or link.backend != DATABASE or link.user_id_type != "username":
                continue
            row = await api.send(self._user(link.id, self.subject.name))
            if row is not None and row.is_superuser:
                return ["the user is a superuser at EMQX: access rules do not bind it"]
        return []


class _RulesAre(BrokerCheck):
    label = "rules read back"

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._read = self.sends(requests.read_rules(subject))
        if self.is_client:
            self.sends_varying(_WHEN_LISTED, requests.list_client_rules)  # through `run.shared`

    async def _present(self, run: RunContext, api: EmqxApi) -> AccessRules | None:
        if self.is_client:
            return await run.shared.rules_at[api.node].get(self.subject.name, run.record.add)
        return await api.send(self._read)

    def _problem(self, text: str) -> list[str]:
        owner = "the" if self.is_client else "the user's"
        return [f"{owner} rules are not {text}"]


class RulesAreRestriction(_RulesAre):
    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        present = await self._present(run, api)
        holds = is_restriction(present, name_in_rules(self.subject), run.prefixes.found)
        return [] if holds else self._problem("the restriction's")


class RulesAreRestored(_RulesAre):
    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        holds = (await self._present(run, api) or ()) == run.state.restored_rules
        return [] if holds else self._problem("those that were restored")


class NoForeignAccess(SessionStep, BrokerCheck):
    """No session subscribes, or is remembered as allowed, outside its branch.

    A user's session has no rules of its own either: EMQX consults a client's rules before its user's.
    """

    label = "subscriptions and cache read back"

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self.on_every_node = self.is_client  # a user's sessions are read from their own nodes
        self._subscriptions = self.sends_varying(self.each(), requests.read_subscriptions, self.shown_id)
        self._cache = self.sends_varying(self.each(), requests.read_cache, self.shown_id)
        if not self.is_client:
            self._rules = self.sends_varying(self.each(), _read_client_rules, self.shown_id)

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        del run

        async def check(client_id: str) -> list[str]:
            return await self._missing_of_session(api, client_id)

        client_ids, others = await self.sessions(api)
        found = [text for texts in await for_each(client_ids, check) for text in texts]
        found += ["a session whose client id Cordon does not act on: isolate the user"] * others
        return found[:NAMED] + ([f"and {len(found) - NAMED} more"] if len(found) > NAMED else [])

    async def _missing_of_session(self, api: EmqxApi, client_id: str) -> list[str]:
        prefix, found = "" if self.is_client else f"{client_id}: ", []
        rows = await api.send(self._subscriptions(client_id)) or ()
        if disallowed_subscriptions(client_id, [row.topic for row in rows]):
            found.append(f"{prefix}subscriptions outside its branch")
        cache = await api.send(self._cache(client_id))
        if cached_disallowed_topics(client_id, cache or ()):
            found.append(f"{prefix}its cache allows topics outside its branch")
        if not self.is_client:
            rules = await api.send(self._rules(client_id))
            if rules and not is_restriction(rules, client_id):
                found.append(f"{prefix}has rules of its own, which go before its user's: restrict that client too")
        return found


def _read_client_rules(client_id: str) -> ApiRequest[AccessRules | None]:
    return requests.read_rules(Subject.client(client_id))


class _IsOut(BrokerCheck):
    """A node refuses clients that its own table bans, before it checks a password: with none connected, it is cut."""

    label = "ban and client read back"

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._ban = self.sends_varying("", partial(requests.read_ban, subject))
        if self.is_client:
            self.sends_varying(_WHEN_LISTED, requests.list_bans)  # through `run.shared`

    async def _missing_ban(self, run: RunContext, api: EmqxApi) -> list[str]:
        if self.is_client:
            ban = await run.shared.bans_at[api.node].get(self.subject.name, run.record.add)
        else:
            ban = await find_ban(api, self._ban, self.subject)
        return [] if is_ban_active(ban, run.clock.now()) else ["no ban in force"]


class ClientIsOut(_IsOut):
    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        # The session is read through `run.shared`.
        self.sends(requests.read_client(subject.name))
        self.sends(requests.read_clients([subject.name]), _WHEN_BATCHED)
        self._subscriptions = self.sends(
            requests.read_subscriptions(subject.name), "where a session waits without a connection"
        )

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        found = await self._missing_ban(run, api)
        client = await run.shared.clients_at[api.node].get(self.subject.name, run.record.add)
        if client is None:
            return found
        if client.connected:
            return [*found, "the client is connected"]
        rows = await api.send(self._subscriptions) or ()
        if disallowed_subscriptions(self.subject.name, [row.topic for row in rows]):
            found.append("its session waits with subscriptions outside its branch")
        if client.mqueue_len:
            found.append(f"its session waits with {client.mqueue_len} messages")
        return found


class UserIsOut(_IsOut):
    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._list = self.sends_varying("page by page", partial(requests.list_sessions, subject.name))

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        found = await self._missing_ban(run, api)
        sessions = await find_sessions(api, self._list, self.subject.name)
        if sessions:
            found.append(f"sessions of the user are left: {named([session.clientid for session in sessions])}")
        return found


class NoOwnBan(BrokerCheck):
    """No ban of Cordon's is in force; a foreign ban may be."""

    label = "ban read back"

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._ban = self.sends_varying("", partial(requests.read_ban, subject))

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        ban = await find_ban(api, self._ban, self.subject)
        is_ours = ban is not None and ban.is_ours and is_ban_active(ban, run.clock.now())
        return ["Cordon's ban is still there"] if is_ours else []


class NoRetained(BrokerCheck):
    """No retained message is from the client."""

    label = "retained messages read back"
    on_every_node = False

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._list = self.sends_varying("page by page", requests.list_retained)

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        del run
        try:
            left = [row async for row in api.rows(self._list) if row.from_clientid == self.subject.name]
        except BrokerNotFoundError:
            return []  # the action observed that this EMQX cannot list them; repeating it would not help
        return [f"{len(left)} retained messages of it are left"] if left else []


_OF_BOTH: Final[Mapping[ContainmentCheck, type[BrokerCheck]]] = {
    ContainmentCheck.SOURCE: DatabaseIsFirst,
    ContainmentCheck.RESTRICTED: RulesAreRestriction,
    ContainmentCheck.RESTORED: RulesAreRestored,
    ContainmentCheck.QUIET: NoForeignAccess,
    ContainmentCheck.UNBANNED: NoOwnBan,
    ContainmentCheck.LEFT_OPEN: LeftOpen,
}
CHECKS: Final[Mapping[SubjectKind, Mapping[ContainmentCheck, type[BrokerCheck]]]] = {
    SubjectKind.CLIENT: {
        **_OF_BOTH,
        ContainmentCheck.SUPERUSER: ClientIsNoSuperuser,
        ContainmentCheck.OUT: ClientIsOut,
        ContainmentCheck.NO_RETAINED: NoRetained,
    },
    SubjectKind.USER: {
        **_OF_BOTH,
        ContainmentCheck.SUPERUSER: UserIsNoSuperuser,
        ContainmentCheck.OUT: UserIsOut,
    },
}
