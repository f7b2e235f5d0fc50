"""Sealed secrets: only with the key, and only for the account that they were sealed for."""

from pathlib import Path

import pytest

from controller.adapters.sealing import open_sealer
from controller.ports.errors import SettingsError
from controller.ports.factors import SealError


def test_secrets_are_opened_with_their_key_and_for_their_account_only(tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path / "cordon.db.factor-key")
    sealed = sealer.seal("a1", b"secret")
    assert b"secret" not in sealed.encode()
    assert open_sealer(tmp_path / "cordon.db.factor-key").open("a1", sealed) == b"secret"
    for other, account, text in (
        (sealer, "a2", sealed),
        (open_sealer(tmp_path / "other.db.factor-key"), "a1", sealed),
        (sealer, "a1", sealed[:-4]),
        (sealer, "a1", "?"),
        (sealer, "a1", ""),
    ):
        with pytest.raises(SealError, match="factor-key"):
            other.open(account, text)


def test_the_key_is_its_owners_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cordon.db.factor-key"
    open_sealer(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        open_sealer(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(SettingsError, match="factor-key"):
        open_sealer(path)
