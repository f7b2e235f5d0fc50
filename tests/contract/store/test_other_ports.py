"""The other ports in the same database: rollouts, access rules, setup of the broker, keys, users, guards, accounts."""

from dataclasses import replace

import pytest

from controller.adapters.sql.access import SqlAccessStore
from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.broker_setup import SqlSetupStore
from controller.adapters.sql.factors import SqlFactors
from controller.adapters.sql.report_keys import SqlReportKeys
from controller.adapters.sql.rollouts import SqlRolloutStore
from controller.adapters.sql.store import SqlStore
from controller.domain.accounts.account import Account, AccountRefusal
from controller.domain.accounts.factors import Passkey, Totp
from controller.domain.accounts.session import Session
from controller.domain.audit_kinds import AuditKind
from controller.domain.broker.access import AccessGrant, TopicRule
from controller.domain.effects import AuditEntry
from controller.ports.access import StoredTemplates, WrittenRules
from controller.ports.broker import SavedSubscription
from controller.ports.broker_setup import SavedSetup
from controller.ports.errors import UnknownRowError
from controller.ports.store import ApiToken, StoredKnowledge, StoreWrites, TokenChange
from tests.contract.store.conftest import StorePlace
from tests.support.rollout_members import rollout_with
from tests.support.store import NOW

RULE = TopicRule("allow", "publish", "a/#", (0, 1))


async def test_access_rules_are_what_was_written_last_or_is_being_written(store: SqlStore) -> None:
    access = SqlAccessStore(store)
    assert await access.templates() is None
    for at in (1.0, 2.0):
        await access.put_templates(StoredTemplates(f"text {at}", at, "ada"))
    assert await access.templates() == StoredTemplates("text 2.0", 2.0, "ada")
    await access.drop_templates()
    assert await access.templates() is None
    await access.begin({"a": WrittenRules((RULE,)), "b": WrittenRules((RULE,), previous=())})
    await access.done(["a"])
    assert await access.written() == {"a": WrittenRules((RULE,)), "b": WrittenRules((RULE,), (), done=False)}
    await access.forget(["a", "nobody"])
    assert set(await access.written()) == {"b"}


async def test_grants_are_listed_newest_first_and_end_once(store: SqlStore) -> None:
    access = SqlAccessStore(store)
    grants = [AccessGrant(f"g{n}", f"d{n % 2}", "publish", "a/#", "why", "ada", NOW, NOW + n) for n in range(4)]
    for grant in grants:
        await access.put_grant(grant)
    await access.end_grants(["g1"], 5.0)
    await access.end_grants(["g1", "g2"], 6.0)
    assert [(one.grant.grant_id, one.ended_at) for one in await access.grants()] == [
        ("g3", None),
        ("g2", 6.0),
        ("g1", 5.0),
        ("g0", None),
    ]
    assert [one.grant for one in await access.grants(device_id="d1", limit=1)] == [grants[3]]
    assert sorted(one.grant_id for one in await access.open_grants()) == ["g0", "g3"]


async def test_the_first_settings_of_the_broker_stay_and_what_was_changed_adds_up(store: SqlStore) -> None:
    setup = SqlSetupStore(store)
    assert await setup.kept() is None
    await setup.keep(SavedSetup(1.0, "before", False, True))
    await setup.keep(SavedSetup(2.0, "later", True, False))
    assert await setup.kept() == SavedSetup(1.0, "before", True, True)
    await setup.begin_undo()
    found = await setup.kept()
    assert found is not None
    assert found.undoing
    await setup.forget()
    assert await setup.kept() is None


async def test_a_registered_key_is_replaced_and_forgotten(store: SqlStore) -> None:
    keys = SqlReportKeys(store, None)
    await keys.register("d", b"\0one", 1.0)
    await keys.register("d", b"\0two", 2.0)
    assert await keys.registered("d") == b"\0two"
    assert await keys.certified("d", NOW) is None
    assert await keys.forget("d")
    assert not await keys.forget("d")
    assert await keys.registered("d") is None


