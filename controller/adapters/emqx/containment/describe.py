"""A plan as the calls it will make, for an operator's eyes: the same plan, and the same requests, that are carried out.

Pure: nothing is asked of EMQX. What only EMQX can tell stands in angle brackets.
"""

from collections.abc import Callable, Mapping
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.http import API, ApiRequest
from controller.adapters.emqx.containment.context import ContainmentRequest
from controller.domain.containment.plan import ContainmentAction, ContainmentCheck, ContainmentPlan, plan_for
from controller.ports.broker import PlannedCall, PlannedStage, PlanParameters, SavedSubscription
from controller.ports.broker_tables import BAN_MARK, restriction
from schemas.base import MAX_NAME, clean_text

MAX_REASON: Final = MAX_NAME  # characters of a ban's reason
_EXISTS: Final = "where it has a session"
UNLESS_RESTRICTED: Final = "unless its rules are the restriction's already"
OUTDATED: Final = "where a ban of an earlier decision of Cordon's is there"
OURS: Final = "where the ban is Cordon's"

TOGETHER: Final = "in its place where many are looked for in the same moment: 100 in one call"

# A call, and in which case it is made (empty: always).
ConditionalRequest = tuple[ApiRequest, str]
RequestDescriber = Callable[[str, PlanParameters], tuple[ConditionalRequest, ...]]


def ban_wish(case: str, reason: str, until: float | None) -> ContainmentRequest:
    """The words of a ban, bounded, as every one of Cordon's carries them."""
    return ContainmentRequest(
        by=clean_text(f"{BAN_MARK}{case}", MAX_NAME), reason=clean_text(reason, MAX_REASON), until=until
    )


def described(client_id: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
    """The plan of this intent.

    Raises:
        BrokerRefusedError: not a client id that Cordon acts on.
    """
    plan = plan_for(intent.goal, kick=intent.kick, clear_retained=intent.clear_retained)
    return shown_plan(plan, client_id, intent, ACT_CALLS, LOOK_CALLS)


def shown_plan(
    plan: ContainmentPlan,
    subject: str,
    intent: PlanParameters,
    acts: Mapping[ContainmentAction, RequestDescriber],
    looks: Mapping[ContainmentCheck, RequestDescriber],
    *,
    through_one: frozenset[ContainmentCheck] = frozenset(),
) -> tuple[PlannedStage, ...]:
    """A plan as calls, described by these for its kind of subject; without acts that make none."""

    def shown(look: ContainmentCheck) -> tuple[str, tuple[PlannedCall, ...]]:
        where = "each node" if look.is_everywhere and look not in through_one else "one node"
        return look.value, _shown(looks[look](subject, intent), where)

    stages = []
    for stage in plan.stages:
        done = [(act.value, _shown(acts[act](subject, intent), "one node")) for act in stage.do]
        seen = tuple(shown(look) for look in stage.see)
        made = tuple((what, calls_) for what, calls_ in done if calls_)
        if made or seen:
            stages.append(PlannedStage(made, seen, tuple(act.value for act in stage.again), stage.gated))
    return tuple(stages)


def _shown(wanted: tuple[ConditionalRequest, ...], where: str) -> tuple[PlannedCall, ...]:
    return tuple(PlannedCall(call.method, _path(call), call.body, where, only) for call, only in wanted)


def _path(call: ApiRequest) -> str:
    query = "&".join(
        f"{name}={one}"
        for name, value in (call.query or {}).items()
        for one in (value if isinstance(value, tuple) else (value,))
    )
    return f"{API}{call.path}" + (f"?{query}" if query else "")


def _ban(client_id: str, intent: PlanParameters) -> ApiRequest:
    wish = ban_wish(intent.case, intent.reason, intent.until)
    return requests.add_ban("clientid", client_id, by=wish.by, reason=wish.reason, until=wish.until)


def _act_ban(client_id: str, intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((_ban(client_id, intent), ""),)


def _act_renew_ban(client_id: str, intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.lift_ban("clientid", client_id), OUTDATED), (_ban(client_id, intent), OUTDATED))


def _act_lift_ban(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.read_ban("clientid", client_id), ""), (requests.lift_ban("clientid", client_id), OURS))


