"""Renewal of the device's key pair: after each crash the device has a usable pair."""

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from controller.adapters.x509.authority import X509Authority
from controller.domain.identity.certificates import CertificateKind, ValidityPeriod
from device_agent.assembly import load_signer
from device_agent.errors import SettingsError
from device_agent.host.certificate import CertificateInfo, IdentityError, read_file
from device_agent.identity import renewal as renewal_module
from device_agent.identity import store as store_module
from device_agent.identity.credentials import RotatingCredentials
from device_agent.identity.keypair import (
    generate_key,
    load_leaf_certificate,
    make_csr,
    private_key_pem,
    public_key_der,
    read_key,
    sign,
)
from device_agent.identity.renewal import (
    CONNECT_WAIT,
    MAX_CONNECT_ATTEMPTS,
    REFUSED_WAIT,
    CertificateHolder,
    CertificateRenewer,
)
from device_agent.identity.store import IdentityStore, load_active, with_active_identity
from device_agent.mqtt_client import tls_context
from device_agent.settings import MqttSettings, load
from schemas.enrolment import RenewRequest, RenewResponse, renewal_bytes
from schemas.topics import UpChannel
from tests.support.clocks import ManualAgentClock
from tests.support.identity import make_authority

NOW = 1_800_000_000.0
LIFE = 3000.0
DEVICE = "edge-1"


@dataclass
class Home:
    """A device, and the authority that issues its certificates."""

    folder: Path
    authority: X509Authority
    clock: ManualAgentClock = field(default_factory=lambda: ManualAgentClock(NOW))
    sent: list[RenewRequest] = field(default_factory=list)
    reconnects: int = 0
    is_online: bool = True

    def issue(self, csr: str, start: float) -> str:
        wanted = self.authority.read(csr)
        return self.authority.issue(
            wanted, CertificateKind.CLIENT, ValidityPeriod(start, start + LIFE), start, "test"
        ).pem

    def publish(self, channel: UpChannel, payload: bytes, confirmed: Callable[[bool], None] | None = None) -> bool:
        assert channel is UpChannel.RENEW
        if self.is_online:
            self.sent.append(RenewRequest.model_validate_json(payload))
        return self.is_online

    def reconnect(self) -> None:
        self.reconnects += 1

    @property
    def store(self) -> IdentityStore:
        """The store as a new process opens it."""
        return IdentityStore(self.folder / "state", None)

    def renewal(self, store: IdentityStore | None = None) -> CertificateRenewer:
        holder = CertificateHolder(DEVICE, self.folder / "device.pem", self.folder / "device.key", None)
        return CertificateRenewer(holder, store or self.store, self.clock, lambda _current: None)

    def answer(self, **changes: str | None) -> bytes:
        csr = self.sent[-1].csr
        body = {"request": hashlib.sha256(csr.encode()).hexdigest(), "certificate": self.issue(csr, self.clock.at)}
        return RenewResponse.model_validate({**body, **changes}).model_dump_json().encode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> X509Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), NOW - 86_400)


@pytest.fixture
def home(tmp_path: Path, authority: X509Authority) -> Home:
    made = Home(tmp_path, authority)
    key = generate_key()
    (tmp_path / "device.key").touch(mode=0o600)
    (tmp_path / "device.key").write_bytes(private_key_pem(key, None))
    (tmp_path / "device.pem").write_text(made.issue(make_csr(key, DEVICE), NOW))
    (tmp_path / "ca.pem").write_text(authority.trust)
    (tmp_path / "agent.toml").write_text(
        f'device_id = "{DEVICE}"\n[mqtt]\nservers = ["mqtts://127.0.0.1:1"]\n'
        f"ca = {json.dumps(str(tmp_path / 'ca.pem'))}\n"
        f"certificate = {json.dumps(str(tmp_path / 'device.pem'))}\nkey = {json.dumps(str(tmp_path / 'device.key'))}\n"
        f"[identity]\nrenew = true\n[agent]\nstate_dir = {json.dumps(str(tmp_path / 'state'))}\n"
    )
    return made


