"""Renewed pairs in the state folder, each as one file, so that a crash leaves a whole pair: the old one or the new one.

`pending.key`: a key whose certificate was asked for. `candidate.pem`: a new pair that has not connected yet.
`current.pem`: the pair that connected last; it counts before the configured one as long as it is the younger one.
"""

from pathlib import Path
from typing import Any, Final

from device_agent.host.certificate import CertificateInfo, IdentityError, leaf_in, read_file
from device_agent.host.files import sync_folder, write_whole
from device_agent.settings import Settings, load

FOLDER: Final = "identity"
_FOLDER_MODE: Final = 0o700


class IdentityStore:
    """The three files of one device."""

    def __init__(self, state_dir: Path, passphrase: str | None) -> None:
        """Look into the state folder; nothing is made before it is needed."""
        self._folder = state_dir / FOLDER
        self._passphrase = passphrase
        self.current = self._folder / "current.pem"
        self.candidate = self._folder / "candidate.pem"
        self._pending = self._folder / "pending.key"

    def pending_key(self) -> Any:
        """The key that is waiting for its certificate; the same one after a restart.

        Raises:
            IdentityError, OSError: it cannot be read, or cannot be kept.
        """
        from device_agent.identity.keypair import key_text, new_key, read_key  # X.509 is large: only to renew

        if self._pending.exists():
            return read_key(read_file(self._pending), self._passphrase)
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        key = new_key()
        self._write(self._pending, key_text(key, self._passphrase))
        return key

    def offer(self, certificate: str, chain: str, device_id: str) -> CertificateInfo:
        """Keep a certificate for the pending key as the candidate.

        Raises:
            IdentityError: it is not for this key, or for another device.
            OSError: it cannot be kept.
        """
        from device_agent.identity.keypair import key_text, public_bytes, read_leaf

        leaf, key = read_leaf(certificate.encode()), self.pending_key()
        if leaf.name != device_id or leaf.key != public_bytes(key.public_key()):
            raise IdentityError("this certificate is not for the key that asked for it")
        self._write(self.candidate, key_text(key, self._passphrase) + certificate.encode() + chain.encode())
        return leaf

    def promote(self) -> None:
        """The candidate has connected: it is the pair from now on, in one step.

        Raises:
            OSError: the disk refuses; the candidate stays one.
        """
        self.candidate.replace(self.current)
        self._pending.unlink(missing_ok=True)
        sync_folder(self._folder)

    def discard(self) -> None:
        """The candidate will not do; the next one gets another key."""
        self.candidate.unlink(missing_ok=True)
        self._pending.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        write_whole(path, path.with_name(f".{path.name}.new"), content)


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
        renewed, configured = leaf_in(current), leaf_in(mqtt.certificate)
    except IdentityError:
        return settings
    if renewed.name != settings.device_id or renewed.start < configured.start:
        return settings
    return settings.model_copy(update={"mqtt": mqtt.model_copy(update={"certificate": current, "key": current})})
