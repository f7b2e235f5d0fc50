"""What controllers on one PostgreSQL allot, use up, revoke and put in force: each sees what the other one did."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.postgres.policy_sets import PostgresPolicySets
from controller.adapters.postgres.store import open_store
from controller.adapters.revocation_marks import RevocationMarkFile
from controller.adapters.sql.certificates import SqlCertificateRegistry
from controller.adapters.sql.controllers import SqlControllerBook, presence_pages
from controller.adapters.sql.shared_revocations import SqlSharedRevocations
from controller.adapters.sql.store import SqlStore
from controller.domain.device import Device
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.domain.identity.enrolment import EnrolmentToken
from controller.ports.controllers import ControllerRecord
from controller.ports.errors import ConflictError
from controller.ports.policies import StoredPolicySet
from controller.ports.store import StoreWrites
from controller.service.identity.crl_publisher import CrlPublisher
from controller.service.identity.following import RevocationFollower
from tests.support.clocks import ManualClock
from tests.support.fleet_devices import stored_devices
from tests.support.identity import make_authority
from tests.support.postgres import SERVERS, address_of
from tests.support.store import QUICK, Logged

pytestmark = pytest.mark.postgres
NOW = 1_800_000_000.0
TOKEN = EnrolmentToken("t1", "aa", 1, NOW, NOW + 10, "operator:ada", device_class="sensor")
ROUNDS = 20  # of what two do at the same moment


def certificate(number: int, name: str = "d1", origin: str = "token:t1") -> Certificate:
    kind, text = CertificateKind.CLIENT, f"{number:x}"
    return Certificate(
        text, "b2", kind, name, NOW, NOW + 10 * 86_400, NOW + number, origin, f"key{number}", f"pem{number}"
    )


@dataclass(frozen=True, slots=True)
class Two:
    """Two controllers' stores in one database."""

    first: SqlStore
    second: SqlStore

    @property
    def registries(self) -> tuple[SqlCertificateRegistry, SqlCertificateRegistry]:
        return SqlCertificateRegistry(self.first), SqlCertificateRegistry(self.second)


