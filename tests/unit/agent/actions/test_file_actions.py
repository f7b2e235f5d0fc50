"""Actions that change files: plan, apply, verify and undo on prepared roots of several distributions."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from device_agent.actions.account import LockAccount
from device_agent.actions.base import JOURNAL_ONLY, ActionError, InvalidParamsError, RemediationAction
from device_agent.actions.edit import MAX_FILE_BYTES, option, read, set_option, write
from device_agent.actions.key import RestrictKey
from device_agent.actions.logs import PersistLogs
from device_agent.actions.mac import EnforceMac
from device_agent.actions.password import SetPasswordPolicy
from device_agent.actions.service import DisableService
from device_agent.actions.source import DisableSource
from device_agent.host.system import System
from tests.support.root_folder import put

SHADOW = """root:$y$j9T$abc:19000:0:99999:7:::
pi:$6$salt$hash:19000:0:99999:7:::
locked:!$6$salt$hash:19000:0:99999:7::20000:
daemon:*:19000:0:99999:7:::
"""


def tree(root: Path) -> dict[str, tuple[str, int]]:
    """Returns content and mode of every file below a root."""
    return {
        str(path.relative_to(root)): (path.read_text(), stat.S_IMODE(path.stat().st_mode))
        for path in root.rglob("*")
        if path.is_file() and path.name != ".pwd.lock"
    }


def apply_and_undo(action: RemediationAction, params: dict[str, Any], root: Path) -> tuple[str, str]:
    """Plans, applies twice, verifies and undoes; returns the described state before and after."""
    action.check(params)
    files = tree(root)
    plan = action.plan(params)
    assert plan.is_needed
    assert plan.changes
    assert tree(root) == files, "a plan changes nothing"
    before = json.loads(json.dumps(dict(plan.before)))  # as the journal returns it
    action.apply(params, before)
    verification = action.verify(params, before)
    assert verification.is_reached
    changed = tree(root)
    assert changed != files
    assert not [name for name in changed if ".cordon" in name], "no temporary file is left"
    action.apply(params, before)
    assert tree(root) == changed, "a second application, as after a kill, changes nothing more"
    again = action.plan(params)
    assert (again.is_needed, again.changes) == (False, "nothing")
    action.undo(params, before)
    assert tree(root) == files
    assert not action.verify(params, before).is_reached
    return plan.before["was"], verification.after["is"]


def test_password_limits_are_set(tmp_path: Path) -> None:
    put(tmp_path, "/etc/login.defs", "# PASS_MAX_DAYS 1\nPASS_MAX_DAYS\t99999\nUMASK 022\nPASS_MAX_DAYS 9\n")
    put(tmp_path, "/etc/security/pwquality.conf", "# minlen = 8\nminclass=1\n", 0o600)
    params = {"max_days": 90, "min_length": 14, "min_classes": 3}
    before, now = apply_and_undo(SetPasswordPolicy(System(tmp_path)), params, tmp_path)
    assert before == "PASS_MAX_DAYS 99999, minclass 1, PASS_MIN_LEN not set, minlen not set"
    assert now == "PASS_MAX_DAYS 90, minclass 3, PASS_MIN_LEN 14, minlen 14"


def test_without_pwquality_its_file_is_not_created(tmp_path: Path) -> None:
    put(tmp_path, "/etc/login.defs", "PASS_MIN_LEN 5\n")
    apply_and_undo(SetPasswordPolicy(System(tmp_path)), {"min_length": 14}, tmp_path)
    with pytest.raises(InvalidParamsError, match="needs pwquality"):
        SetPasswordPolicy(System(tmp_path)).check({"min_classes": 3})


@pytest.mark.parametrize(
    "params",
    [{}, {"max_days": 0}, {"max_days": "90"}, {"max_days": True}, {"min_length": 5}, {"other": 1}, {"min_classes": 5}],
)
def test_password_limits_out_of_bounds_are_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError):
        SetPasswordPolicy(System(tmp_path)).check(params)


@pytest.mark.parametrize(("name", "before"), [("pi", "open"), ("locked", "password locked"), ("daemon", "open")])
def test_a_locked_account_keeps_its_hash(tmp_path: Path, name: str, before: str) -> None:
    put(tmp_path, "/etc/shadow", SHADOW, 0o640)
    action = LockAccount(System(tmp_path))
    plan = action.plan({"name": name})
    assert "hash" not in json.dumps(dict(plan.before))
    assert apply_and_undo(action, {"name": name}, tmp_path) == (before, "locked")


def test_root_and_invalid_accounts_are_not_locked(tmp_path: Path) -> None:
    action = LockAccount(System(tmp_path))
    for name in ("root", "a b", "-x", "../x", "A:b", ""):
        with pytest.raises(InvalidParamsError):
            action.check({"name": name})
    with pytest.raises(ActionError, match="no /etc/shadow"):
        action.plan({"name": "pi"})
    put(tmp_path, "/etc/shadow", SHADOW)
    with pytest.raises(ActionError, match="no account nobody"):
        action.plan({"name": "nobody"})


def _key(root: Path, mode: int, folder: int) -> Path:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = put(root, "/etc/ssl/private/device.key", pem.decode(), mode)
    path.parent.chmod(folder)
    return path


@pytest.mark.parametrize(
    ("mode", "params", "after"),
    [(0o644, {}, 0o600), (0o777, {}, 0o600), (0o644, {"keep_group": True}, 0o640), (0o444, {}, 0o400)],
)
def test_a_key_is_restricted_to_its_owner(tmp_path: Path, mode: int, params: dict[str, Any], after: int) -> None:
    path = _key(tmp_path, mode, 0o775)
    params = {"path": "/etc/ssl/private/device.key", **params}
    before, now = apply_and_undo(RestrictKey(System(tmp_path)), params, tmp_path)
    assert f"mode {mode:04o}" in before
    assert f"mode {after:04o}" in now
    assert "folder 0755" in now
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o775


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_key_is_given_to_root(tmp_path: Path) -> None:
    path = _key(tmp_path, 0o600, 0o700)
    os.chown(path, 1234, 1234)
    action = RestrictKey(System(tmp_path))
    params: dict[str, Any] = {"path": "/etc/ssl/private/device.key", "own": True}
    plan = action.plan(params)
    assert "chown root" in plan.changes
    action.apply(params, plan.before)
    assert action.verify(params, plan.before).is_reached
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 1234)
    action.undo(params, plan.before)
    assert path.stat().st_uid == 1234


def test_only_private_keys_are_restricted(tmp_path: Path) -> None:
    action = RestrictKey(System(tmp_path))
    put(tmp_path, "/etc/motd", "welcome")
    (tmp_path / "etc/link.key").symlink_to(_key(tmp_path, 0o644, 0o755))
    for path, reason in (("/etc/motd", "not a private key"), ("/etc/link.key", "symbolic"), ("/etc/none", "No such")):
        with pytest.raises(ActionError, match=reason):
            action.plan({"path": path})
    with pytest.raises(ActionError, match="not a private key"):
        action.plan({"path": "/etc"})
    for bad in ("etc/x", "/etc/../x", "/etc/x\n", "", 7):
        with pytest.raises(InvalidParamsError):
            action.check({"path": bad})


SOURCES = {
    "debian": {
        "/etc/apt/sources.list": "# main\ndeb http://deb.example/debian bookworm main\n"
        "deb [trusted=yes] http://x.example/d ./\n",
        "/etc/apt/sources.list.d/x.sources": "Types: deb\nURIs: http://x.example/d/\nSuites: ./\n\n"
        "# other\nTypes: deb\nURIs: http://deb.example/debian\nSuites: bookworm\n",
    },
    "fedora": {
        "/etc/yum.repos.d/x.repo": "[main]\nname=Main\nbaseurl=https://f.example/\nenabled=1\n"
        "[x]\nname=X\nbaseurl=http://x.example/d\nenabled=1\ngpgcheck=0\n",
    },
    "alpine": {"/etc/apk/repositories": "https://a.example/main\n@edge http://x.example/d\n"},
    "openwrt": {"/etc/opkg/customfeeds.conf": "# src/gz off http://x.example/d\nsrc/gz x http://x.example/d\n"},
}


@pytest.mark.parametrize("shape", SOURCES)
def test_a_package_source_is_disabled_in_every_file(tmp_path: Path, shape: str) -> None:
    for place, text in SOURCES[shape].items():
        put(tmp_path, place, text)
    action, params = DisableSource(System(tmp_path)), {"source": "http://x.example/d/"}
    assert apply_and_undo(action, params, tmp_path) == ("enabled", "disabled")
    plan = action.plan(params)
    action.apply(params, plan.before)
    for place, text in SOURCES[shape].items():
        after = (tmp_path / place.lstrip("/")).read_text()
        kept = [line for line in text.splitlines() if "x.example" not in line and not line.startswith("enabled=")]
        assert [line for line in kept if line not in after.splitlines()] == [], "other lines do not change"


def test_other_stanzas_and_sections_stay_enabled(tmp_path: Path) -> None:
    put(tmp_path, "/etc/apt/sources.list.d/x.sources", SOURCES["debian"]["/etc/apt/sources.list.d/x.sources"])
    put(tmp_path, "/etc/yum.repos.d/x.repo", SOURCES["fedora"]["/etc/yum.repos.d/x.repo"])
    action = DisableSource(System(tmp_path))
    action.apply({"source": "http://x.example/d"}, {})
    stanzas = (tmp_path / "etc/apt/sources.list.d/x.sources").read_text().split("\n\n")
    assert ["Enabled: no" in stanza for stanza in stanzas] == [True, False]
    sections = (tmp_path / "etc/yum.repos.d/x.repo").read_text().split("[x]")
    assert ["enabled=0" in section for section in sections] == [False, True]
    assert action.plan({"source": "main"}).changes == "disable main in /etc/yum.repos.d/x.repo"


def test_an_unknown_package_source_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "/etc/apk/repositories", "https://a.example/main\n")
    with pytest.raises(ActionError, match="no package source"):
        DisableSource(System(tmp_path)).plan({"source": "http://x.example/d"})
    for bad in ("", "a b", "a'b", "-x", 7):
        with pytest.raises(InvalidParamsError):
            DisableSource(System(tmp_path)).check({"source": bad})


def test_the_journal_is_made_persistent(tmp_path: Path) -> None:
    action = PersistLogs(System(tmp_path))
    with pytest.raises(ActionError, match="no journald"):
        action.plan({})
    put(tmp_path, "/usr/lib/systemd/systemd-journald", "")
    assert apply_and_undo(action, {}, tmp_path) == ("as the distribution configures it", "persistent")


def test_selinux_is_set_to_enforcing_below_a_root(tmp_path: Path) -> None:
    action = EnforceMac(System(tmp_path))
    with pytest.raises(ActionError, match="neither SELinux nor AppArmor"):
        action.plan({})
    put(tmp_path, "/etc/selinux/config", "# SELINUX=disabled\nSELINUX=permissive\nSELINUXTYPE=targeted\n")
    before, now = apply_and_undo(action, {}, tmp_path)
    assert before == "selinux: permissive, kernel not loaded"
    assert now == "selinux: enforcing, kernel not loaded"
    put(tmp_path, "/etc/selinux/config", "SELINUX=disabled\n")
    with pytest.raises(ActionError, match="disabled: it needs every file labelled"):
        action.plan({})


def test_large_and_binary_files_are_not_changed(tmp_path: Path) -> None:
    put(tmp_path, "/etc/login.defs", "x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ActionError, match="larger than"):
        SetPasswordPolicy(System(tmp_path)).plan({"max_days": 90})
    (tmp_path / "etc/login.defs").write_bytes(b"\xff\xfe")
    with pytest.raises(ActionError, match="not text"):
        SetPasswordPolicy(System(tmp_path)).plan({"max_days": 90})


def test_a_link_is_not_followed_out_of_a_prepared_root(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside", "as it was")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").symlink_to(outside)
    with pytest.raises(ActionError, match="a link"):
        write(System(tmp_path / "root"), "/file", "changed")
    assert outside.read_text() == "as it was"


def test_options_are_set_and_read() -> None:
    assert set_option("A 1\n#B 2\nA 3\n", "A", "9", " ") == "A 9\n#B 2\n"
    assert set_option("", "A", "9", "=") == "A=9\n"
    assert (option("x\nA = 5\n", "A"), option(None, "A"), option("#A 1", "A")) == ("5", "not set", "not set")


def test_former_file_contents_stay_in_the_journal(tmp_path: Path) -> None:
    put(tmp_path, "/etc/login.defs", "PASS_MAX_DAYS 1\n")
    before = SetPasswordPolicy(System(tmp_path)).plan({"max_days": 90}).before
    assert [key for key, text in before.items() if "PASS_MAX_DAYS 1\\n" in text] == [JOURNAL_ONLY + "files"]
    assert read(System(tmp_path), "/etc/none") is None


XINETD = {
    "/etc/xinetd.conf": "defaults\n{\n  instances = 60\n}\nincludedir /etc/xinetd.d\n",
    "/etc/xinetd.d/telnet": "# on\nservice telnet\n{\n\tdisable\t= no\n\tserver\t= /usr/sbin/in.telnetd\n}\n"
    "service other {\n}\n",
    "/etc/xinetd.d/time": "service time\n{\n id = time-stream\n}\n",
}


@pytest.mark.parametrize("name", ["telnet", "xinetd:telnet", "telnetd", "in.telnetd"])
def test_an_xinetd_service_is_disabled(tmp_path: Path, name: str) -> None:
    for place, text in XINETD.items():
        put(tmp_path, place, text)
    action, params = DisableService(System(tmp_path)), {"name": name}
    plan = action.plan(params)
    assert plan.changes == "disable = yes for telnet in /etc/xinetd.d/telnet"
    before = tree(tmp_path)
    action.apply(params, plan.before)
    assert action.verify(params, plan.before).after == {"is": "disabled, inactive"}
    text = (tmp_path / "etc/xinetd.d/telnet").read_text()
    assert text.startswith("# on\nservice telnet\n{\n\tdisable = yes\n\tserver")
    assert text.endswith("service other {\n}\n")
    after = tree(tmp_path)
    action.apply(params, plan.before)
    assert tree(tmp_path) == after
    action.undo(params, plan.before)
    assert tree(tmp_path) == before
    with pytest.raises(ActionError, match="no service"):
        action.plan({"name": "inetd:telnet"})
