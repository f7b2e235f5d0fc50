"""Requirements of updates on the device: values are ordered in their own scheme, or the update is refused."""

from pathlib import Path

import pytest

from device_agent.host.system import System
from device_agent.updates.errors import UpdateError
from device_agent.updates.requirements import DeviceProfile, check_requirements
from schemas.updates import InstallerKind, UpdateRefusalCode, UpdateTarget


def check(
    tmp_path: Path, what: str, op: str, value: str, installed: str, installer: InstallerKind | None = None
) -> str:
    """Returns why the requirement is not met, empty if it is."""
    target = UpdateTarget.model_validate(
        {
            "name": "app", "version": "1.0", "kind": "file", "installer": "fileset", "classes": ["*"],
            "requires": [{"what": what, "op": op, "value": value}],
        }
    )  # fmt: skip
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text(f'ID=debian\nVERSION_ID="{installed}"\n')
    profile = DeviceProfile("", (), False, tmp_path, System(tmp_path))
    try:
        check_requirements(target, profile, {"lib": installed}, {} if installer is None else {"lib": installer})
    except UpdateError as e:
        return str(e) if e.code is UpdateRefusalCode.PRECONDITION else f"another code: {e.code}"
    return ""


@pytest.mark.parametrize(
    ("installer", "installed", "op", "value", "is_met"),
    [
        (InstallerKind.FILESET, "1.10", ">=", "1.9", True),
        (InstallerKind.SCRIPT, "1.4.0-rc.1", ">=", "1.4.0", False),
        (InstallerKind.HOOK, "1.4.0", "==", "1.4", True),
        (InstallerKind.APT, "1:1.0", ">=", "2.0", True),
        (InstallerKind.APT, "1.0~rc1", ">=", "1.0", False),
        (InstallerKind.APT, "1.0a", ">=", "1.0", True),
        (InstallerKind.FILESET, "1.0~rc1", "!=", "1.0", True),
        (InstallerKind.FILESET, "", ">=", "1.0", False),
    ],
)
def test_versions_are_ordered_in_the_scheme_of_their_installer(
    tmp_path: Path, installer: InstallerKind, installed: str, op: str, value: str, is_met: bool
) -> None:
    reason = check(tmp_path, "installed:lib", op, value, installed, installer)
    assert bool(reason) is not is_met
    assert "no order" not in reason
    assert "another code" not in reason


@pytest.mark.parametrize(
    ("what", "installed", "op", "value", "installer"),
    [
        ("installed:lib", "1.0_git20240101", ">=", "1.0", InstallerKind.FILESET),
        ("installed:lib", "1.0rc1", ">=", "1.0", InstallerKind.SCRIPT),
        ("installed:lib", "1:1.0", "<", "2.0", InstallerKind.HOOK),
        ("os_version", "15-SP5", ">=", "15", None),
        ("os", "12", ">=", "alpine", None),
    ],
)
def test_without_an_order_the_update_is_refused_and_not_guessed(
    tmp_path: Path, what: str, installed: str, op: str, value: str, installer: InstallerKind | None
) -> None:
    assert "no order of the two is defined" in check(tmp_path, what, op, value, installed, installer)