def test_no_renewal_before_two_thirds_of_the_lifetime(home: Home) -> None:
    renewal = home.renewal()
    home.clock.at = NOW + LIFE * 2 / 3 - 1
    renewal.step(home)
    assert home.sent == []
    home.clock.at = NOW + LIFE * 0.69
    renewal.step(home)
    (asked,) = home.sent
    present = read_key(read_file(home.folder / "device.key"), None)
    leaf = load_leaf_certificate(read_file(home.folder / "device.pem"))
    assert (asked.device_id, asked.serial) == (DEVICE, leaf.serial)
    assert public_key_der(present.public_key()) == leaf.public_key_der
    made = home.authority.read(asked.csr)
    assert made.key != hashlib.sha256(leaf.public_key_der).hexdigest()  # another key
    assert renewal_bytes(DEVICE, leaf.serial, asked.csr).startswith(b"cordon renewal v1\n")


def test_a_request_without_an_answer_is_repeated_with_the_same_key(home: Home) -> None:
    renewal = home.renewal()
    home.clock.at = NOW + LIFE * 0.7
    renewal.step(home)
    renewal.step(home)
    assert len(home.sent) == 1
    home.clock.at += 3600
    renewal.step(home)
    again = home.renewal()  # the agent was restarted
    again.step(home)
    keys = {home.authority.read(one.csr).key for one in home.sent}
    assert (len(home.sent), len(keys)) == (3, 1)


def test_without_a_connection_the_request_is_sent_later(home: Home) -> None:
    renewal, home.is_online = home.renewal(), False
    home.clock.at = NOW + LIFE * 0.7
    renewal.step(home)
    home.is_online = True
    renewal.step(home)
    assert len(home.sent) == 1


def _renewed(home: Home) -> tuple[CertificateRenewer, IdentityStore]:
    store = home.store
    renewal = home.renewal(store)
    home.clock.at = NOW + LIFE * 0.7
    renewal.step(home)
    renewal.on_answer(home.answer(), home)
    return renewal, store


def test_the_new_pair_is_used_once_it_has_connected(home: Home) -> None:
    renewal, store = _renewed(home)
    assert home.reconnects == 1
    assert store.candidate.stat().st_mode & 0o777 == 0o600
    promoted: list[bool] = []
    credentials = RotatingCredentials(
        load(home.folder / "agent.toml").mqtt, store, tls_context, lambda: promoted.append(True)
    )
    old = credentials.next_ssl_context
    assert isinstance(old(), ssl.SSLContext)
    assert not store.current.exists()
    credentials.on_accepted()
    assert (promoted, store.current.exists(), store.candidate.exists()) == ([True], True, False)
    renewal.on_promoted()
    settings = load_active(home.folder / "agent.toml")
    assert (settings.mqtt.certificate, settings.mqtt.key) == (store.current, store.current)
    renewal.step(home)
    assert len(home.sent) == 1  # and the next one is due in its own time


def test_after_a_kill_the_candidate_is_tried_in_turn_with_the_old_pair(home: Home) -> None:
    _, store = _renewed(home)
    again = home.store
    settings = load_active(home.folder / "agent.toml")
    assert settings.mqtt.certificate == home.folder / "device.pem"
    asked: list[Path] = []

    def watch(mqtt: MqttSettings) -> ssl.SSLContext:
        assert mqtt.certificate is not None
        asked.append(mqtt.certificate)
        return tls_context(mqtt)

    credentials = RotatingCredentials(settings.mqtt, again, watch, lambda: None)
    contexts = [credentials.next_ssl_context() for _ in range(4)]  # four attempts that fail
    assert asked == [home.folder / "device.pem", store.candidate, store.candidate]
    assert contexts[1] is contexts[3]
    assert contexts[0] is not contexts[1]


def test_a_half_written_candidate_is_discarded(home: Home) -> None:
    _, store = _renewed(home)
    store.candidate.write_bytes(b"-----BEGIN PRIVATE KEY-----\nhalf")
    credentials = RotatingCredentials(load(home.folder / "agent.toml").mqtt, store, tls_context, lambda: None)
    credentials.next_ssl_context()
    assert not store.candidate.exists()


