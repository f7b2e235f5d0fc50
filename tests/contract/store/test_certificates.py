"""The registry on a real store: tokens used once, also by two at once; renewals given once; what survives a restart."""

import asyncio
from dataclasses import replace

import pytest

from controller.adapters.sql.certificates import SqlCertificateRegistry
from controller.adapters.sql.store import SqlStore
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.domain.identity.enrolment import EnrolmentToken
from controller.ports.certificates import CertificateConflictError
from controller.ports.errors import UnknownRowError
from tests.contract.store.conftest import StorePlace

NOW = 1_800_000_000.0
TOKEN = EnrolmentToken("t1", "aa", 1, NOW, NOW + 10, "operator:ada", device_class="sensor")


def certificate(number: int, name: str = "d1", origin: str = "token:t1") -> Certificate:
    text = f"{number:x}"
    return Certificate(
        text, "b2", CertificateKind.CLIENT, name, NOW, NOW + 100, NOW + number, origin, f"key{number}", f"pem{number}"
    )


@pytest.fixture
def registry(store: SqlStore) -> SqlCertificateRegistry:
    return SqlCertificateRegistry(store)


async def test_what_was_entered_is_found_again(place: StorePlace) -> None:
    one = certificate(1)
    async with place.opened() as store:
        await SqlCertificateRegistry(store).add(one)
        await SqlCertificateRegistry(store).add_token(TOKEN, 100)
    async with place.opened() as store:
        again = SqlCertificateRegistry(store)
        assert await again.find("1") == one
        assert await again.of("d1") == (one,)
        assert await again.tokens() == [TOKEN]
        assert await again.token("aa") == TOKEN
        assert await again.token("bb") is None


async def test_of_many_at_once_one_gets_the_last_use(registry: SqlCertificateRegistry) -> None:
    await registry.add_token(TOKEN, 100)
    asked = [registry.admit("aa", certificate(n, f"d{n}"), NOW, is_known=False) for n in range(1, 21)]
    answers = await asyncio.gather(*asked)
    won = [one for one in answers if one.certificate is not None]
    assert len(won) == 1
    assert {one.code for one in answers if one.certificate is None} == {"token_refused"}
    _, total = await registry.certificates()
    assert total == 1


async def test_of_two_devices_that_want_an_id_at_once_one_gets_it(registry: SqlCertificateRegistry) -> None:
    await registry.add_token(replace(TOKEN, uses_left=5), 100)
    answers = await asyncio.gather(*[registry.admit("aa", certificate(n), NOW, is_known=False) for n in (1, 2)])
    assert sorted(one.code for one in answers) == ["", "id_taken"]
    left = await registry.token("aa")
    assert left is not None
    assert left.uses_left == 4


async def test_an_answer_that_was_lost_is_given_again_for_the_same_key(registry: SqlCertificateRegistry) -> None:
    await registry.add_token(TOKEN, 100)
    first = await registry.admit("aa", certificate(1), NOW, is_known=False)
    again = await registry.admit("aa", replace(certificate(2), key="key1"), NOW, is_known=True)
    assert again.certificate == first.certificate == certificate(1)
    other = await registry.admit("aa", certificate(3), NOW, is_known=True)
    assert (other.certificate, other.code) == (None, "token_refused")


async def test_a_key_is_not_certified_again_by_another_token(registry: SqlCertificateRegistry) -> None:
    await registry.add_token(TOKEN, 100)
    await registry.add_token(replace(TOKEN, token_id="t2", digest="bb", device_id="d1", replaces=True), 100)
    await registry.admit("aa", certificate(1), NOW, is_known=False)
    answer = await registry.admit("bb", replace(certificate(2, origin="token:t2"), key="key1"), NOW, is_known=True)
    assert (answer.certificate, answer.code) == (None, "key_used")


async def test_a_renewal_is_given_once_however_often_it_is_asked_for(registry: SqlCertificateRegistry) -> None:
    await registry.add(certificate(1))
    fresh = certificate(2, origin="renewal:1")
    assert await registry.renew(fresh, "1") == fresh
    assert await registry.renew(replace(certificate(3, origin="renewal:1"), key="key2"), "1") == fresh
    assert len(await registry.of("d1")) == 2


