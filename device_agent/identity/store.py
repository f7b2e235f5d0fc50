"""Renewed key pairs in the state folder, each in one file, so that a crash leaves either the old or the new pair.

`pending.key`: the key of a certificate request. `candidate.pem`: a new pair that has not connected yet. `current.pem`:
the pair that connected last; it is used instead of the configured pair unless that is the younger one.
"""

import logging
from pathlib import Path
from typing import Any, Final

from device_agent.errors import AgentError
from device_agent.host.certificate import CertificateInfo, IdentityError, read_certificate_info, read_file
from device_agent.host.files import sync_folder, write_whole
from device_agent.mqtt_client import tls_context
from device_agent.settings import MqttSettings, Settings, load

FOLDER: Final = "identity"
_FOLDER_MODE: Final = 0o700
_log = logging.getLogger(__name__)


class IdentityStore:
    """The three files of one device."""

    def __init__(self, state_dir: Path, passphrase: str | None) -> None:
        self._folder = state_dir / FOLDER
        self._passphrase = passphrase
        self.current = self._folder / "current.pem"
        self.candidate = self._folder / "candidate.pem"
        self._pending = self._folder / "pending.key"

    def pending_key(self) -> Any:
        """Returns the key for the next certificate, the same after a restart; generates it if none can be used.

        Raises:
            IdentityError, OSError: it cannot be read or written.
        """
        from device_agent.identity.keypair import generate_key, private_key_pem, read_key  # large: only to renew

        if self._pending.exists():
            content = read_file(self._pending)
            try:
                return read_key(content, self._passphrase)
            except IdentityError as e:  # no certificate is lost with it: none has been stored for this key
                _log.warning("%s: %s; a new key is generated", self._pending, e)
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        key = generate_key()
        self._write(self._pending, private_key_pem(key, self._passphrase))
        return key

    def save_candidate(self, certificate: str, chain: str, device_id: str) -> CertificateInfo:
        """Writes the pending key with its certificate as the candidate.

        Raises:
            IdentityError: the certificate is for another key or device, or not one certificate with its chain.
            OSError: it cannot be written.
        """
        from device_agent.identity.keypair import certificate_info, private_key_pem, public_key_der
        from schemas.pem import PemError, check_chain, encode, read_certificate, read_chain

        try:
            leaf, issuers = read_certificate(certificate), read_chain(chain)
            check_chain((leaf, *issuers))
        except PemError as e:
            raise IdentityError(f"the answer's certificate cannot be used: {e}") from e
        info, key = certificate_info(leaf), self.pending_key()
        if info.name != device_id or info.public_key_der != public_key_der(key.public_key()):
            raise IdentityError("the certificate is not for the key that was sent")
        self._write(self.candidate, private_key_pem(key, self._passphrase) + encode((leaf, *issuers)).encode())
        return info

    def promote(self) -> None:
        """Makes the candidate, which has connected, the current pair (OSError: it stays the candidate)."""
        self.candidate.replace(self.current)
        self._pending.unlink(missing_ok=True)
        sync_folder(self._folder)

    def discard(self) -> None:
        """Removes the candidate and its key."""
        self.candidate.unlink(missing_ok=True)
        self._pending.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        write_whole(path, path.with_name(f".{path.name}.new"), content)


class ConfigurationFile:
    """agent.toml, and the pair that it names; notices when another pair is in its place, as after `enrol` again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mqtt: MqttSettings | None = None
        self._seen: tuple[int, ...] = ()

    def load(self) -> Settings:
        """Returns the settings with the pair that is in use (SettingsError)."""
        settings = load(self._path)
        self._mqtt = settings.mqtt
        self._seen = _file_state(settings.mqtt)
        return with_active_identity(settings)

    def has_another_pair(self) -> bool:
        """Whether the files changed since `load`, and are a pair: certificate and key are written one by one."""
        if self._mqtt is None or self._mqtt.certificate is None:
            return False
        state = _file_state(self._mqtt)
        if state in ((), self._seen):
            return False
        try:
            tls_context(self._mqtt)
        except (OSError, AgentError):
            return False
        return True


def _file_state(mqtt: MqttSettings) -> tuple[int, ...]:
    """Changes when a file of the pair does; empty while one is missing."""
    if mqtt.certificate is None or mqtt.key is None:
        return ()
    try:
        stats = [path.stat() for path in (mqtt.certificate, mqtt.key)]
    except OSError:
        return ()
    return tuple(value for one in stats for value in (one.st_ino, one.st_mtime_ns, one.st_size))


def load_active(path: Path) -> Settings:
    """Returns the settings of a configuration file with the pair that is in use (SettingsError)."""
    return with_active_identity(load(path))


def with_active_identity(settings: Settings) -> Settings:
    """Returns the settings with the renewed pair in place of the configured one, unless the configured is younger."""
    mqtt = settings.mqtt
    if mqtt.certificate is None:
        return settings
    current = settings.agent.state_dir / FOLDER / "current.pem"
    if not current.exists():
        return settings
    try:
        renewed, configured = read_certificate_info(current), read_certificate_info(mqtt.certificate)
    except IdentityError:
        return settings
    if renewed.name != settings.device_id or renewed.not_before < configured.not_before:
        return settings
    return settings.model_copy(update={"mqtt": mqtt.model_copy(update={"certificate": current, "key": current})})