def test_a_pair_that_the_broker_refuses_is_discarded_in_the_end(home: Home) -> None:
    renewal, store = _renewed(home)
    for _ in range(MAX_CONNECT_ATTEMPTS):
        assert store.candidate.exists()
        home.clock.at += CONNECT_WAIT
        renewal.step(home)
    assert not store.candidate.exists()
    assert home.reconnects == MAX_CONNECT_ATTEMPTS
    home.clock.at += REFUSED_WAIT
    renewal.step(home)
    assert len({home.authority.read(one.csr).key for one in home.sent}) == 2  # with another key


def test_answers_to_other_requests_are_ignored(home: Home) -> None:
    renewal = home.renewal()
    renewal.on_answer(b"{}", home)  # nothing was asked
    home.clock.at = NOW + LIFE * 0.7
    renewal.step(home)
    foreign = home.issue(make_csr(generate_key(), DEVICE), NOW)
    for payload in (b"no JSON", b"{}", home.answer(request="0" * 64), home.answer(certificate=foreign), b" " * 100_000):
        renewal.on_answer(payload, home)
    assert not home.store.candidate.exists()
    assert home.reconnects == 0


def test_after_a_refusal_the_request_is_repeated_much_later(home: Home) -> None:
    renewal = home.renewal()
    home.clock.at = NOW + LIFE * 0.7
    renewal.step(home)
    renewal.on_answer(home.answer(certificate=None, refused="certificate_over", detail="revoked"), home)
    home.clock.at += REFUSED_WAIT - 1
    renewal.step(home)
    assert len(home.sent) == 1
    home.clock.at += 2
    renewal.step(home)
    assert len(home.sent) == 2


def test_a_younger_configured_pair_is_used_instead_of_the_renewed_one(home: Home) -> None:
    _, store = _renewed(home)
    store.promote()
    assert load_active(home.folder / "agent.toml").mqtt.certificate == store.current
    key = generate_key()
    (home.folder / "device.key").write_bytes(private_key_pem(key, None))
    (home.folder / "device.pem").write_text(home.issue(make_csr(key, DEVICE), home.clock.at + 10))
    assert load_active(home.folder / "agent.toml").mqtt.certificate == home.folder / "device.pem"
    store.current.write_text("damaged")
    settings = load(home.folder / "agent.toml")
    assert with_active_identity(settings) == settings


def test_keys_are_encrypted_with_a_passphrase(home: Home) -> None:
    key = generate_key()
    kept = private_key_pem(key, "words of a credential")
    assert b"ENCRYPTED" in kept
    assert public_key_der(read_key(kept, "words of a credential").public_key()) == public_key_der(key.public_key())
    with pytest.raises(IdentityError, match="another passphrase"):
        read_key(kept, "others")
    words = home.folder / "words"
    words.touch(mode=0o600)
    words.write_text("words of a credential\n")
    (home.folder / "device.key").write_bytes(kept)
    (home.folder / "device.pem").write_text(home.issue(make_csr(key, DEVICE), NOW))
    text = (
        (home.folder / "agent.toml").read_text().replace("[identity]", f'key_passphrase_file = "{words}"\n[identity]')
    )
    (home.folder / "agent.toml").write_text(text)
    tls_context(load(home.folder / "agent.toml").mqtt)
    words.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        load(home.folder / "agent.toml")


def test_the_report_signer_opens_the_key_as_the_connection_does(home: Home) -> None:
    text = (home.folder / "agent.toml").read_text() + "[report]\nsign_reports = true\n"
    words = home.folder / "words"
    words.touch(mode=0o600)
    words.write_text("words of a credential\n")
    with_words = text.replace("[identity]", f'key_passphrase_file = "{words}"\n[identity]')
    key, renewed = home.folder / "device.key", home.folder / "renewed.pem"
    made = read_key(read_file(key), None)
    (home.folder / "agent.toml").write_text(with_words)
    settings = load(home.folder / "agent.toml")
    own = load_signer(settings)  # a key without the passphrase that is set: TLS opens it too
    assert own is not None
    assert own.public_key_base64 == base64.b64encode(public_key_der(made.public_key())).decode()
    other = generate_key()
    renewed.write_bytes(private_key_pem(other, "words of a credential") + (home.folder / "device.pem").read_bytes())
    later = load_signer(settings, renewed)
    assert later is not None
    assert later.public_key_base64 == base64.b64encode(public_key_der(other.public_key())).decode()
    words.write_text("others\n")
    with pytest.raises(SettingsError, match="cannot be opened"):
        load_signer(settings, renewed)
    (home.folder / "agent.toml").write_text(text.replace("sign_reports = true", "sign_reports = false"))
    assert load_signer(load(home.folder / "agent.toml"), renewed) is None


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_invalid_keys_and_certificates_are_errors(content: bytes) -> None:
    with pytest.raises(IdentityError):
        read_key(content, None)
    with pytest.raises(IdentityError):
        load_leaf_certificate(content)