async def test_rollouts_keep_their_devices_and_are_paged(store: SqlStore) -> None:
    rollouts = SqlRolloutStore(store)
    assert await rollouts.next_number() == 1
    rollout, members = rollout_with(2, 3)
    made = [(replace(rollout, rollout_id=f"r-{number:04d}"), members) for number in range(1, 4)]
    for rollout, members in made:
        await rollouts.create(rollout, members, StoreWrites(done=("nothing",)))
    assert await rollouts.next_number() == 4
    first, members = made[0]
    assert await rollouts.rollout("r-0001") == first
    assert await rollouts.members("r-0001") == members
    assert await rollouts.members("r-0001", limit=2, offset=1) == members[1:3]
    after = members[2].device_id
    assert await rollouts.members("r-0001", after=after) == members[3:]
    assert [one.rollout_id for one in await rollouts.rollouts(limit=2)] == ["r-0003", "r-0002"]
    assert [one.rollout_id for one in await rollouts.rollouts(limit=5, after="r-0002", is_open=True)] == ["r-0001"]
    assert [one.rollout_id for one in await rollouts.unfinished_rollouts(limit=9)] == ["r-0003", "r-0002", "r-0001"]
    with pytest.raises(UnknownRowError):
        await rollouts.members("r-0001", after="nobody")
    with pytest.raises(UnknownRowError):
        await rollouts.rollouts(limit=1, after="r-9999")


async def test_subscriptions_and_knowledge_are_what_was_kept_last(store: SqlStore) -> None:
    for qos in (0, 1):
        await store.keep_subscriptions("d", "c", [SavedSubscription("t", qos, client="x")], 1.0)
    assert await store.kept_subscriptions("d", "c") == (SavedSubscription("t", 1, client="x"),)
    await store.forget_rules("d", "c")
    assert await store.kept_subscriptions("d", "c") == ()
    known = StoredKnowledge("text \0", 0, "key", "ada", 1.0)
    await store.commit(StoreWrites(knowledge=known))
    assert await store.knowledge() == known


async def test_what_the_record_holds_of_each_device_is_counted(store: SqlStore) -> None:
    entries = [AuditEntry(AuditKind.DEVICE_ONLINE, "d", "t", detail={"ä": n}) for n in range(3)]
    await store.commit(StoreWrites(audit=tuple((float(n), entry) for n, entry in enumerate(entries))))
    (use,) = await store.record_use(1.0)
    assert (use.device_id, use.rows) == ("d", 2)
    assert use.size == (await store.record_use(1.0))[0].size > 2 * len('{"ä":1}'.encode())


async def test_names_of_accounts_are_given_once_and_factors_are_used_once(place: StorePlace) -> None:
    async with place.opened() as store:
        accounts, factors = SqlAccounts(store), SqlFactors(store)
        ada = Account("a1", "Ada", "admin", NOW)
        assert await accounts.add_account(ada, StoreWrites()) == ada
        assert (
            await accounts.add_account(Account("a2", "aDA", "viewer", NOW), StoreWrites()) is AccountRefusal.NAME_USED
        )
        assert await accounts.account_named("ADA") == ada
        assert await accounts.account_named("Ada\x00") is None
        session = Session("s" * 64, "a1", NOW, NOW, 0.0, "", "192.0.2.1", "browser")
        assert await accounts.add_session(session, StoreWrites())
        there = await accounts.session(session.digest)
        assert there is not None
        assert (there[0], there[1].account_id) == (session, "a1")
        assert await factors.add_passkey(Passkey("a1", b"\1", b"\2", 1, "key", NOW, NOW), StoreWrites())
        assert not await factors.use_passkey(b"\1", 1, NOW)
        assert await factors.use_passkey(b"\1", 2, NOW)
        await factors.put_totp(Totp("a1", "sealed", NOW, 4), StoreWrites())
        assert (await factors.use_totp("a1", 5), await factors.use_totp("a1", 5)) == (True, False)
        await factors.put_recovery_codes("a1", ["x", "y"], StoreWrites())
        assert await factors.use_recovery_code("a1", "x", StoreWrites())
        assert not await factors.use_recovery_code("a1", "x", StoreWrites())
        token = ApiToken("ops", "b" * 64, 2.0, owner="a1")
        assert await store.add_token(token, 9, StoreWrites()) is TokenChange.DONE
        assert await store.add_token(token, 9, StoreWrites()) is TokenChange.EXISTS
        revoked = AuditEntry(AuditKind.TOKEN_REVOKED, "", "ada", detail={"name": "ops"})
        assert await store.revoke_token(token, StoreWrites(audit=((1.0, revoked),))) is TokenChange.DONE
    async with place.opened() as store:
        # The audit names it: nobody gets the name again.
        assert await store.add_token(token, 9, StoreWrites()) is TokenChange.USED
        (found,) = await SqlAccounts(store).overviews()
        assert (found.account.name, found.sessions, found.tokens, found.factors.recovery_codes) == (
            "Ada",
            1,
            0,
            1,
        )
