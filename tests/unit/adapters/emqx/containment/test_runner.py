"""Events between the calls of a plan: late tables, refilled caches, lost answers."""

from typing import Any

import httpx
import pytest

from controller.adapters.emqx.client.requests import SUBSCRIPTIONS_AT_ONCE
from controller.adapters.emqx.containment.verification import WAITS_SECONDS
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import AccessRule, AccessRules, restriction
from controller.ports.errors import BrokerError, BrokerRefusedError, BrokerUnreachableError
from schemas.topics import DownChannel, down
from tests.support.emqx_calls import ban_of, rules_of
from tests.support.scripted_emqx import BASES, ScriptedEmqx, error

DEVICE = Subject.client("dev")


class RuleStore:
    """Saves rules, or fails to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.saved: list[AccessRules] = []
        self._failure = failure

    async def __call__(self, rules: AccessRules) -> None:
        if self._failure is not None:
            raise self._failure
        self.saved.append(rules)


def allowed(topic: str, kind: str = "publish") -> dict[str, Any]:
    return {"access": {"action_type": kind, "qos": 1}, "result": "allow", "topic": topic}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> ScriptedEmqx:
    """With the usual number of checks, and next to no time between them."""
    monkeypatch.setattr(
        "controller.adapters.emqx.containment.verification.WAITS_SECONDS", (0.001,) * len(WAITS_SECONDS)
    )
    return ScriptedEmqx()


async def test_the_read_back_waits_for_rules_that_reach_a_node_late(cluster: ScriptedEmqx) -> None:
    cluster.before.append(lambda base, method, path: _set_lag(cluster, method, path))
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert proof.holds, proof.missing
    reads = [step for step in proof.steps if step.what == "rules read back" and step.node == BASES[2]]
    assert [step.answer == "as wanted" for step in reads] == [False, False, True]


def _set_lag(cluster: ScriptedEmqx, method: str, path: str) -> None:
    if method == "PUT" and "/rules/clients/" in path:
        cluster.lag[BASES[2]] = 2


async def test_a_refilled_cache_is_cleared_again(cluster: ScriptedEmqx) -> None:
    cluster.cache = [allowed("fleet/telemetry")]
    refills = iter([[allowed("fleet/telemetry")], [allowed("fleet/news", "subscribe")]])

    def refill(_base: str, method: str, path: str) -> httpx.Response | None:
        if method == "DELETE" and path.endswith("/cache"):
            cluster.cache = next(refills, [])
            return httpx.Response(204)
        return None

    cluster.before.append(refill)
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert proof.holds, proof.missing
    assert cluster.made("DELETE /clients/dev/authorization/cache") == 3
    assert cluster.cache == []


async def test_a_cache_that_stays_wrong_is_no_proof(cluster: ScriptedEmqx) -> None:
    def stubborn(_base: str, method: str, path: str) -> httpx.Response | None:
        if path.endswith("/authorization/cache"):
            return httpx.Response(204) if method == "DELETE" else httpx.Response(200, json=[allowed("fleet/x")])
        return None

    cluster.before.append(stubborn)
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert not proof.holds
    assert "its cache allows topics outside its branch" in proof.missing
    assert proof.cut_at > 0


async def test_cached_permissions_in_the_branch_may_stay(cluster: ScriptedEmqx) -> None:
    def own(_base: str, method: str, path: str) -> httpx.Response | None:
        if method == "DELETE" and path.endswith("/cache"):
            cluster.cache = [allowed("cordon/v1/dev/up/posture"), allowed("cordon/v1/dev/down/#", "subscribe")]
            return httpx.Response(204)
        return None

    cluster.before.append(own)
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert proof.holds, proof.missing
    assert cluster.made("DELETE /clients/dev/authorization/cache") == 1


async def test_a_subscription_made_meanwhile_is_cut_by_the_next_restriction(cluster: ScriptedEmqx) -> None:
    own = down("dev", DownChannel.COMMAND)
    cluster.subscriptions = ["fleet/#", "$share/g/fleet/work", own, "$share/g/" + own]
    slipped = iter(["fleet/late"])

    def slip(_base: str, method: str, path: str) -> None:
        if method == "GET" and path.endswith("/cache"):
            cluster.subscriptions += list(slipped)

    cluster.before.append(slip)
    broker = cluster.broker()
    assert (await broker.restrict(DEVICE, RuleStore())).holds
    # It was made after the check of the subscriptions: the next restriction, or the reconciler, finds it.
    assert (await broker.restrict(DEVICE, RuleStore())).holds
    assert cluster.subscriptions == [own, "$share/g/" + own]


async def test_many_subscriptions_are_cut_in_portions(cluster: ScriptedEmqx) -> None:
    cluster.subscriptions = [f"fleet/{number}" for number in range(2 * SUBSCRIPTIONS_AT_ONCE + 1)]
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert proof.holds, proof.missing
    assert cluster.made("POST /clients/dev/unsubscribe/bulk") == 3
    assert cluster.subscriptions == []


async def test_a_failing_store_stops_a_restriction_before_any_rule_is_written(cluster: ScriptedEmqx) -> None:
    cluster.rules[BASES[0]]["dev"] = [{"topic": "a", "permission": "allow", "action": "all"}]
    with pytest.raises(OSError, match="full"):
        await cluster.broker().restrict(DEVICE, RuleStore(OSError("full")))
    assert cluster.made("PUT") == 0


async def test_a_failing_store_leaves_an_isolation_banned(cluster: ScriptedEmqx) -> None:
    with pytest.raises(OSError, match="full"):
        await cluster.broker().isolate(DEVICE, RuleStore(OSError("full")), case="c", reason="r", until=None)
    assert cluster.bans["dev"]["by"] == "cordon/c"
    assert cluster.made("PUT") == 0


async def test_a_ban_whose_answer_was_lost_is_recognised(cluster: ScriptedEmqx) -> None:
    cluster.session = "none"  # the ban that was made cut it
    lost = iter([True])

    def lose(base: str, method: str, path: str) -> httpx.Response | None:
        if method == "POST" and path == "/banned" and next(lost, False):
            cluster.bans["dev"] = {"as": "clientid", "who": "dev", "by": "cordon/c", "at": 5, "until": "infinity"}
            raise httpx.ReadTimeout("late")
        return None

    cluster.before.append(lose)
    proof = await cluster.broker().isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    assert proof.holds, proof.missing
    assert cluster.made("POST /banned") == 2
    assert proof.cut_at == 6


async def test_a_client_is_kicked_until_it_is_gone(cluster: ScriptedEmqx) -> None:
    back = iter(["connected", "connected"])

    def come_back(_base: str, method: str, path: str) -> httpx.Response | None:
        if method == "DELETE" and path == "/clients/dev":
            cluster.session = next(back, "none")
            return httpx.Response(204)
        return None

    cluster.before.append(come_back)
    proof = await cluster.broker().isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    assert proof.holds, proof.missing
    assert cluster.made("DELETE /clients/dev") == 3


async def test_a_session_that_waits_with_old_subscriptions_is_destroyed(cluster: ScriptedEmqx) -> None:
    cluster.session, cluster.subscriptions = "away", ["fleet/#"]
    proof = await cluster.broker().isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    assert proof.holds, proof.missing
    assert cluster.session == "none"


async def test_a_waiting_session_with_allowed_subscriptions_is_left(cluster: ScriptedEmqx) -> None:
    cluster.session, cluster.subscriptions = "away", [down("dev", DownChannel.COMMAND)]
    proof = await cluster.broker().isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    assert proof.holds, proof.missing
    assert cluster.session == "away"


@pytest.mark.parametrize(("case", "until"), [("new", 4e9), ("old", 4e9 + 600), ("old", None)])
async def test_a_ban_of_an_earlier_decision_is_replaced_under_the_rules(
    cluster: ScriptedEmqx, case: str, until: float | None
) -> None:
    await cluster.broker().isolate(DEVICE, RuleStore(), case="old", reason="r", until=4e9)
    before = len(cluster.calls)
    proof = await cluster.broker().isolate(DEVICE, RuleStore(), case=case, reason="r", until=until)
    assert proof.holds, proof.missing
    ban = await ban_of(cluster.broker().api, "dev")
    assert ban is not None
    assert (ban.by, ban.until, proof.ban_until) == (f"cordon/{case}", until, until)
    lifted = cluster.calls.index(("DELETE", "/banned/clientid/dev"), before)
    read_back = [call for call in cluster.calls[before:lifted] if "/rules/clients/dev" in call[1]]
    assert len(read_back) > len(BASES)


async def test_an_identical_ban_is_left(cluster: ScriptedEmqx) -> None:
    for until in (4e9, 4e9 + 0.4):
        proof = await cluster.broker().isolate(DEVICE, RuleStore(), case="c", reason="r", until=until)
        assert proof.holds, proof.missing
    assert cluster.made("DELETE /banned") == 0


async def test_a_ban_that_vanishes_is_no_proof(cluster: ScriptedEmqx) -> None:
    def vanish(_base: str, method: str, path: str) -> None:
        if method == "GET" and path == "/banned":
            cluster.bans.clear()

    cluster.before.append(vanish)
    proof = await cluster.broker().isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    assert not proof.holds
    assert "no ban in force" in proof.missing


async def test_an_error_after_the_ban_is_in_the_proof_with_the_cut(cluster: ScriptedEmqx) -> None:
    def refuse(_base: str, _method: str, path: str) -> httpx.Response | None:
        return error(403, "UNAUTHORIZED_ROLE") if path.startswith("/authorization") else None

    cluster.before.append(refuse)
    proof = await cluster.broker().isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    assert not proof.holds
    assert "access_control" in proof.missing
    assert proof.cut_at > 0
    with pytest.raises(BrokerRefusedError, match="access_control"):
        await cluster.broker().restrict(DEVICE, RuleStore())


async def test_a_source_in_front_of_the_database_is_no_proof(cluster: ScriptedEmqx) -> None:
    cluster.sources = [{"type": "file", "enable": True}, {"type": "built_in_database", "enable": True}]
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert not proof.holds
    assert "EMQX asks file before" in proof.missing


async def test_a_silent_node_makes_the_proof_partial_until_the_cluster_lists_it_as_stopped(
    cluster: ScriptedEmqx,
) -> None:
    broker = cluster.broker()
    await broker.cluster.read()
    cluster.silent.add(BASES[1])
    proof = await broker.restrict(DEVICE, RuleStore())
    assert proof.is_partial
    assert [one.node for one in proof.unread] == ["emqx@n2"]
    assert any(step.what == "node not read" and step.node == "emqx@n2" for step in proof.steps)

    cluster.stopped.add(BASES[1])
    await broker.cluster.read(fresh=True)
    proof = await broker.restrict(DEVICE, RuleStore())
    assert proof.holds, proof.trouble
    assert any(step.what == "node not running" and "emqx@n2" in step.answer for step in proof.steps)


async def test_a_key_that_may_not_read_the_cluster_cannot_prove_that_every_node_was_read(
    cluster: ScriptedEmqx,
) -> None:
    cluster.before.append(lambda _base, _method, path: error(403, "UNAUTHORIZED_ROLE") if path == "/cluster" else None)
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert proof.is_partial, proof.missing
    assert "which nodes run is not known" in proof.trouble
    assert "cluster_operations" in proof.trouble


async def test_a_silent_node_of_unknown_name_is_excused_if_all_running_nodes_answered(cluster: ScriptedEmqx) -> None:
    cluster.silent.add(BASES[1])
    assert not (await cluster.broker().restrict(DEVICE, RuleStore())).holds
    cluster.stopped.add(BASES[1])
    assert (await cluster.broker().restrict(DEVICE, RuleStore())).holds


async def test_all_nodes_fall_silent_in_the_middle(cluster: ScriptedEmqx) -> None:
    async def then_all_die(_rules: AccessRules) -> None:
        cluster.silent.update(BASES)

    with pytest.raises(BrokerUnreachableError) as caught:
        await cluster.broker().restrict(DEVICE, then_all_die)
    assert all(base in str(caught.value) for base in BASES)


async def test_limits_of_rules_of_newer_versions_survive_a_restriction(cluster: ScriptedEmqx) -> None:
    narrow = {"topic": "a", "permission": "allow", "action": "all", "zone": "inner", "ipaddr": "10.0.0.0/8"}
    for table in cluster.rules.values():
        table["dev"] = [narrow]
    store = RuleStore()
    broker = cluster.broker()
    assert (await broker.restrict(DEVICE, store)).holds
    saved = store.saved[0]
    assert saved == (AccessRule("a", "allow", "all", limits='{"ipaddr": "10.0.0.0/8", "zone": "inner"}'),)
    assert (await broker.release(DEVICE, saved)).holds
    assert cluster.rules[BASES[0]]["dev"] == [narrow]


async def test_end_of_isolation_writes_lost_rules_before_it_lifts_the_ban(cluster: ScriptedEmqx) -> None:
    broker = cluster.broker()
    await broker.isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    for table in cluster.rules.values():
        table.clear()
    cluster.calls.clear()
    assert (await broker.end_isolation(DEVICE, RuleStore())).holds
    writes = [call for call in cluster.calls if call[0] != "GET"]
    assert [method for method, _ in writes] == ["PUT", "DELETE"]
    assert await rules_of(broker.api, "dev") == restriction("dev")


async def test_end_of_an_isolation_that_was_never_carried_out_saves_the_clients_rules(cluster: ScriptedEmqx) -> None:
    own = {"topic": "fleet/#", "permission": "allow", "action": "all"}
    for table in cluster.rules.values():
        table["dev"] = [own]
    store, broker = RuleStore(), cluster.broker()
    assert (await broker.end_isolation(DEVICE, store)).holds
    assert store.saved == [(AccessRule("fleet/#", "allow", "all"),)]
    assert await rules_of(broker.api, "dev") == restriction("dev")
    assert (await broker.end_isolation(DEVICE, store)).holds
    assert len(store.saved) == 1, "the restriction's own rules are nobody's"


async def test_a_release_restores_the_rules_before_it_lifts_the_ban(cluster: ScriptedEmqx) -> None:
    broker = cluster.broker()
    await broker.isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    cluster.calls.clear()
    assert (await broker.release(DEVICE, ())).holds
    writes = [path for method, path in cluster.calls if method == "DELETE"]
    assert [path.split("/")[1] for path in writes] == ["authorization", "banned", "clients"]
    assert cluster.made("DELETE /clients/dev/authorization/cache") == 1
    assert cluster.bans == {}


async def test_a_release_that_cannot_write_keeps_the_ban(cluster: ScriptedEmqx) -> None:
    broker = cluster.broker()
    await broker.isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    cluster.before.append(
        lambda _base, method, path: error(500, "INTERNAL") if method == "DELETE" and "rules" in path else None
    )
    with pytest.raises(BrokerError):
        await broker.release(DEVICE, ())
    assert "dev" in cluster.bans


def _die_after(cluster: ScriptedEmqx, method: str, beginning: str) -> None:
    """Every node falls silent after such a call."""

    def knob(_base: str, made: str, path: str) -> None:
        if made == method and path.startswith(beginning):
            cluster.silent.update(BASES)

    cluster.before.append(knob)


async def test_an_interrupted_restriction_reports_what_was_done_and_what_is_missing(cluster: ScriptedEmqx) -> None:
    _die_after(cluster, "PUT", "/authorization")
    proof = await cluster.broker().restrict(DEVICE, RuleStore())
    assert not proof.holds
    assert all(base in proof.missing for base in BASES)
    assert any(step.what == "write rules" and step.answer == "204" for step in proof.steps)
    assert proof.cut_at == 0.0


@pytest.mark.parametrize("way", ["end_isolation", "release"])
async def test_an_interrupted_release_is_no_proof(cluster: ScriptedEmqx, way: str) -> None:
    broker = cluster.broker()
    await broker.isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    _die_after(cluster, "DELETE", "/banned")
    proof = await (broker.end_isolation(DEVICE, RuleStore()) if way == "end_isolation" else broker.release(DEVICE, ()))
    assert not proof.holds
    assert any(step.what == "lift ban" and step.answer == "204" for step in proof.steps)


@pytest.mark.parametrize("way", ["end_isolation", "release"])
async def test_a_ban_is_not_lifted_while_a_node_lacks_the_rules(cluster: ScriptedEmqx, way: str) -> None:
    broker = cluster.broker()
    await broker.isolate(DEVICE, RuleStore(), case="c", reason="r", until=None)
    saved = (AccessRule("a", "allow", "all"),)
    cluster.before.append(
        lambda base, method, path: error(404, "NOT_FOUND") if base == BASES[1] and "/rules/clients/" in path else None
    )
    proof = await (
        broker.end_isolation(DEVICE, RuleStore()) if way == "end_isolation" else broker.release(DEVICE, saved)
    )
    assert not proof.holds
    assert BASES[1] in proof.missing
    assert "dev" in cluster.bans
