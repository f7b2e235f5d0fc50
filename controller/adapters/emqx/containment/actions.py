"""Each action of a plan at EMQX: the requests it may send, and how it is carried out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import find_ban, find_sessions
from controller.adapters.emqx.client.paths import Placeholder
from controller.adapters.emqx.client.prefixes import own_rule
from controller.adapters.emqx.client.requests import SUBSCRIPTIONS_AT_ONCE, portions
from controller.adapters.emqx.containment.checks import disallowed_subscriptions
from controller.adapters.emqx.containment.context import ContainmentRequest, RunContext
from controller.adapters.emqx.containment.steps import (
    BrokerAction,
    SessionStep,
    for_each,
    name_in_rules,
    named,
    restriction_of,
)
from controller.domain.containment.plan import ContainmentAction, Subject, SubjectKind
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import Ban, is_restriction
from controller.ports.errors import BrokerNotFoundError, BrokerWaitsError
from schemas.base import MAX_NAME, clean_text

END_SLACK: Final = 1.0  # seconds: EMQX's rows hold whole seconds, so a ban's end may differ from what was requested
KICK_AT_ONCE: Final = 1000  # sessions in one request

_UNLESS_RESTRICTED: Final = "unless its rules are the restriction's already"
_WHERE_RESTRICTED: Final = "where its rules still are the restriction's"
_WHERE_OUTDATED: Final = "where a ban of an earlier decision of Cordon's is there"
_WHERE_OWN_BAN: Final = "where the ban is Cordon's"
_WHEN_LISTED: Final = "in its place, page by page, where many are restricted in the same moment"
_WHEN_BATCHED: Final = (
    "in its place where it has no rules and others are restricted in the same moment: 100 in one call"
)


class AddBan(BrokerAction):
    """Bans the subject; an existing row stays, and is noted if it is of an earlier decision of Cordon's."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._add = self.sends(requests.add_ban(subject, by=request.by, reason=request.reason, until=request.until))

    async def run(self, run: RunContext) -> None:
        ban, made = await run.api.send(self._add)
        now = run.clock.now()
        # A row's time is cut off to whole seconds: one second more is never earlier than the cut was.
        run.record.cut_at = now if made else min(ban.at + 1, now)
        run.record.ban_until = ban.until
        if not made:
            run.record.observe("ban there already", _ban_owner(ban))
            run.state.ban_is_outdated = _is_outdated(ban, self.request)


class RenewBan(BrokerAction):
    """Replaces an outdated ban of Cordon's by this decision's; EMQX has no update."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._lift = self.sends(requests.lift_ban(subject), _WHERE_OUTDATED)
        self._add = self.sends(
            requests.add_ban(subject, by=request.by, reason=request.reason, until=request.until), _WHERE_OUTDATED
        )

    async def run(self, run: RunContext) -> None:
        if not run.state.ban_is_outdated:
            return
        run.record.observe("ban is of an earlier decision", "replaced by this one's")
        await run.api.send(self._lift)
        ban, _ = await run.api.send(self._add)
        run.record.ban_until = ban.until


class LiftOwnBan(BrokerAction):
    """Lifts Cordon's ban; a foreign ban is never touched."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._read = self.sends_varying("", partial(requests.read_ban, subject))
        self._lift = self.sends(requests.lift_ban(subject), _WHERE_OWN_BAN)

    async def run(self, run: RunContext) -> None:
        ban = await find_ban(run.api, self._read, self.subject)
        if ban is None:
            return
        if not ban.is_ours:
            run.record.observe("foreign ban left", f"made by {clean_text(ban.by, MAX_NAME)}")
            return
        await run.api.send(self._lift)


class WriteRestriction(BrokerAction):
    """Gives the subject the restriction's rules, once its present rules are saved."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        shown = restriction_of(subject)  # and a rule for each `$` prefix in use
        self._read = self.sends(requests.read_rules(subject))
        self._write = self.sends_varying(_UNLESS_RESTRICTED, requests.write_rules, subject, shown)
        if self.is_client:
            self.sends(requests.add_rules([(subject, shown)]), _WHEN_BATCHED)
            self.sends_varying(_WHEN_LISTED, requests.list_client_rules)  # through `run.shared`

    async def run(self, run: RunContext) -> None:
        if self.is_client:
            row = await run.shared.rules_at[""].get(self.subject.name, run.record.add)
        else:
            row = await run.api.send(self._read)
        present = row or ()
        for rule in present:
            if not own_rule(rule.topic, rule.permission, rule.action):
                run.prefixes.note(rule.topic)
        prefixes = run.prefixes.found
        if is_restriction(present, name_in_rules(self.subject), prefixes):
            return
        if is_restriction(present, name_in_rules(self.subject)):
            run.record.observe("restriction extended", "prefixes in use are denied too")
        else:
            await self.request.save_rules(present)
            run.record.observe("keep rules", f"{len(present)} rules kept")
        rules = restriction_of(self.subject, prefixes)
        if row is None and self.is_client:
            await run.shared.rules.write(self.subject, rules, run.record.add)
        else:
            await run.api.send(self._write(self.subject, rules))


class RestoreRestriction(BrokerAction):
    """Writes the restriction's rules again if they are gone, before a ban is lifted: no moment without either."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._read = self.sends(requests.read_rules(subject))
        self._write = self.sends_varying(_UNLESS_RESTRICTED, requests.write_rules, subject, restriction_of(subject))

    async def run(self, run: RunContext) -> None:
        present = await run.api.send(self._read) or ()
        if is_restriction(present, name_in_rules(self.subject)):
            return
        # The store keeps the first rules of a case; it has none where the isolation was never carried out.
        await self.request.save_rules(present)
        run.record.observe(
            "restriction was gone", f"{len(present)} rules kept, unless others were before, and replaced"
        )
        await run.api.send(self._write(self.subject, restriction_of(self.subject, run.prefixes.found)))


