"""What a restriction does not stop, so that it is said: no requirement, and never missing."""

from controller.adapters.emqx.client import left_open_requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import RouteRow
from controller.adapters.emqx.client.prefixes import MAX_OF_ROUTES
from controller.adapters.emqx.containment.context import ContainmentRequest, RunContext
from controller.adapters.emqx.containment.steps import BrokerCheck
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import KNOWN_PREFIXES, MAX_PREFIXES
from controller.ports.errors import BrokerError
from schemas import topics
from schemas.base import clean_text

MAX_TOPICS = 200  # characters of a list of topics


class LeftOpen(BrokerCheck):
    """Notes what stays open; a setting that cannot be read is noted as unknown."""

    label = "what stays open"
    on_every_node = False

    def __init__(self, subject: Subject, request: ContainmentRequest) -> None:
        super().__init__(subject, request)
        # Through `run.shared`; the session was read before.
        self.sends(left_open_requests.read_access_settings())
        self.sends(left_open_requests.read_auto_subscribe())
        self.sends(left_open_requests.list_delayed())

    async def missing(self, run: RunContext, api: EmqxApi) -> list[str]:
        del api
        client = run.state.client
        if client is not None and client.mqueue_len:
            run.record.leave_open(
                f"{client.mqueue_len} messages that were queued for it before are delivered when it takes them:"
                " `--kick` ends the session with them"
            )
        await self._dollar_topics(run)
        await self._delayed(run)
        await self._auto_subscribe(run)
        return []

    async def _dollar_topics(self, run: RunContext) -> None:
        try:
            no_match = (await run.shared.access_settings.get()).no_match
        except BrokerError as e:
            run.record.leave_open(f"topics that begin with `$` may be open: `no_match` could not be read ({e})")
            return
        if no_match == "deny":
            return
        named = ", ".join(sorted({*KNOWN_PREFIXES, *run.prefixes.found}))
        run.record.leave_open(
            f"topics that begin with `$`, except {named}: `no_match` is {clean_text(no_match, 20)}, and no rule covers"
            " them all"
        )
        if left_out := run.prefixes.left_out:
            named = clean_text(", ".join(left_out), MAX_TOPICS)
            run.record.leave_open(
                f"{len(left_out)} prefixes with `$` that are in use and not denied, since there are too many (at most"
                f" {MAX_PREFIXES} in all, and {MAX_OF_ROUTES} that only clients use): {named}"
            )

    async def _delayed(self, run: RunContext) -> None:
        try:
            page = await run.shared.delayed.get()
        except BrokerError as e:
            run.record.leave_open(f"`$delayed` messages of it may still be published: they cannot be listed ({e})")
            return
        sender = "from_clientid" if self.is_client else "from_username"
        own = sum(getattr(row, sender) == self.subject.name for row in page.data)
        if own:
            run.record.leave_open(f"{own} `$delayed` messages that it published before are published when they are due")
        elif len(page.data) < (page.meta.count or 0):
            run.record.leave_open("`$delayed` messages of it may be among those that were not listed")

    async def _auto_subscribe(self, run: RunContext) -> None:
        try:
            rows = await run.shared.auto_subscribe.get()
        except BrokerError as e:
            run.record.leave_open(f"auto_subscribe may give it subscriptions: it could not be read ({e})")
            return
        foreign = [row.topic for row in rows if not _is_own(row)]
        if foreign:
            given = clean_text(", ".join(foreign), MAX_TOPICS)
            run.record.leave_open(f"auto_subscribe gives it {given} when it connects, past its rules")


def _is_own(row: RouteRow) -> bool:
    return row.topic.startswith(topics.down_branch("${clientid}").removesuffix("#"))