async def test_revocation_is_marked_once(registry: SqlCertificateRegistry) -> None:
    await registry.add(certificate(1))
    await registry.add(certificate(2))
    done = await registry.revoke(["1", "ff"], NOW + 5, "key_compromise")
    assert [(one.serial, one.revoked_at, one.reason) for one in done] == [("1", NOW + 5, "key_compromise")]
    assert await registry.revoke(["1"], NOW + 9, "unspecified") == []
    assert [one.serial for one in await registry.revoked("b2", NOW)] == ["1"]
    assert await registry.revoked("b2", NOW + 1000) == []
    (standing,) = await registry.standings(NOW)
    assert (standing.name, standing.revoked_at, standing.newest, standing.is_revoked) == ("d1", NOW + 5, NOW + 2, True)
    await registry.add(certificate(6))
    (standing,) = await registry.standings(NOW)
    assert not standing.is_revoked


async def test_pages_and_what_holds(registry: SqlCertificateRegistry) -> None:
    for number in range(1, 6):
        await registry.add(certificate(number, f"d{number}"))
    await registry.revoke(["5"], NOW, "unspecified")
    found, total = await registry.certificates(limit=2, offset=1)
    assert ([one.serial for one in found], total) == (["4", "3"], 5)
    _, good = await registry.certificates(good_at=NOW)
    assert good == 4
    named, _ = await registry.certificates(name="d2")
    assert [one.serial for one in named] == ["2"]


async def test_pages_miss_nothing_while_certificates_come_and_end(registry: SqlCertificateRegistry) -> None:
    for number in range(1, 6):
        await registry.add(certificate(number, f"d{number}"))
    found, _ = await registry.certificates(good_at=NOW, limit=2)
    await registry.add(certificate(6, "d6"))
    await registry.revoke(["5"], NOW, "unspecified")
    rest, _ = await registry.certificates(good_at=NOW, after=found[-1].serial)
    assert [one.serial for one in (*found, *rest)] == ["5", "4", "3", "2", "1"]
    with pytest.raises(UnknownRowError, match="begin again"):
        await registry.certificates(after="ff")


async def test_the_record_is_told_once(registry: SqlCertificateRegistry) -> None:
    await registry.add(certificate(1))
    assert [one.serial for one in await registry.unrecorded(10)] == ["1"]
    await registry.mark_recorded(["1"])
    assert await registry.unrecorded(10) == []


async def test_the_last_certificate_of_a_name_is_never_forgotten(registry: SqlCertificateRegistry) -> None:
    for number in (1, 2):
        await registry.add(certificate(number))
    await registry.add_token(TOKEN, 100)
    assert await registry.prune(NOW + 1000) == 2
    assert [one.serial for one in await registry.of("d1")] == ["2"]
    assert await registry.tokens() == []


async def test_list_numbers_grow(registry: SqlCertificateRegistry) -> None:
    assert [await registry.next_crl_number("b2", at_least) for at_least in (1, 1, 7, 3)] == [1, 2, 7, 8]
    assert await registry.next_crl_number("c3", 1) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"serial": "2", "name": "d2"}, "its key is in a certificate of d1 already"),
        ({"key": "other"}, "another certificate has its serial number 1"),
        ({"issuer": "c3"}, "another certificate has its serial number 1"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_certificate_that_cannot_be_told_from_another_is_refused(
    registry: SqlCertificateRegistry, change: dict[str, str], words: str, together: bool
) -> None:
    first, second = certificate(1), replace(certificate(1), **change)  # type: ignore[arg-type]  # text fields
    if not together:
        await registry.add(first)
    with pytest.raises(CertificateConflictError, match=words):
        await registry.add(first, certificate(7, "d7"), second)
    assert await registry.of("d7") == ()
    assert await registry.of("d1") == (() if together else (first,))


async def test_same_name_may_have_several_certificates_of_one_key(registry: SqlCertificateRegistry) -> None:
    first, second = certificate(1), replace(certificate(2), key="key1")
    await registry.add(first, first)
    await registry.add(second)
    assert await registry.of("d1") == (first, second)