class RestoreRules(BrokerAction):
    """Restores the saved rules; rules that are not the restriction's any more were changed by others and stay."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._saved = request.saved_rules
        self._read = self.sends(requests.read_rules(subject))
        if self._saved:
            self._restore = self.sends(requests.write_rules(subject, self._saved), _WHERE_RESTRICTED)
        else:
            self._delete = self.sends(requests.delete_rules(subject), _WHERE_RESTRICTED)

    async def run(self, run: RunContext) -> None:
        state, present = run.state, await run.api.send(self._read) or ()
        state.restored_rules = self._saved
        if present == self._saved:
            state.rules_were_restored = True
            return
        if not is_restriction(present, name_in_rules(self.subject)):
            run.record.observe("rules left", f"{len(present)} rules are someone else's and stay")
            state.restored_rules = present
            return
        state.rules_were_restored = True
        if self._saved:
            await run.api.send(self._restore)
        else:
            await run.api.send(self._delete)


class ClearCache(SessionStep, BrokerAction):
    """Makes the subject's connections forget their access decisions."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._clear = self.sends_varying(self.each(), requests.clear_cache, self.shown_id)

    async def run(self, run: RunContext) -> None:
        async def clear(client_id: str) -> None:
            await run.api.send(self._clear(client_id))

        client_ids, _ = await self.sessions(run.api)
        await for_each(client_ids, clear)


class CutSubscriptions(SessionStep, BrokerAction):
    """Ends subscriptions outside the device's branch, once they are saved with the session they belong to."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        holding = self.each("where it holds any outside its branch")
        self._read = self.sends_varying(self.each(), requests.read_subscriptions, self.shown_id)
        self._session = self.sends_varying(holding, requests.read_client, self.shown_id)
        self._cut = self.sends_varying(
            holding, requests.unsubscribe, self.shown_id, ["<each topic outside its branch>"]
        )

    async def run(self, run: RunContext) -> None:
        async def cut(client_id: str) -> None:
            await self._cut_session(run, client_id)

        client_ids, _ = await self.sessions(run.api)
        await for_each(client_ids, cut)
        run.record.cut_at = run.clock.now()

    async def _cut_session(self, run: RunContext, client_id: str) -> None:
        rows = await run.api.send(self._read(client_id)) or ()
        for row in rows:
            run.prefixes.note(
                row.topic, client_id
            )  # one that the rules do not deny yet is found missing by the read-back
        topics = disallowed_subscriptions(client_id, [row.topic for row in rows])
        if not topics:
            return
        session = await run.api.send(self._session(client_id))
        created_at = "" if session is None else session.created_at
        await self.request.save_subscriptions(
            tuple(
                SavedSubscription(
                    row.topic, row.qos, row.nl, row.rap, row.rh, created_at, "" if self.is_client else client_id
                )
                for row in rows
                if row.topic in topics
            )
        )
        for portion in portions(sorted(set(topics)), SUBSCRIPTIONS_AT_ONCE):
            await run.api.send(self._cut(client_id, portion))


class RestoreSubscriptions(BrokerAction):
    """Gives sessions their subscriptions back; a later session subscribes itself, under its own rules."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        shown = request.saved_subscriptions or (SavedSubscription("<each topic that was cut>"),)
        shown_id = subject.name if self.is_client else Placeholder("<client id>")
        cut, same = "where any were cut", "where the session is the one they were cut from"
        if not self.is_client:
            cut, same = f"for each session, {cut}", f"for each session, {same}"
        self._session = self.sends_varying(cut, requests.read_client, shown_id)
        self._read = self.sends_varying(same, requests.read_subscriptions, shown_id)
        self._subscribe = self.sends_varying(same, requests.subscribe, shown_id, shown)

    async def run(self, run: RunContext) -> None:
        cut: dict[str, list[SavedSubscription]] = {}
        for row in self.request.saved_subscriptions:
            cut.setdefault(row.client or self.subject.name, []).append(row)
        if not cut:
            return
        if not run.state.rules_were_restored:
            run.record.observe("subscriptions not given back", "its rules are someone else's now")
            return

        async def restore(client_id: str) -> int | None:
            return await self._restore(run, client_id, cut[client_id])

        counts = await for_each(list(cut), restore)
        gone = counts.count(None)
        if gone == len(counts):
            what = (
                "the session they belonged to is gone" if self.is_client else "the sessions they belonged to are gone"
            )
            run.record.observe("subscriptions not given back", what)
            return
        left = f"; {gone} of {len(counts)} sessions are gone" if gone else ""
        total = len(self.request.saved_subscriptions)
        run.record.observe("subscriptions given back", f"{sum(filter(None, counts))} of {total} that were cut{left}")

    async def _restore(self, run: RunContext, client_id: str, saved: Sequence[SavedSubscription]) -> int | None:
        """Returns how many were given back; `None` if the session they were cut from is gone."""
        client = await run.api.send(self._session(client_id))
        mine = [row for row in saved if client is not None and row.session and row.session == client.created_at]
        if not mine:
            return None
        present = {row.topic for row in await run.api.send(self._read(client_id)) or ()}
        missing = [row for row in mine if row.topic not in present]
        for portion in portions(missing, SUBSCRIPTIONS_AT_ONCE):
            await run.api.send(self._subscribe(client_id, portion))
        return len(missing)


