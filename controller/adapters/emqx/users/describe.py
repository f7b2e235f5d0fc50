"""The plan of a user's containment as the calls it will make."""

from collections.abc import Mapping
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.http import ApiRequest
from controller.adapters.emqx.containment.describe import (
    OURS,
    OUTDATED,
    UNLESS_RESTRICTED,
    ConditionalRequest,
    RequestDescriber,
    ban_wish,
    shown_plan,
)
from controller.adapters.emqx.users.actions import USER, USER_RESTRICTION
from controller.domain.containment.plan import ContainmentAction, ContainmentCheck, SubjectKind, plan_for
from controller.ports.broker import PlannedStage, PlanParameters

_EACH: Final = "for each session"
_CLIENT: Final = "/clients/<client id>"


def described_user(username: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
    """The plan of this intent for a user.

    Raises:
        BrokerRefusedError: not a user name that Cordon acts on.
    """
    plan = plan_for(intent.goal, of=SubjectKind.USER)
    return shown_plan(plan, username, intent, ACT_CALLS, LOOK_CALLS, through_one=USER.through_one)


def _ban(username: str, intent: PlanParameters) -> ApiRequest:
    wish = ban_wish(intent.case, intent.reason, intent.until)
    return requests.add_ban("username", username, by=wish.by, reason=wish.reason, until=wish.until)


def _renew_ban(username: str, intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.lift_ban("username", username), OUTDATED), (_ban(username, intent), OUTDATED))


def _lift_ban(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.read_ban("username", username), ""), (requests.lift_ban("username", username), OURS))


def _restrict(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    write = requests.write_rules("users", username, USER_RESTRICTION)
    return ((requests.read_rules("users", username), ""), (write, UNLESS_RESTRICTED))


def _restore_rules(username: str, intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    back = (
        requests.write_rules("users", username, intent.kept)
        if intent.kept
        else requests.delete_rules("users", username)
    )
    return ((requests.read_rules("users", username), ""), (back, "where its rules still are the restriction's"))


def _kick(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    every = requests.kick_many(["<each client id of the user>"])
    return ((requests.list_sessions(username), "page by page"), (every, "where it has sessions"))


def _clear_cache(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    clear = ApiRequest("DELETE", f"{_CLIENT}/authorization/cache", "clear cache")
    return ((requests.list_sessions(username), "page by page"), (clear, _EACH))


def _cut(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    held = ApiRequest("GET", f"{_CLIENT}/subscriptions", "read subscriptions")
    cut = ApiRequest("POST", f"{_CLIENT}/unsubscribe/bulk", "cut", body=[{"topic": "<each topic outside its branch>"}])
    outside = f"{_EACH} that holds any outside its branch"
    return ((requests.list_sessions(username), "page by page"), (held, _EACH), (cut, outside))


def _quiet(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    held = ApiRequest("GET", f"{_CLIENT}/subscriptions", "read subscriptions")
    remembered = ApiRequest("GET", f"{_CLIENT}/authorization/cache", "read cache")
    own = ApiRequest("GET", f"{requests.RULES}/clients/<client id>", "read rules")
    return ((requests.list_sessions(username), "page by page"), (held, _EACH), (remembered, _EACH), (own, _EACH))


def _superuser(_username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    user = ApiRequest("GET", "/authentication/<built-in database>/users/<user>", "read user")
    return ((requests.read_authenticators(), ""), (user, "where the built-in database names users"))


def _rules(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.read_rules("users", username), ""),)


def _out(username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ((requests.read_ban("username", username), ""), (requests.list_sessions(username), "page by page"))


def _nothing(_username: str, _intent: PlanParameters) -> tuple[ConditionalRequest, ...]:
    return ()


ACT_CALLS: Final[Mapping[ContainmentAction, RequestDescriber]] = {
    ContainmentAction.BAN: lambda username, intent: ((_ban(username, intent), ""),),
    ContainmentAction.RENEW_BAN: _renew_ban,
    ContainmentAction.LIFT_BAN: _lift_ban,
    ContainmentAction.WRITE_RESTRICTION: _restrict,
    ContainmentAction.RESTORE_RESTRICTION: _restrict,
    ContainmentAction.RESTORE_RULES: _restore_rules,
    ContainmentAction.CLEAR_CACHE: _clear_cache,
    ContainmentAction.CUT_SUBSCRIPTIONS: _cut,
    ContainmentAction.RESTORE_SUBSCRIPTIONS: _nothing,
    ContainmentAction.KICK: _kick,
    ContainmentAction.CLEAR_RETAINED: _nothing,
}
LOOK_CALLS: Final[Mapping[ContainmentCheck, RequestDescriber]] = {
    ContainmentCheck.SOURCE: lambda _username, _intent: ((requests.read_sources(), ""),),
    ContainmentCheck.SUPERUSER: _superuser,
    ContainmentCheck.RESTRICTED: _rules,
    ContainmentCheck.RESTORED: _rules,
    ContainmentCheck.QUIET: _quiet,
    ContainmentCheck.OUT: _out,
    ContainmentCheck.UNBANNED: lambda username, _intent: ((requests.read_ban("username", username), ""),),
    ContainmentCheck.NO_RETAINED: _nothing,
}