def _act_restrict(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    wanted = restriction(client_id)
    alone, bulk = requests.write_rules("clients", client_id, wanted), requests.add_rules([(client_id, wanted)])
    together = "in its place where it has no rules and others are restricted in the same moment: 100 in one call"
    return ((requests.read_rules("clients", client_id), ""), (alone, UNLESS_RESTRICTED), (bulk, together))


def _act_restrict_again(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    write = requests.write_rules("clients", client_id, restriction(client_id))
    return ((requests.read_rules("clients", client_id), ""), (write, UNLESS_RESTRICTED))


def _act_restore_rules(client_id: str, intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    if intent.kept:
        back = requests.write_rules("clients", client_id, intent.kept)
    else:
        back = requests.delete_rules("clients", client_id)
    return ((requests.read_rules("clients", client_id), ""), (back, "where its rules still are the restriction's"))


def _act_clear_cache(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.clear_cache(client_id), ""),)


def _act_cut(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    held = "where it holds any outside its branch"
    cut = requests.unsubscribe(client_id, ["<each topic outside its branch>"])
    return ((requests.read_subscriptions(client_id), ""), (requests.read_client(client_id), held), (cut, held))


def _act_give_back(client_id: str, intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    kept = intent.subscriptions or (SavedSubscription("<each topic that was cut>"),)
    same = "where the session is the one they were cut from"
    return (
        (requests.read_client(client_id), "where any were cut"),
        (requests.read_subscriptions(client_id), same),
        (requests.subscribe(client_id, kept), same),
    )


def _act_kick(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.read_client(client_id), ""), (requests.kick(client_id), ""))


def _act_clear_retained(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    each = ApiRequest("DELETE", f"{requests.RETAINED}/message/<topic>", "delete retained message")
    return ((requests.list_retained(), "page by page"), (each, f"for each message that {client_id} published"))


def _look_superuser(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    user = ApiRequest("GET", "/authentication/<built-in database>/users/<its user>", "read user")
    client = ((requests.read_client(client_id), ""), (requests.read_clients([client_id]), TOGETHER))
    return (*client, (requests.read_authenticators(), _EXISTS), (user, _EXISTS))


def _look_rules(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.read_rules("clients", client_id), ""),)


def _look_quiet(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.read_subscriptions(client_id), ""), (requests.read_cache(client_id), ""))


def _look_out(client_id: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    waits = "where a session waits without a connection"
    return (
        (requests.read_ban("clientid", client_id), ""),
        (requests.read_client(client_id), ""),
        (requests.read_clients([client_id]), TOGETHER),
        (requests.read_subscriptions(client_id), waits),
    )


ACT_CALLS: Final[Mapping[ContainmentAction, RequestDescriber]] = {
    ContainmentAction.BAN: _act_ban,
    ContainmentAction.RENEW_BAN: _act_renew_ban,
    ContainmentAction.LIFT_BAN: _act_lift_ban,
    ContainmentAction.WRITE_RESTRICTION: _act_restrict,
    ContainmentAction.RESTORE_RESTRICTION: _act_restrict_again,
    ContainmentAction.RESTORE_RULES: _act_restore_rules,
    ContainmentAction.CLEAR_CACHE: _act_clear_cache,
    ContainmentAction.CUT_SUBSCRIPTIONS: _act_cut,
    ContainmentAction.RESTORE_SUBSCRIPTIONS: _act_give_back,
    ContainmentAction.KICK: _act_kick,
    ContainmentAction.CLEAR_RETAINED: _act_clear_retained,
}
LOOK_CALLS: Final[Mapping[ContainmentCheck, RequestDescriber]] = {
    ContainmentCheck.SOURCE: lambda _client_id, _intent: ((requests.read_sources(), ""),),
    ContainmentCheck.SUPERUSER: _look_superuser,
    ContainmentCheck.RESTRICTED: _look_rules,
    ContainmentCheck.RESTORED: _look_rules,
    ContainmentCheck.QUIET: _look_quiet,
    ContainmentCheck.OUT: _look_out,
    ContainmentCheck.UNBANNED: lambda client_id, _intent: ((requests.read_ban("clientid", client_id), ""),),
    ContainmentCheck.NO_RETAINED: lambda _client_id, _intent: ((requests.list_retained(), "page by page"),),
}