@pytest.fixture(params=SERVERS)
async def two(request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    server = request.getfixturevalue("postgres_servers")[request.param]
    address = address_of(server.url(server.new_database()))
    async with contextlib.AsyncExitStack() as stack:
        stores = []
        for name in ("a", "b"):
            store = await open_store(address, name=name, now=lambda: NOW, log=Logged(), options=QUICK)
            stack.push_async_callback(store.close)
            stores.append(store)
        yield Two(*stores)


async def test_the_last_use_of_a_token_is_given_once(two: Two) -> None:
    one, other = two.registries
    for number in range(ROUNDS):
        digest = f"digest{number}"
        await one.add_token(replace(TOKEN, token_id=f"t{number}", digest=digest), 100)
        found = await asyncio.gather(
            one.admit(digest, certificate(2 * number + 1, f"d{number}a"), NOW, is_known=False),
            other.admit(digest, certificate(2 * number + 2, f"d{number}b"), NOW, is_known=False),
        )
        assert sorted(answer.code for answer in found) == ["", "token_refused"]
        left = await other.token(digest)
        assert left is not None
        assert left.uses_left == 0


async def test_one_key_gets_a_certificate_of_one_name(two: Two) -> None:
    one, other = two.registries
    await one.add_token(replace(TOKEN, uses_left=100), 100)
    for number in range(ROUNDS):
        made = [replace(certificate(2 * number + n, f"d{number}-{n}"), key=f"key{number}") for n in (0, 1)]
        found = await asyncio.gather(
            one.admit(TOKEN.digest, made[0], NOW, is_known=False),
            other.admit(TOKEN.digest, made[1], NOW, is_known=False),
        )
        assert sorted(answer.code for answer in found) == ["", "key_used"]


async def test_a_renewal_asked_of_both_is_given_once(two: Two) -> None:
    one, other = two.registries
    for number in range(ROUNDS):
        held = certificate(100 * number + 1, f"d{number}")
        await one.add(held)
        made = (certificate(100 * number + n, f"d{number}", f"renewal:{held.serial}") for n in (2, 3))
        fresh = [replace(each, key=f"new{number}") for each in made]
        answers = await asyncio.gather(one.renew(fresh[0], held.serial), other.renew(fresh[1], held.serial))
        assert isinstance(answers[0], Certificate)
        assert answers[0] == answers[1]


async def test_no_renewal_slips_past_a_revocation(two: Two) -> None:
    one, other = two.registries
    for number in range(ROUNDS):
        held = certificate(100 * number + 1, f"d{number}")
        await one.add(held)
        fresh = certificate(100 * number + 2, f"d{number}", f"renewal:{held.serial}")
        await asyncio.gather(one.revoke_of(f"d{number}", NOW + 5000, "unspecified"), other.renew(fresh, held.serial))
        assert [each for each in await one.of(f"d{number}") if each.is_valid(NOW + 5000)] == []


async def test_numbers_of_lists_are_given_once_and_rise(two: Two) -> None:
    asked = [registry.next_crl_number("b2", 1) for _ in range(ROUNDS) for registry in two.registries]
    numbers = await asyncio.gather(*asked)
    assert sorted(numbers) == list(range(1, 2 * ROUNDS + 1))
    assert await two.registries[1].next_crl_number("b2", 1) == 2 * ROUNDS + 1


class Publishing:
    """What one controller has for its revocation lists."""

    def __init__(self, store: SqlStore, folder: Path, authority: Any) -> None:
        self.clock = ManualClock()
        self.changed: list[str] = []
        shared = SqlSharedRevocations(store)
        marks = RevocationMarkFile(folder, self.clock.now())
        registry = SqlCertificateRegistry(store)
        log = Logged()
        self.crls = CrlPublisher(authority, registry, marks, self.clock, 86_400.0, log, None, shared)
        self.follower = RevocationFollower(shared, self.crls, self.changed.append, self.clock, log)


async def test_the_list_that_one_publishes_is_served_by_all(two: Two, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "ca", ManualClock().now())
    leader = Publishing(two.first, tmp_path / "a.revocations", authority)
    other = Publishing(two.second, tmp_path / "b.revocations", authority)
    await other.follower.run_once()
    assert other.crls.published(authority.issuer) is None
    made = replace(certificate(1), issuer=authority.issuer)
    await two.registries[0].add(made)
    first = await leader.crls.publish()
    await other.follower.run_once()
    assert other.crls.published(authority.issuer) == first
    await two.registries[0].revoke([made.serial], leader.clock.now(), "unspecified")
    second = await leader.crls.publish()
    await other.follower.run_once()
    assert second != first
    assert other.crls.published(authority.issuer) == second
    assert other.changed == ["d1"], "its reports are refused by every controller from now on"
    await other.follower.run_once()
    assert other.changed == ["d1"]
    taken_over = await other.crls.publish()  # this one leads from now on
    await leader.follower.run_once()
    assert taken_over not in (first, second)
    assert leader.crls.published(authority.issuer) == taken_over


async def test_policies_in_force_are_replaced_by_one_at_a_time(two: Two) -> None:
    one, other = PostgresPolicySets(two.first), PostgresPolicySets(two.second)
    assert await other.present() == StoredPolicySet(0)
    wanted = StoredPolicySet(1, "v1", (("a.yaml", "policy: a"),), "ada", "a", NOW)
    found = await asyncio.gather(one.replace(wanted), other.replace(replace(wanted, version="v2", controller="b")))
    assert sorted(found) == [False, True]
    present = await one.present()
    assert (await other.present(), await other.epoch()) == (present, 1)
    assert present.version == ("v1" if found[0] else "v2")
    assert await two.first.accepted_policies() == present.version
    assert await other.replace(replace(wanted, epoch=2, version="v3"))
    assert await one.epoch() == 2


def decided(epoch: int, number: int) -> StoreWrites:
    """A new device, by the policies before `epoch`."""
    made = Device(f"d{epoch}-{number}", NOW, NOW)
    return StoreWrites(devices=(made,), versions={made.device_id: (0, number + 1)}, policy_epoch=epoch - 1)


async def test_nothing_that_was_decided_by_former_policies_is_stored(two: Two) -> None:
    sets = PostgresPolicySets(two.first)
    for epoch in range(1, ROUNDS + 1):
        under_way = [two.second.commit(decided(epoch, number)) for number in range(3)]
        await sets.replace(StoredPolicySet(epoch, f"v{epoch}", (), "ada", "a", NOW))
        late = await asyncio.gather(two.second.commit(decided(epoch, 3)), return_exceptions=True)
        assert isinstance(late[0], ConflictError)
        assert late[0].policies
        await asyncio.gather(*under_way, return_exceptions=True)
        assert f"d{epoch}-3" not in {one.device_id for one in await stored_devices(two.first)}


async def test_controllers_read_each_others_records(two: Two) -> None:
    one, other = SqlControllerBook(two.first), SqlControllerBook(two.second)
    records = [ControllerRecord(name, f"cordon-{name}", NOW, "cordon", {"commands": name}, "v1") for name in "ab"]
    await one.put(records[0], 0.0)
    await other.put(records[1], 0.0)
    assert await one.records() == records
    await other.put(records[1], NOW + 1)
    assert await one.records() == records[1:]


async def test_connections_are_paged_by_id(two: Two) -> None:
    known = [Device(f"d{number}", NOW, NOW, online=online) for number, online in enumerate((True, False, None))]
    await two.first.commit(StoreWrites(devices=tuple(known)))
    pages = presence_pages(two.second)
    assert await pages("", 2) == [("d0", True), ("d1", False)]
    assert await pages("d1", 2) == [("d2", None)]