class KickClient(BrokerAction):
    """Disconnects the client and destroys its session, also one that waits with old subscriptions."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._read = self.sends(requests.read_client(subject.name))
        self._kick = self.sends(requests.kick(subject.name))

    async def run(self, run: RunContext) -> None:
        try:
            client = await run.api.send(self._read)
        except BrokerWaitsError:
            client = None  # it is at a node that does not answer, which kicks it when it does
        kicked = await run.api.send(self._kick)
        run.state.client = None
        if kicked and client is not None and client.connected:
            run.record.cut_at = run.clock.now()


class KickUser(BrokerAction):
    """Ends every session of the user, with or without a connection."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._list = self.sends_varying("page by page", partial(requests.list_sessions, subject.name))
        self._kick = self.sends_varying("where it has sessions", requests.kick_many, ["<each client id of the user>"])

    async def run(self, run: RunContext) -> None:
        sessions = await find_sessions(run.api, self._list, self.subject.name)
        client_ids = [session.clientid for session in sessions]
        for portion in portions(client_ids, KICK_AT_ONCE):
            await run.api.send(self._kick(portion))
        run.record.observe("sessions of the user", named(client_ids) or "none")
        if any(session.connected for session in sessions) or not run.record.cut_at:
            run.record.cut_at = run.clock.now()


class ClearRetained(BrokerAction):
    """Deletes the retained messages that the client published."""

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        self._list = self.sends_varying("page by page", requests.list_retained)
        self._delete = self.sends_varying(
            f"for each message that {subject.name} published", requests.delete_retained, Placeholder("<topic>")
        )

    async def run(self, run: RunContext) -> None:
        try:
            rows = [row async for row in run.api.rows(self._list) if row.from_clientid == self.subject.name]
        except BrokerNotFoundError:
            run.record.observe("retained messages not cleared", "this EMQX cannot list them")
            return
        for row in rows:
            await run.api.send(self._delete(row.topic))


def _is_outdated(ban: Ban, request: ContainmentRequest) -> bool:
    """Whether a ban of Cordon's is of an earlier decision: it would end at another time."""
    if not ban.is_ours:
        return False
    if ban.by != request.by or ban.until is None or request.until is None:
        return ban.by != request.by or ban.until != request.until
    return abs(ban.until - request.until) > END_SLACK


def _ban_owner(ban: Ban) -> str:
    return f"Cordon's own, by {ban.by}" if ban.is_ours else f"made by {clean_text(ban.by, MAX_NAME)}, left as it is"


_OF_BOTH: Final[Mapping[ContainmentAction, type[BrokerAction]]] = {
    ContainmentAction.BAN: AddBan,
    ContainmentAction.RENEW_BAN: RenewBan,
    ContainmentAction.LIFT_BAN: LiftOwnBan,
    ContainmentAction.WRITE_RESTRICTION: WriteRestriction,
    ContainmentAction.RESTORE_RESTRICTION: RestoreRestriction,
    ContainmentAction.RESTORE_RULES: RestoreRules,
    ContainmentAction.CLEAR_CACHE: ClearCache,
    ContainmentAction.CUT_SUBSCRIPTIONS: CutSubscriptions,
    ContainmentAction.RESTORE_SUBSCRIPTIONS: RestoreSubscriptions,
}
ACTIONS: Final[Mapping[SubjectKind, Mapping[ContainmentAction, type[BrokerAction]]]] = {
    SubjectKind.CLIENT: {
        **_OF_BOTH,
        ContainmentAction.KICK: KickClient,
        ContainmentAction.CLEAR_RETAINED: ClearRetained,
    },
    SubjectKind.USER: {**_OF_BOTH, ContainmentAction.KICK: KickUser},
}
