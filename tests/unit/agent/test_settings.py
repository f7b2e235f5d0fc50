"""The agent's configuration: values, defaults, and errors that name file and key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.errors import SettingsError
from device_agent.settings import (
    DEFAULT_STATE_DIR,
    Settings,
    default_device_id,
    load,
    read_key_passphrase,
    read_password,
    warnings,
)
from schemas.broker_address import BrokerAddress
from schemas.signing import public_key_text
from tests.support.certs import Certs

MINIMAL = 'device_id = "edge-1"\n[mqtt]\nservers = ["mqtts://broker"]\n'


def _load(folder: Path, text: str) -> str:
    path = folder / "agent.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_minimal_configuration_gets_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL)
    settings = load(path)
    assert settings.mqtt.broker_addresses == (BrokerAddress("broker", 8883, tls=True),)
    assert (settings.report.scan_every, settings.report.heartbeat_every) == (300.0, 60.0)
    assert settings.commands.allow == ()
    assert settings.agent.state_dir == DEFAULT_STATE_DIR


def test_a_full_configuration_is_read(tmp_path: Path) -> None:
    certs = Certs(tmp_path / "certs")
    cert, key = certs.client("edge-1")
    signer = public_key_text(Ed25519PrivateKey.generate().public_key())
    path = tmp_path / "agent.toml"
    path.write_text(
        f'device_id = "edge-1"\n[mqtt]\nservers = ["mqtts://a:8883", "mqtt://[::1]"]\nprotocol = "3.1.1"\n'
        f'ca = "{certs.ca}"\ncertificate = "{cert}"\nkey = "{key}"\n'
        f'[report]\nscan_every = "10m"\nheartbeat_every = "90s"\nreceipt_timeout = "500ms"\n'
        f'[commands]\ncontroller_keys = ["{signer}"]\nallow = ["rescan"]\n[agent]\nstate_dir = "/tmp/x"\n'
    )
    settings = load(path)
    assert settings.report.scan_every == 600
    assert settings.report.receipt_timeout == 0.5
    assert settings.mqtt.broker_addresses[1] == BrokerAddress("::1", 1883, tls=False)


def test_password_and_passphrase_come_from_elsewhere_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.toml"
    more = 'username = "edge-1"\npassword_file = "env:BROKER_PASSWORD"\nkey_passphrase_file = "command:echo words"\n'
    path.write_text(MINIMAL + more)
    settings = load(path)  # a missing variable is an error of the start, which says what to do
    with pytest.raises(SettingsError, match=r"^mqtt\.password_file: .*no variable BROKER_PASSWORD"):
        read_password(settings.mqtt)
    monkeypatch.setenv("BROKER_PASSWORD", "s3cret")
    assert read_password(settings.mqtt) == "s3cret"
    assert read_key_passphrase(settings.mqtt) == "words"
    path.write_text(MINIMAL + 'key_passphrase_file = "credential:words"\n')
    with pytest.raises(SettingsError, match=r"agent\.toml: mqtt\.key_passphrase_file: .*LoadCredential=words"):
        load(path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("device_id = ", "not TOML"),
        ('[mqtt]\nservers = ["mqtt://b"]\n', "device_id"),
        (MINIMAL.replace("edge-1", "edge 1"), "device_id"),
        (MINIMAL.replace("mqtts://broker", "http://broker"), "mqtt.servers.0"),
        (MINIMAL.replace("mqtts://broker", "mqtts://u:p@broker"), "mqtt.servers.0"),
        (MINIMAL.replace('["mqtts://broker"]', "[]"), "mqtt.servers"),
        (MINIMAL + 'protcol = "5"\n', "mqtt.protcol: no such key"),
        (MINIMAL + 'certificate = "/c"\n', "certificate and key belong together"),
        (MINIMAL + 'password_file = "/p"\n', "password_file needs username"),
        (MINIMAL + 'ca = "/nowhere/ca.pem"\n', "mqtt.ca: /nowhere/ca.pem"),
        (MINIMAL + '[report]\nscan_every = "soon"\n', "report.scan_every"),
        (MINIMAL + "[report]\nscan_every = 90\n", "report.scan_every"),
        (MINIMAL + '[commands]\ncontroller_keys = ["ed25519:AAAA"]\n', "commands.controller_keys.0"),
        (MINIMAL + '[commands]\nallow = ["Rm -rf"]\n', "commands.allow.0"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    assert key in _load(tmp_path, text)


def test_a_configuration_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load(path).device_id == "edge-1"


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"/nowhere/agent\.toml: No such file"):
        load(Path("/nowhere/agent.toml"))


def test_a_key_that_other_users_can_read_is_refused_with_the_fix(tmp_path: Path) -> None:
    cert, key = Certs(tmp_path / "certs").client("edge-1")
    key.chmod(0o640)
    message = _load(tmp_path, MINIMAL + f'certificate = "{cert}"\nkey = "{key}"\n')
    assert f"chmod 600 {key}" in message
    assert "0640" in message


def test_a_certificate_of_another_device_is_refused(tmp_path: Path) -> None:
    cert, key = Certs(tmp_path / "certs").client("edge-2")
    message = _load(tmp_path, MINIMAL + f'certificate = "{cert}"\nkey = "{key}"\n')
    assert "edge-2" in message
    assert "edge-1" in message


def test_a_server_has_no_path_and_no_query() -> None:
    assert str(BrokerAddress.parse("mqtt://h:1")) == "mqtt://h:1"
    for text in ("h:1", "mqtt://", "mqtt://h/path", "mqtt://h?x=1"):
        with pytest.raises(ValueError, match="server"):
            BrokerAddress.parse(text)


def test_the_host_name_is_a_valid_device_id() -> None:
    assert default_device_id()


def test_an_unknown_action_in_the_allow_list_is_a_warning() -> None:
    settings = Settings.model_validate(
        {"device_id": "d", "mqtt": {"servers": ["mqtt://b"]}, "commands": {"allow": ["rescan", "servce.disable"]}}
    )
    (warning,) = warnings(settings)
    assert warning.startswith("commands.allow: there is no action 'servce.disable': did you mean 'service.disable'?")
    assert warning.endswith("it allows nothing")


def test_a_configuration_that_other_users_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('device_id = "a"\n[mqtt]\nservers = ["mqtt://a:1"]\n')
    path.chmod(0o666)
    with pytest.raises(SettingsError, match="chmod go-w"):
        load(path)
    path.chmod(0o644)
    assert load(path).device_id == "a"
