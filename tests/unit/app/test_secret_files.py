"""Keys that others can read stop a controller before it opens anything, and the refusal says what mends it."""

from pathlib import Path
from typing import Any

import pytest

from controller.adapters.tuf_repository.keys import make_online
from controller.app.adapters import check_secret_files
from controller.app.build import fleet_guards
from controller.app.run import serve
from controller.ports.errors import SettingsError
from controller.service.settings.settings import Settings
from tests.support.controller_harness import SETTINGS


def settings(**more: Any) -> Settings:
    return Settings.model_validate({**SETTINGS, **more})


def key(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("a key")
    return path


def places(base: Path) -> dict[str, tuple[Path, Settings]]:
    """Each kind of key file, and settings that name it."""
    tls = {"certificate": base / "c.pem", "key": key(base / "tls.key")}
    make_online(base / "updates" / "online", "snapshot")
    make_online(base / "updates" / "online", "timestamp")
    return {
        "api.key": (tls["key"], settings(api={"listen": "127.0.0.1:0", **tls})),
        "updates.key": (tls["key"], settings(updates={"folder": base / "none", "listen": "127.0.0.1:0", **tls})),
        "updates.folder": (
            base / "updates" / "online" / "timestamp.pem",
            settings(updates={"folder": base / "updates"}),
        ),
        "authority.folder": (key(base / "ca" / "issuing.key"), settings(authority={"folder": base / "ca"})),
    }


@pytest.mark.parametrize("what", ["api.key", "updates.key", "updates.folder", "authority.folder"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
async def test_a_key_that_others_can_read_is_refused_at_the_start(tmp_path: Path, what: str, mode: int) -> None:
    path, wanted = places(tmp_path)[what]
    check_secret_files(wanted)
    path.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        await serve(wanted)
    assert str(refused.value) == f"{what}: others can read {path}; mend it with: chmod 600 {path}"
    path.chmod(0o600)
    check_secret_files(wanted)


def test_what_is_not_configured_is_not_looked_for() -> None:
    check_secret_files(settings())


def test_whether_a_nonce_is_asked_of_all_agents_is_a_setting() -> None:
    assert not fleet_guards(settings()).must_answer
    assert fleet_guards(settings(reports={"must_answer": True})).must_answer
