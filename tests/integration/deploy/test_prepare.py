"""The compose cluster's first step, really run: its certificates, secrets and configurations are put to use."""

import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from controller.adapters.files import read_secret
from controller.adapters.keys import load_signing_key
from controller.adapters.policies.loader import load_policies
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.facts import TYPES
from controller.service.settings.settings import load_settings
from device_agent.settings import load
from schemas.signing import public_key_text
from tests.support.api_server import ApiServer
from tests.support.compose import DEPLOY, script

pytestmark = pytest.mark.slow

PREPARE = script("compose/prepare.py")
NODES = tuple(PREPARE.NODES)


def _run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )


def _prepare(out: Path) -> None:
    done = _run(sys.executable, str(DEPLOY / "compose" / "prepare.py"), "--out", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert "operator" not in done.stdout  # the token is in its file, not in a log


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` leaves."""
    folder = tmp_path_factory.mktemp("compose") / "cordon"
    _prepare(folder)
    return folder


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_second_run_changes_nothing(out: Path) -> None:
    before = {name: content for name, content in _files(out).items() if not name.startswith("store/")}
    _prepare(out)
    after = {name: content for name, content in _files(out).items() if not name.startswith("store/")}
    assert after == before
    assert len(before) > 25


def test_secrets_are_for_their_owner_only_and_all_different(out: Path) -> None:
    modes = {str(path.relative_to(out)): stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    public = {name for name, mode in modes.items() if mode != 0o600}
    assert {Path(name).suffix for name in public} == {".pem", ".toml", ".yaml"}
    assert {modes[name] for name in public} == {0o644}
    assert {stat.S_IMODE((out / name).stat().st_mode) for name in PREPARE.FOLDERS} == {0o700}
    names = [
        f"{folder}/{name}" for folder in ("emqx", "lab") for name in ("cookie", "dashboard-password", "api-secret")
    ]
    secrets = [(out / name).read_text().strip() for name in [*names, "lab/mqtt-password"]]
    assert len(set(secrets)) == len(secrets)
    assert all(8 <= len(one) <= 64 and one.isalnum() and one[0].isalpha() for one in secrets)
    assert (out / "emqx" / "api-key").read_text() == f"cordon:{secrets[2]}\n"


def test_nobody_else_has_the_authoritys_key(out: Path) -> None:
    files = _files(out)
    key = files["authority/ca.key"]
    assert [name for name, content in files.items() if content == key] == ["authority/ca.key"]
    assert {content for name, content in files.items() if name.endswith("/ca.pem")} == {files["authority/ca.pem"]}


@pytest.mark.parametrize(
    ("path", "name", "purpose", "hosts"),
    [
        ("emqx/server.pem", NODES[0], ExtendedKeyUsageOID.SERVER_AUTH, list(NODES)),
        (
            "controller/api.pem",
            "controller.cordon.internal",
            ExtendedKeyUsageOID.SERVER_AUTH,
            ["controller.cordon.internal", "localhost"],
        ),
        ("controller/mqtt.pem", "cordon-controller", ExtendedKeyUsageOID.CLIENT_AUTH, ["cordon-controller"]),
        ("agent-1/mqtt.pem", "agent-1", ExtendedKeyUsageOID.CLIENT_AUTH, ["agent-1"]),
        ("agent-2/mqtt.pem", "agent-2", ExtendedKeyUsageOID.CLIENT_AUTH, ["agent-2"]),
    ],
)
def test_certificates_are_what_they_are_for(
    out: Path, path: str, name: str, purpose: x509.ObjectIdentifier, hosts: list[str]
) -> None:
    certificate, authority = _certificate(out / path), _certificate(out / "authority" / "ca.pem")
    assert [one.value for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [name]
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == hosts
    policy = PolicyBuilder().store(Store([authority])).time(datetime.now(UTC))
    if purpose == ExtendedKeyUsageOID.SERVER_AUTH:
        for host in hosts:
            policy.build_server_verifier(x509.DNSName(host)).verify(certificate, [])
    else:
        policy.build_client_verifier().verify(certificate, [])
    kind = "sslserver" if purpose == ExtendedKeyUsageOID.SERVER_AUTH else "sslclient"
    ca, given = str(out / "authority" / "ca.pem"), str(out / path)
    checked = _run("openssl", "verify", "-x509_strict", "-purpose", kind, "-CAfile", ca, given)
    assert (checked.returncode, checked.stdout) == (0, f"{out / path}: OK\n"), checked.stderr
    assert certificate.public_key() == _key_of((out / path).with_suffix(".key"))


def _key_of(path: Path) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(path.read_bytes(), None).public_key()


def test_certificates_are_renewed_before_they_end_and_by_the_same_authority(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    folder = tmp_path / "x"
    folder.mkdir()
    oid = ExtendedKeyUsageOID.CLIENT_AUTH
    for moment, renewed in ((now, True), (now + timedelta(days=360), False), (now + timedelta(days=370), True)):
        before = (folder / "mqtt.pem").read_bytes() if (folder / "mqtt.pem").exists() else b""
        PREPARE.Authority(tmp_path, moment).issue(folder, "mqtt", "x", oid, ["x"])
        assert ((folder / "mqtt.pem").read_bytes() != before) is renewed
    _certificate(folder / "mqtt.pem").verify_directly_issued_by(_certificate(tmp_path / "ca.pem"))
    assert _certificate(folder / "mqtt.pem").public_key() == _key_of(folder / "mqtt.key")


def test_the_controllers_configuration_is_complete(out: Path) -> None:
    settings = load_settings(out / "controller" / "cordon.toml")
    assert settings.mqtt.servers == tuple(f"mqtts://{node}:8884" for node in NODES)
    assert settings.emqx.api == tuple(f"http://{node}:18083" for node in NODES)
    assert read_secret(settings.emqx.key_file, "k") == (out / "emqx" / "api-key").read_text().strip()
    assert load_policies(settings.policy.paths, CelEnvironment(TYPES)).rules
    assert settings.store.path == out / "store" / "cordon.db"
    assert settings.mqtt.ca is not None
    context = ssl.create_default_context(cafile=str(settings.mqtt.ca))
    assert settings.mqtt.certificate is not None
    assert settings.mqtt.key is not None
    context.load_cert_chain(settings.mqtt.certificate, settings.mqtt.key)
    common = _certificate(settings.mqtt.certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [one.value for one in common] == [settings.mqtt.client_id]


@pytest.mark.parametrize("name", PREPARE.AGENTS)
def test_the_agents_believe_this_controller(out: Path, name: str) -> None:
    settings = load(out / name / "agent.toml")
    assert settings.device_id == name
    assert [(one.host, one.port, one.tls) for one in settings.mqtt.broker_addresses] == [
        (node, 8883, True) for node in NODES
    ]
    key = load_signing_key(out / "controller" / "command-signing.key").public_key()
    assert settings.commands.controller_keys == (public_key_text(key),)


@pytest.fixture
def listener(out: Path) -> Iterator[int]:
    """A TLS server with EMQX's certificate that demands one of its clients, and tells their common names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(out / "emqx" / "server.pem", out / "emqx" / "server.key")
    context.load_verify_locations(out / "emqx" / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = server.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(raw, server_side=True) as connection:
                    peer = connection.getpeercert()
                    assert peer is not None
                    connection.sendall(repr(peer["subject"]).encode())
            except OSError:
                raw.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


def _said(port: int, host: str, context: ssl.SSLContext) -> str:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        return connection.recv(1000).decode()


@pytest.mark.parametrize("host", NODES)
def test_a_handshake_with_each_nodes_name(out: Path, listener: int, host: str) -> None:
    context = ssl.create_default_context(cafile=str(out / "agent-1" / "ca.pem"))
    context.load_cert_chain(out / "agent-1" / "mqtt.pem", out / "agent-1" / "mqtt.key")
    assert "agent-1" in _said(listener, host, context)


def test_no_handshake_without_a_certificate_or_with_a_wrong_name(out: Path, listener: int) -> None:
    bare = ssl.create_default_context(cafile=str(out / "agent-1" / "ca.pem"))
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
        _said(listener, NODES[0], bare)
    bare.load_cert_chain(out / "agent-1" / "mqtt.pem", out / "agent-1" / "mqtt.key")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _said(listener, "elsewhere.cordon.internal", bare)


@pytest.mark.parametrize("name", ["emqx", "lab"])
def test_emqx_starts_with_its_secrets_in_the_environment(out: Path, name: str) -> None:
    folder = out / name
    code = "import os; print(os.environ['EMQX_NODE__COOKIE'], os.environ['EMQX_DASHBOARD__DEFAULT_PASSWORD'])"
    argv = ["/bin/bash", str(DEPLOY / "compose" / "emqx.sh"), sys.executable, "-c", code]
    done = _run(*argv, CORDON_SECRETS=str(folder))
    cookie, password = ((folder / one).read_text().strip() for one in ("cookie", "dashboard-password"))
    assert (done.returncode, done.stdout) == (0, f"{cookie} {password}\n"), done.stderr
    assert _run(*argv, CORDON_SECRETS=str(out / "absent")).returncode != 0


def test_the_tests_get_their_secrets_in_variables_only(out: Path) -> None:
    run = script("compose/run_tests.py")
    for what in ("contract", "demo"):
        argv, variables = run.command(what, out / "tests", ["--more"])
        assert argv[-1] == "--more"
        secret = (out / "lab" / "api-secret").read_text().strip()
        password = (out / "lab" / "mqtt-password").read_text().strip()
        assert {secret, password} <= set(variables.values())
        assert not [word for word in argv if secret in word or password in word]
    users = (out / "lab" / "users.csv").read_text().splitlines()
    assert users == ["user_id,password,is_superuser", f"lab,{password},false"]


def test_the_controllers_health_check(out: Path, tmp_path: Path) -> None:
    certificate, key = out / "controller" / "api.pem", out / "controller" / "api.key"
    check = str(DEPLOY / "docker" / "ready.py")
    ca = str(out / "controller" / "ca.pem")
    with ApiServer(tmp_path / "cordon.db", {}, certificate=certificate, key=key) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        done = _run(sys.executable, check, CORDON_URL=url, CORDON_CA=ca)
        # This API has no broker that was read: it answers, and says why it is not ready.
        assert done.returncode == 1
        assert done.stderr.startswith("503 ")
        assert "reasons" in done.stderr
        wrong = _run(sys.executable, check, CORDON_URL=server.url, CORDON_CA=ca)
        assert wrong.returncode == 1
        assert "IP address mismatch" in wrong.stderr
    gone = _run(sys.executable, check, CORDON_URL=url, CORDON_CA=ca)
    assert gone.returncode == 1
    assert "refused" in gone.stderr
    assert _run(sys.executable, check, CORDON_URL="file:///etc/hostname").returncode == 1


def test_the_agents_health_check(tmp_path: Path) -> None:
    check, config = str(DEPLOY / "docker" / "agent_connected.py"), tmp_path / "agent.toml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config.write_text(f'device_id = "x"\nmqtt.servers = ["mqtt://127.0.0.1:{port}"]\n')
        before = _run(sys.executable, check, str(config))
        assert (before.returncode, before.stderr) == (1, f"no connection to port {port}\n")
        with socket.create_connection(("127.0.0.1", port)):
            assert _run(sys.executable, check, str(config)).returncode == 0
    assert _run(sys.executable, check, str(tmp_path / "absent.toml")).returncode == 1
