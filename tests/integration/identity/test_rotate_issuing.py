"""Replacing the issuing certificate: the list of the replaced one is served until its last certificate ended."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controller.adapters.x509 import building, folder
from controller.adapters.x509.authority import X509Authority
from controller.adapters.x509.rotation import PresentAuthority, replace_issuing, rotate_issuing
from controller.app.identity import open_authority
from controller.domain.identity.certificates import CertificateKind, validity
from controller.ports.certificates import AuthorityError
from controller.ports.errors import SettingsError
from controller.service.settings.settings import AuthoritySettings
from tests.support.clocks import ManualClock
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.identity import DAY, PASSPHRASE, authority_settings, make_authority, request_for


def rotate(where: Path, now: float = START) -> X509Authority:
    return X509Authority(rotate_issuing(PresentAuthority(where / "ca"), where / "root.key", PASSPHRASE, now))


async def enrolled(one: ControllerHarness, name: str) -> x509.Certificate:
    certificates = one.identity.certificates
    made = certificates.sign_client(certificates.authority.read(request_for(name)), (), "token:t1")
    await certificates.registry.add(made)
    return x509.load_pem_x509_certificate(made.pem.encode())


def list_of(one: ControllerHarness, certificate: x509.Certificate) -> x509.CertificateRevocationList | None:
    """The list at the address in the certificate, as a broker fetches it."""
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    issuer = str(point.full_name[0].value).rpartition("/")[2].removesuffix(".pem")
    found = one.identity.certificates.published_crl(issuer)
    return None if found is None else x509.load_pem_x509_crl(found.pem)


async def test_the_list_of_a_replaced_issuer_is_served_until_its_last_certificate_ended(tmp_path: Path) -> None:
    clock, settings = ManualClock(), authority_settings(tmp_path)
    async with open_harness(tmp_path / "cordon.db", clock=clock, settings=settings) as one:
        old = await enrolled(one, "edge-1")
        old_chain = one.identity.certificates.authority.chain
    rotate(tmp_path)
    async with open_harness(tmp_path / "cordon.db", clock=clock, settings=settings) as one:
        new = await enrolled(one, "edge-2")
        authority = one.identity.certificates.authority
        assert new.issuer != old.issuer
        root = x509.load_pem_x509_certificate(authority.trust.encode())
        for leaf, chain in ((old, old_chain), (new, authority.chain)):  # devices of both are accepted
            issuing = x509.load_pem_x509_certificate(chain.encode())
            leaf.verify_directly_issued_by(issuing)
            issuing.verify_directly_issued_by(root)
        await one.identity.revocation.revoke_device("edge-1", "operator:ada", "unspecified", "stolen")
        served = list_of(one, old)
        assert served is not None
        assert served.is_signature_valid(x509.load_pem_x509_certificate(old_chain.encode()).public_key())  # type: ignore[arg-type]  # an EC key
        assert served.get_revoked_certificate_by_serial_number(old.serial_number) is not None
        assert list_of(one, new) is not None
        clock.at = old.not_valid_after_utc.timestamp() - 1
        await one.identity.certificates.publish()
        assert list_of(one, old) is not None
        clock.at += 2 * DAY
        await one.identity.certificates.publish()
        assert list_of(one, old) is None
        assert list_of(one, new) is not None


def test_a_second_replacement_keeps_both_former_lists(tmp_path: Path) -> None:
    first = make_authority(tmp_path, START)
    second = rotate(tmp_path)
    third = rotate(tmp_path)
    names = [authority.info.issuing_subject for authority in (first, second, third)]
    assert [name.rpartition(" ")[0] for name in names[1:]] == [names[0]] * 2
    assert set(third.former_issuers) == {first.issuer, second.issuer}
    assert folder.crl_base(folder.load(tmp_path / "ca").issuing) == "http://127.0.0.1:8481"


def power_lost_after(count: int) -> Callable[..., None]:
    """`folder.write`, which works `count` times."""
    left, write = iter(range(count)), folder.write

    def limited(path: Path, content: bytes, mode: int, *, may_replace: bool = False) -> None:
        if next(left, None) is None:
            raise AuthorityError("power lost")
        write(path, content, mode, may_replace=may_replace)

    return limited


def test_an_interrupted_replacement_leaves_a_whole_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_authority(tmp_path / "a", START)
    issuers = set[str]()
    for kill_at in range(5):
        where = tmp_path / f"kill-{kill_at}"
        shutil.copytree(tmp_path / "a", where)
        monkeypatch.setattr(folder, "write", power_lost_after(kill_at))
        if kill_at < 4:
            with pytest.raises(AuthorityError, match="power lost"):
                rotate(where)
        else:
            rotate(where)
        monkeypatch.undo()
        left = X509Authority(folder.load(where / "ca"))
        made = left.issue(left.read(request_for("d")), CertificateKind.CLIENT, validity(START, DAY, None), START, "x")
        leaf, issuing = (x509.load_pem_x509_certificate(text.encode()) for text in (made.pem, left.chain))
        leaf.verify_directly_issued_by(issuing)
        issuers.add(left.issuer)
        assert rotate(where).issuer != left.issuer  # and the command can be given again
    assert len(issuers) == 2  # the old one until the last step


def test_refusals_leave_the_present_certificate(tmp_path: Path) -> None:
    present = make_authority(tmp_path / "a", START).issuer
    make_authority(tmp_path / "b", START)
    ours, theirs = PresentAuthority(tmp_path / "a" / "ca"), tmp_path / "b" / "ca"
    with pytest.raises(AuthorityError, match="not the key of"):
        rotate_issuing(ours, tmp_path / "b" / "root.key", PASSPHRASE, START)
    with pytest.raises(SettingsError, match="another passphrase"):
        rotate_issuing(ours, tmp_path / "a" / "root.key", "another-passphrase-of-20", START)
    with pytest.raises(AuthorityError, match="root certificate has expired"):
        rotate_issuing(ours, tmp_path / "a" / "root.key", PASSPHRASE, START + 4000 * DAY)
    with pytest.raises(AuthorityError, match="was not issued by"):
        replace_issuing(ours, theirs / "issuing.pem", theirs / "issuing.key", None)
    with pytest.raises(AuthorityError, match="present issuing key"):
        replace_issuing(ours, ours.folder / "issuing.pem", ours.folder / "issuing.key", None)
    assert X509Authority(folder.load(ours.folder)).issuer == present


def test_an_imported_authority_and_a_key_with_a_passphrase(tmp_path: Path) -> None:
    make_authority(tmp_path, START)
    words = tmp_path / "words"
    words.touch(mode=0o600)
    words.write_text(PASSPHRASE)
    ca = tmp_path / "ca"
    key = folder.load(ca).key
    (ca / "issuing.key").write_bytes(folder.encrypted(key, PASSPHRASE))
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    elsewhere = PresentAuthority(tmp_path / "elsewhere" / "ca", words)
    rotate_issuing(elsewhere, tmp_path / "root.key", PASSPHRASE, START)
    theirs = elsewhere.folder
    made = replace_issuing(PresentAuthority(ca, words), theirs / "issuing.pem", theirs / "issuing.key", PASSPHRASE)
    assert [certificate for certificate, _ in made.former] == [x509.load_pem_x509_certificate(
        (tmp_path / "elsewhere" / "ca" / "former" / f"{building.key_identifier(key.public_key())}.pem").read_bytes()
    )]  # fmt: skip
    for path in (ca / "issuing.key", *(ca / "former").glob("*.key")):
        assert b"ENCRYPTED" in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_not_the_certificates_is_refused(tmp_path: Path) -> None:
    make_authority(tmp_path, START)
    rotate(tmp_path)
    (path,) = (tmp_path / "ca" / "former").glob("*.key")
    path.write_bytes(folder.plain(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(SettingsError, match="is not the key of"):
        folder.load(tmp_path / "ca")


def is_accepted(tmp_path: Path, root: str, chain: str, leaf: str, lists: list[bytes]) -> bool:
    """What `openssl verify` says, with every certificate of the chain looked up in these lists."""
    for name, content in (("root", root), ("chain", chain), ("leaf", leaf)):
        (tmp_path / f"{name}.pem").write_text(content)
    (tmp_path / "lists.pem").write_bytes(b"".join(lists))
    argv = ["openssl", "verify", "-crl_check_all", "-CAfile", "root.pem", "-untrusted", "chain.pem", "-CRLfile"]
    moment = str(int(START) + 60)
    done = subprocess.run(
        [*argv, "lists.pem", "-attime", moment, "leaf.pem"], cwd=tmp_path, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0 or b"certificate revoked" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("is_compromised", [False, True])
async def test_what_a_stolen_issuing_key_signs_is_refused(tmp_path: Path, is_compromised: bool) -> None:
    settings = authority_settings(tmp_path)
    async with open_harness(tmp_path / "cordon.db", clock=ManualClock(), settings=settings) as one:
        thief = one.identity.certificates.authority  # with the key, whatever happens to the folder
        registered = await enrolled(one, "edge-1")
    present = PresentAuthority(tmp_path / "ca")
    new = rotate_issuing(present, tmp_path / "root.key", PASSPHRASE, START, is_compromised=is_compromised)
    async with open_harness(tmp_path / "cordon.db", clock=ManualClock(), settings=settings) as one:
        authority = one.identity.certificates.authority
        stolen = thief.issue(
            thief.read(request_for("edge-9")), CertificateKind.CLIENT, validity(START, DAY, None), START, "x"
        )
        fine = authority.issue(
            authority.read(request_for("edge-9")), CertificateKind.CLIENT, validity(START, DAY, None), START, "x"
        )
        lists = [found.pem for found in one.identity.certificates.lists]
        forged = thief.revocations(thief.issuer, (), 10, START, START + DAY).pem
        root = authority.trust
        assert is_accepted(tmp_path, root, thief.chain, stolen.pem, [*lists, forged]) is not is_compromised
        assert is_accepted(tmp_path, root, authority.chain, fine.pem, lists)
        # A broker that looks up the last certificate only finds no list of the stolen key.
        assert (list_of(one, registered) is None) is is_compromised
    assert [pair[0].subject for pair in new.former] == ([] if is_compromised else [registered.issuer])
    assert len(list((tmp_path / "ca" / "former").iterdir())) == (0 if is_compromised else 2)


def test_former_issuing_key_on_the_roots_list_signs_no_list_any_more(tmp_path: Path) -> None:
    old = x509.load_pem_x509_certificate(make_authority(tmp_path, START).chain.encode())
    rotate_issuing(PresentAuthority(tmp_path / "ca"), tmp_path / "root.key", PASSPHRASE, START)
    assert len(X509Authority(folder.load(tmp_path / "ca")).former_issuers) == 1
    folder.renew_root_list(tmp_path / "ca", tmp_path / "root.key", PASSPHRASE, START, old)
    assert X509Authority(folder.load(tmp_path / "ca")).former_issuers == ()


def test_revocation_of_an_issuing_key_survives_the_next_root_list_and_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_authority(tmp_path / "a", START)
    for kill_at in range(6):
        where = tmp_path / f"kill-{kill_at}"
        shutil.copytree(tmp_path / "a", where)
        present = PresentAuthority(where / "ca")
        monkeypatch.setattr(folder, "write", power_lost_after(kill_at))
        with contextlib.suppress(AuthorityError):
            rotate_issuing(present, where / "root.key", PASSPHRASE, START, is_compromised=True)
        monkeypatch.undo()
        if 1 <= kill_at <= 4:  # the root's list is written first
            with pytest.raises(AuthorityError, match="on the root's list"):
                open_authority(AuthoritySettings(folder=present.folder))
        again = rotate_issuing(present, where / "root.key", PASSPHRASE, START, is_compromised=True)
        folder.renew_root_list(present.folder, where / "root.key", PASSPHRASE, START + DAY)
        left = folder.load(present.folder)
        serial = x509.load_pem_x509_certificate(old.chain.encode()).serial_number
        assert left.root_list is not None
        entry = left.root_list.get_revoked_certificate_by_serial_number(serial)
        assert entry is not None
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
        assert X509Authority(again).former_issuers == ()
        assert not folder.is_revoked(left.issuing, left.root_list)
