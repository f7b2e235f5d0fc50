"""A restored older store: no revoked certificate is valid again, no list has a lower number, and losses are listed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from controller.adapters.revocation_marks import KEEP, RevocationMarkFile, marks_path
from controller.adapters.sqlite.restore import back_up_file, restore_file
from controller.adapters.sqlite.restore_losses import losses_between
from controller.cli.app import run_safely
from controller.domain.audit_kinds import AuditKind
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.certificates import PublishedCrl, RenewalRefusal
from controller.ports.errors import StoreError
from controller.service.identity.enrolment import EnrolmentTokenRequest
from tests.support.clocks import ManualClock
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.identity import DAY, authority_settings, request_for


@asynccontextmanager
async def started(folder: Path, clock: ManualClock) -> AsyncIterator[ControllerHarness]:
    settings = authority_settings(folder, clock.at)
    async with open_harness(folder / "cordon.db", clock=clock, settings=settings) as one:
        yield one


async def issued(one: ControllerHarness, name: str) -> Certificate:
    certificates = one.identity.certificates
    made = certificates.sign_client(certificates.authority.read(request_for(name)), (), "token:t1")
    await certificates.registry.add(made)
    return made


def number_of(published: PublishedCrl) -> int:
    return x509.load_der_x509_crl(published.der).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def serials_of(published: PublishedCrl) -> set[str]:
    return {f"{one.serial_number:x}" for one in x509.load_der_x509_crl(published.der)}


async def test_a_revoked_certificate_stays_revoked_and_numbers_rise(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "cordon.db"
    async with started(tmp_path, clock) as one:
        stolen = await issued(one, "edge-1")
        back_up_file(path, tmp_path / "monday.db")
        later = await issued(one, "edge-2")  # the backup does not have this one at all
        for name in ("edge-1", "edge-2"):
            await one.identity.revocation.revoke_device(name, "operator:ada", "key_compromise", "stolen")
        before = await one.identity.certificates.publish()
        assert serials_of(before) == {stolen.serial, later.serial}
    restore_file(tmp_path / "monday.db", path, START)
    clock.at -= 3600  # and the clock of the machine is behind
    async with started(tmp_path, clock) as one:
        certificates = one.identity.certificates
        after = await certificates.publish()
        assert serials_of(after) == {stolen.serial, later.serial}
        assert number_of(after) > number_of(before)
        (again,) = await certificates.registry.of("edge-1")
        assert (again.revoked_at, again.reason) == (START, "key_compromise")
        alerts = await one.store.audit(kind=AuditKind.CERTIFICATE_REVOCATION_RESTORED)
        assert sorted(line.entry.device_id for line in alerts) == ["edge-1", "edge-2"]
        assert all(line.entry.alert for line in alerts)
        await one.identity.revocation.run_once()
        assert one.level("edge-1") is one.level("edge-2") is ContainmentLevel.ISOLATED
    async with started(tmp_path, clock) as one:  # told once
        assert len(await one.store.audit(kind=AuditKind.CERTIFICATE_REVOCATION_RESTORED)) == 2


async def test_the_numbers_seen_of_other_authorities_do_not_go_back(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "cordon.db"
    async with started(tmp_path, clock) as one:
        assert await one.identity.certificates.crls.highest_seen("list a", 3) == 3
        back_up_file(path, tmp_path / "monday.db")
        assert await one.identity.certificates.crls.highest_seen("list a", 9) == 9
    restore_file(tmp_path / "monday.db", path, START)
    async with started(tmp_path, clock) as one:
        assert await one.identity.certificates.crls.highest_seen("list a", 4) == 9


async def test_without_the_marks_numbers_still_rise_with_time(tmp_path: Path) -> None:
    """The machine was lost with its disk: only the backup is left."""
    clock, path = ManualClock(), tmp_path / "cordon.db"
    async with started(tmp_path, clock) as one:
        back_up_file(path, tmp_path / "monday.db")
        await issued(one, "edge-1")
        await one.identity.revocation.revoke_device("edge-1", "operator:ada", "unspecified", "stolen")
        before = await one.identity.certificates.publish()
    restore_file(tmp_path / "monday.db", path, START)
    marks_path(path).unlink()
    clock.at += 60
    async with started(tmp_path, clock) as one:
        assert number_of(await one.identity.certificates.publish()) > number_of(before)


async def test_a_revocation_whose_mark_could_not_be_written_is_marked_with_the_next_pass(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "cordon.db"
    async with started(tmp_path, clock) as one:
        made = await issued(one, "edge-1")
        await one.identity.certificates.registry.revoke([made.serial], START, "unspecified")  # killed after this
    async with started(tmp_path, clock):
        pass
    assert set(RevocationMarkFile(marks_path(path), START).revoked) == {made.serial}


def certificate(number: int, end: float = START + DAY) -> Certificate:
    return Certificate(
        f"{number:x}", "b2", CertificateKind.CLIENT, f"d{number}", START, end, START, "token:t1", f"k{number}", "pem",
        START + 1, "unspecified",
    )  # fmt: skip


def test_marks_survive_a_cut_line_and_are_refused_when_damaged(tmp_path: Path) -> None:
    path = tmp_path / "cordon.db.revocations"
    marks = RevocationMarkFile(path, START)
    marks.add([certificate(1)], {"b2": 5})
    marks.add([certificate(1), certificate(2)], {"b2": 4})
    whole = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    for cut in range(len(whole)):  # power lost while the file was written
        path.write_bytes(whole[:cut])
        again = RevocationMarkFile(path, START)
        lines = whole[:cut].count(b"\n")
        assert (len(again.revoked), again.numbers.get("b2", 0)) == ((0, 0), (1, 0), (1, 5), (2, 5))[lines]
    path.write_bytes(whole.replace(b'"serial"', b'"serious"', 1))
    with pytest.raises(StoreError, match="is damaged"):
        RevocationMarkFile(path, START)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot be read"):
        RevocationMarkFile(path, START)


def test_marks_of_certificates_that_ended_long_ago_go(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    RevocationMarkFile(path, START).add([certificate(1, START - KEEP - 1), certificate(2)], {})
    assert set(RevocationMarkFile(path, START).revoked) == {"2"}


async def test_restore_lists_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock, path = ManualClock(), tmp_path / "cordon.db"
    async with started(tmp_path, clock) as one:
        await issued(one, "edge-1")
        _, token = await one.identity.enrolment.make_token(EnrolmentTokenRequest(1, 60.0, "operator:ada"))
        back_up_file(path, tmp_path / "monday.db")
        await issued(one, "edge-2")
        await one.identity.enrolment.withdraw(token.token_id, "operator:ada")
        await one.identity.revocation.revoke_device("edge-1", "operator:ada", "unspecified", "stolen")
    found = {one.what.partition(" since")[0]: one.names for one in losses_between(path, tmp_path / "monday.db")}
    assert [name.split()[0] for name in found["revoked"]] == ["edge-1"]
    assert [name.split()[0] for name in found["certificates issued"]] == ["edge-2"]
    assert found["contained"] == ("edge-1 isolated",)
    assert found["enrolment tokens used or withdrawn"] == (token.token_id,)
    config = tmp_path / "cordon.toml"
    config.write_text(
        '[mqtt]\nservers = ["mqtts://127.0.0.1:1"]\n[emqx]\napi = ["http://127.0.0.1:1"]\nkey_file = "emqx.key"\n'
        '[store]\npath = "cordon.db"\n[policy]\npaths = ["policies"]\n[commands]\nsigning_key = "signing.key"\n'
        f"[authority]\nfolder = {json.dumps(str(tmp_path / 'ca'))}\n"
    )
    config.chmod(0o600)
    marks_path(path).unlink()
    assert run_safely(["restore", str(tmp_path / "monday.db"), "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert said.count("LOST: ") == 5
    assert "valid again" in said


async def test_a_list_names_a_revoked_certificate_once_more_after_its_end(tmp_path: Path) -> None:
    clock = ManualClock()
    async with started(tmp_path, clock) as one:
        certificates = one.identity.certificates
        made = await issued(one, "edge-1")
        await one.identity.revocation.revoke_device("edge-1", "operator:ada", "unspecified", "stolen")
        lifetime = certificates.settings.crl_lifetime
        clock.at = made.end + lifetime / 2  # a list that is made after its end
        assert serials_of(await certificates.publish()) == {made.serial}
        clock.at = made.end + lifetime + 1
        assert serials_of(await certificates.publish()) == set()


async def test_lists_are_backdated_and_made_again_after_a_clock_error(tmp_path: Path) -> None:
    clock = ManualClock()
    async with started(tmp_path, clock) as one:
        certificates = one.identity.certificates
        gone = await issued(one, "edge-1")
        await one.identity.revocation.revoke_device("edge-1", "operator:ada", "unspecified", "stolen")
        first = await certificates.publish()
        listed = x509.load_der_x509_crl(first.der)
        assert listed.last_update_utc.timestamp() == START - 300  # a broker whose clock is behind takes it
        clock.offset = 60 * DAY
        ahead = await certificates.publish()
        assert serials_of(ahead) == set()  # by this clock its certificate ended long ago
        clock.offset = 0.0
        again = await certificates.publish()
        assert x509.load_der_x509_crl(again.der).last_update_utc.timestamp() <= START
        assert serials_of(again) == {gone.serial}
        assert number_of(first) < number_of(ahead) < number_of(again)
        assert await certificates.publish() is again


async def test_one_key_is_for_one_device(tmp_path: Path) -> None:
    async with started(tmp_path, ManualClock()) as one:
        registry, certificates = one.identity.certificates.registry, one.identity.certificates
        first = await issued(one, "edge-1")
        _, token = await one.identity.enrolment.make_token(EnrolmentTokenRequest(5, 60.0, "operator:ada"))
        read = certificates.authority.read(request_for("edge-2"))
        same = certificates.sign_client(replace(read, key=first.key), (), f"token:{token.token_id}")
        answer = await registry.admit(token.digest, same, START, is_known=False)
        assert (answer.certificate, answer.code) == (None, "key_used")
        await registry.revoke([first.serial], START, "key_compromise")  # nor a key of which a certificate was revoked
        answer = await registry.admit(token.digest, same, START, is_known=False)
        assert (answer.certificate, answer.code) == (None, "key_used")
        present = await issued(one, "edge-2")
        renewed = replace(same, serial="abc", origin=f"renewal:{present.serial}")
        assert await registry.renew(renewed, present.serial) is RenewalRefusal.KEY_USED
        left = await registry.token(token.digest)
        assert left is not None
        assert left.uses_left == 5


async def test_a_list_of_the_future_is_made_again_also_if_nothing_is_revoked(tmp_path: Path) -> None:
    clock = ManualClock()
    async with started(tmp_path, clock) as one:
        certificates = one.identity.certificates
        clock.offset = 60 * DAY
        ahead = await certificates.publish()
        clock.offset = 0.0
        again = await certificates.publish()
        assert again is not ahead
        assert x509.load_der_x509_crl(again.der).last_update_utc.timestamp() <= START
