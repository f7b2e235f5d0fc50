"""The plan of a user's containment as the calls it will make."""

from collections.abc import Mapping
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.http import Call
from controller.adapters.emqx.containment.describe import (
    OURS,
    OUTDATED,
    UNLESS_RESTRICTED,
    Describe,
    Wanted,
    ban_wish,
    shown_plan,
)
from controller.adapters.emqx.users.actions import USER, USER_RESTRICTION
from controller.domain.containment.plan import Act, IdentityKind, Look, plan_for
from controller.ports.broker import Intent, PlannedStage

_EACH: Final = "for each session"
_CLIENT: Final = "/clients/<client id>"


def described_user(username: str, intent: Intent) -> tuple[PlannedStage, ...]:
    """The plan of this intent for a user.

    Raises:
        BrokerRefusedError: not a user name that Cordon acts on.
    """
    plan = plan_for(intent.goal, of=IdentityKind.USER)
    return shown_plan(plan, username, intent, ACT_CALLS, LOOK_CALLS, through_one=USER.through_one)


def _ban(username: str, intent: Intent) -> Call:
    wish = ban_wish(intent.case, intent.reason, intent.until)
    return requests.add_ban("username", username, by=wish.by, reason=wish.reason, until=wish.until)


def _renew_ban(username: str, intent: Intent) -> tuple[Wanted, ...]:
    return ((requests.lift_ban("username", username), OUTDATED), (_ban(username, intent), OUTDATED))


def _lift_ban(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((requests.read_ban("username", username), ""), (requests.lift_ban("username", username), OURS))


def _restrict(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    write = requests.write_rules("users", username, USER_RESTRICTION)
    return ((requests.read_rules("users", username), ""), (write, UNLESS_RESTRICTED))


def _restore_rules(username: str, intent: Intent) -> tuple[Wanted, ...]:
    back = (
        requests.write_rules("users", username, intent.kept)
        if intent.kept
        else requests.delete_rules("users", username)
    )
    return ((requests.read_rules("users", username), ""), (back, "where its rules still are the restriction's"))


def _kick(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    every = requests.kick_many(["<each client id of the user>"])
    return ((requests.list_sessions(username), "page by page"), (every, "where it has sessions"))


def _clear_cache(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    clear = Call("DELETE", f"{_CLIENT}/authorization/cache", "clear cache")
    return ((requests.list_sessions(username), "page by page"), (clear, _EACH))


def _cut(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    held = Call("GET", f"{_CLIENT}/subscriptions", "read subscriptions")
    cut = Call("POST", f"{_CLIENT}/unsubscribe/bulk", "cut", body=[{"topic": "<each topic outside its branch>"}])
    outside = f"{_EACH} that holds any outside its branch"
    return ((requests.list_sessions(username), "page by page"), (held, _EACH), (cut, outside))


def _quiet(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    held = Call("GET", f"{_CLIENT}/subscriptions", "read subscriptions")
    remembered = Call("GET", f"{_CLIENT}/authorization/cache", "read cache")
    own = Call("GET", f"{requests.RULES}/clients/<client id>", "read rules")
    return ((requests.list_sessions(username), "page by page"), (held, _EACH), (remembered, _EACH), (own, _EACH))


def _superuser(_username: str, _intent: Intent) -> tuple[Wanted, ...]:
    user = Call("GET", "/authentication/<built-in database>/users/<user>", "read user")
    return ((requests.read_authenticators(), ""), (user, "where the built-in database names users"))


def _rules(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((requests.read_rules("users", username), ""),)


def _out(username: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ((requests.read_ban("username", username), ""), (requests.list_sessions(username), "page by page"))


def _nothing(_username: str, _intent: Intent) -> tuple[Wanted, ...]:
    return ()


ACT_CALLS: Final[Mapping[Act, Describe]] = {
    Act.BAN: lambda username, intent: ((_ban(username, intent), ""),),
    Act.RENEW_BAN: _renew_ban,
    Act.LIFT_BAN: _lift_ban,
    Act.WRITE_RESTRICTION: _restrict,
    Act.RESTORE_RESTRICTION: _restrict,
    Act.RESTORE_RULES: _restore_rules,
    Act.CLEAR_CACHE: _clear_cache,
    Act.CUT_SUBSCRIPTIONS: _cut,
    Act.RESTORE_SUBSCRIPTIONS: _nothing,
    Act.KICK: _kick,
    Act.CLEAR_RETAINED: _nothing,
}
LOOK_CALLS: Final[Mapping[Look, Describe]] = {
    Look.SOURCE: lambda _username, _intent: ((requests.read_sources(), ""),),
    Look.SUPERUSER: _superuser,
    Look.RESTRICTED: _rules,
    Look.RESTORED: _rules,
    Look.QUIET: _quiet,
    Look.OUT: _out,
    Look.UNBANNED: lambda username, _intent: ((requests.read_ban("username", username), ""),),
    Look.NO_RETAINED: _nothing,
}