def test_only_supported_key_types_sign() -> None:
    with pytest.raises(IdentityError, match="cannot prove"):
        sign(object(), b"x")


LIFETIMES = 4


def read_here(path: Path) -> CertificateInfo:
    """What the child process of the agent reads, without one."""
    found = x509.load_pem_x509_certificate(path.read_bytes())
    start, end = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return CertificateInfo(DEVICE, f"{found.serial_number:x}", start, end, b"")


class SkewedClock(ManualAgentClock):
    """A clock whose wall time differs from the time that passes."""

    def __init__(self, at: float, ahead: float) -> None:
        super().__init__(at)
        self.ahead = ahead

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at + self.ahead, UTC)


@pytest.mark.parametrize("ahead", [-100.0, -0.5, 0.0, 0.3, 0.8, 5.0, 100.0])  # lifetimes
@pytest.mark.parametrize("asleep", [0.0, 0.9])
def test_renewals_are_bounded_whatever_the_clock_says(
    home: Home, ahead: float, asleep: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some lifetimes pass; a controller with the right time bounds from below, the device's running time from above."""
    for module in (renewal_module, store_module):
        monkeypatch.setattr(module, "read_certificate_info", read_here)
    home.clock = SkewedClock(NOW, ahead * LIFE)
    store = home.store
    renewal = home.renewal(store)
    issued, given = [NOW], 0
    while home.clock.at < NOW + LIFETIMES * LIFE:
        home.clock.at, home.clock.asleep = home.clock.at + LIFE / 40, home.clock.asleep + asleep * LIFE / 40
        asked = len(home.sent)
        renewal.step(home)
        if len(home.sent) == asked:
            continue
        if home.clock.at < issued[-1] + LIFE / 3:
            renewal.on_answer(home.answer(certificate=None, refused="too_early"), home)
            continue
        assert home.clock.at < issued[-1] + LIFE  # never after the end of the present one
        renewal.on_answer(home.answer(), home)
        store.promote()
        renewal.on_promoted()
        issued.append(home.clock.at)
        given += 1
    assert LIFETIMES <= given <= 3 * LIFETIMES
    assert len(home.sent) <= given + 2 * LIFETIMES  # and few requests in vain


def test_a_device_that_restarts_with_a_clock_ahead_asks_a_few_times_in_a_lifetime(home: Home) -> None:
    home.clock = SkewedClock(NOW, 20 * LIFE)
    renewal = home.renewal()
    for _ in range(100):
        home.clock.at += LIFE / 400
        asked = len(home.sent)
        renewal.step(home)
        if len(home.sent) > asked:
            renewal.on_answer(home.answer(certificate=None, refused="too_early"), home)
    assert len(home.sent) == 2


@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"passphrase"])
def test_a_pending_key_that_cannot_be_opened_is_replaced(home: Home, content: bytes) -> None:
    if content == b"passphrase":
        content = private_key_pem(generate_key(), "k4c2-9d3f-7m1q-x8tz-5h6n-w2vb")
    pending = home.folder / "state/identity/pending.key"
    pending.parent.mkdir(parents=True)
    pending.write_bytes(content)
    new = home.store.pending_key()
    assert public_key_der(new.public_key()) == public_key_der(home.store.pending_key().public_key())
    assert public_key_der(new.public_key()) == public_key_der(read_key(pending.read_bytes(), None).public_key())
    home.clock.at += LIFE
    home.renewal().step(home)
    assert len(home.sent) == 1
