"""A plan as the calls it will make, for an operator's eyes: the same plan, and the same requests, that are carried out.

Pure: nothing is asked of EMQX. What only EMQX can tell stands in angle brackets.
"""

from collections.abc import Callable, Mapping
from typing import Final

from controller.adapters.emqx import calls
from controller.adapters.emqx.http import API, Call
from controller.adapters.emqx.restriction import restriction
from controller.adapters.emqx.scene import Wish
from controller.domain.containment_plan import Act, Look, plan_for
from controller.ports.broker import BAN_MARK, Intent, KeptSubscription, PlannedCall, PlannedStage
from schemas.base import MAX_NAME, clean_text

MAX_REASON: Final = MAX_NAME  # characters of a ban's reason
_EXISTS: Final = "where it has a session"
_UNLESS_RESTRICTED: Final = "unless its rules are the restriction's already"
_OUTDATED: Final = "where a ban of an earlier decision of Cordon's is there"
_OURS: Final = "where the ban is Cordon's"

# A call, and in which case it is made (empty: always).
Wanted = tuple[Call, str]


def ban_wish(case: str, reason: str, until: float | None) -> Wish:
    """The words of a ban, bounded, as every one of Cordon's carries them."""
    return Wish(by=clean_text(f"{BAN_MARK}{case}", MAX_NAME), reason=clean_text(reason, MAX_REASON), until=until)


def described(client_id: str, intent: Intent) -> tuple[PlannedStage, ...]:
    """The plan of this intent.

    Raises:
        BrokerRefusedError: not a client id that Cordon acts on.
    """
    plan = plan_for(intent.goal, kick=intent.kick, clear_retained=intent.clear_retained)
    return tuple(
        PlannedStage(
            acts=tuple((act.value, _shown(ACT_CALLS[act](client_id, intent), "one node")) for act in stage.do),
            looks=tuple((look.value, _shown(LOOK_CALLS[look](client_id, intent), _where(look))) for look in stage.see),
            repeated=tuple(act.value for act in stage.again),
            gated=stage.gated,
        )
        for stage in plan.stages
    )


def _where(look: Look) -> str:
    return "each node" if look.is_everywhere else "one node"


def _shown(wanted: tuple[Wanted, ...], where: str) -> tuple[PlannedCall, ...]:
    return tuple(PlannedCall(call.method, _path(call), call.body, where, only) for call, only in wanted)


def _path(call: Call) -> str:
    query = "&".join(f"{name}={value}" for name, value in (call.query or {}).items())
    return f"{API}{call.path}" + (f"?{query}" if query else "")


def _ban(client_id: str, intent: Intent) -> Call:
    wish = ban_wish(intent.case, intent.reason, intent.until)
    return calls.add_ban("clientid", client_id, by=wish.by, reason=wish.reason, until=wish.until)


def _act_ban(client_id: str, intent: Intent) -> tuple[Wanted, ...]:
    return ((_ban(client_id, intent), ""),)


def _act_renew_ban(client_id: str, intent: Intent) -> tuple[Wanted, ...]:
    return ((calls.lift_ban("clientid", client_id), _OUTDATED), (_ban(client_id, intent), _OUTDATED))


def _act_lift_ban(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((calls.read_ban("clientid", client_id), ""), (calls.lift_ban("clientid", client_id), _OURS))


def _act_restrict(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    write = calls.write_rules("clients", client_id, restriction(client_id))
    return ((calls.read_rules("clients", client_id), ""), (write, _UNLESS_RESTRICTED))


def _act_restore_rules(client_id: str, intent: Intent) -> tuple[Wanted, ...]:
    if intent.kept:
        back = calls.write_rules("clients", client_id, intent.kept)
    else:
        back = calls.delete_rules("clients", client_id)
    return ((calls.read_rules("clients", client_id), ""), (back, "where its rules still are the restriction's"))


def _act_clear_cache(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((calls.clear_cache(client_id), ""),)


def _act_cut(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    held = "where it holds any outside its branch"
    cut = calls.unsubscribe(client_id, ["<each topic outside its branch>"])
    return ((calls.read_subscriptions(client_id), ""), (calls.read_client(client_id), held), (cut, held))


def _act_give_back(client_id: str, intent: Intent) -> tuple[Wanted, ...]:
    kept = intent.subscriptions or (KeptSubscription("<each topic that was cut>"),)
    same = "where the session is the one they were cut from"
    return (
        (calls.read_client(client_id), "where any were cut"),
        (calls.read_subscriptions(client_id), same),
        (calls.subscribe(client_id, kept), same),
    )


def _act_kick(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((calls.read_client(client_id), ""), (calls.kick(client_id), ""))


def _act_clear_retained(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    each = Call("DELETE", f"{calls.RETAINED}/message/<topic>", "delete retained message")
    return ((calls.list_retained(), "page by page"), (each, f"for each message that {client_id} published"))


def _look_superuser(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    user = Call("GET", "/authentication/<built-in database>/users/<its user>", "read user")
    return ((calls.read_client(client_id), ""), (calls.read_authenticators(), _EXISTS), (user, _EXISTS))


def _look_rules(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((calls.read_rules("clients", client_id), ""),)


def _look_quiet(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((calls.read_subscriptions(client_id), ""), (calls.read_cache(client_id), ""))


def _look_out(client_id: str, _intent: Intent) -> tuple[Wanted, ...]:
    waits = "where a session waits without a connection"
    return (
        (calls.read_ban("clientid", client_id), ""),
        (calls.read_client(client_id), ""),
        (calls.read_subscriptions(client_id), waits),
    )


Describe = Callable[[str, Intent], tuple[Wanted, ...]]
ACT_CALLS: Final[Mapping[Act, Describe]] = {
    Act.BAN: _act_ban,
    Act.RENEW_BAN: _act_renew_ban,
    Act.LIFT_BAN: _act_lift_ban,
    Act.WRITE_RESTRICTION: _act_restrict,
    Act.RESTORE_RESTRICTION: _act_restrict,
    Act.RESTORE_RULES: _act_restore_rules,
    Act.CLEAR_CACHE: _act_clear_cache,
    Act.CUT_SUBSCRIPTIONS: _act_cut,
    Act.RESTORE_SUBSCRIPTIONS: _act_give_back,
    Act.KICK: _act_kick,
    Act.CLEAR_RETAINED: _act_clear_retained,
}
LOOK_CALLS: Final[Mapping[Look, Describe]] = {
    Look.SOURCE: lambda _client_id, _intent: ((calls.read_sources(), ""),),
    Look.SUPERUSER: _look_superuser,
    Look.RESTRICTED: _look_rules,
    Look.RESTORED: _look_rules,
    Look.QUIET: _look_quiet,
    Look.OUT: _look_out,
    Look.UNBANNED: lambda client_id, _intent: ((calls.read_ban("clientid", client_id), ""),),
    Look.NO_RETAINED: lambda _client_id, _intent: ((calls.list_retained(), "page by page"),),
}
