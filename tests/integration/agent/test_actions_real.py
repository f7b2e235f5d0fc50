"""Actions on real parts of a system: a running sshd, unit files with systemctl, sockets of the kernel."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.actions.base import ActionError, InvalidParamsError
from device_agent.actions.logs import EnableAudit
from device_agent.actions.mac import EnforceMac
from device_agent.actions.port import ClosePort
from device_agent.actions.scan_run import RunScan
from device_agent.actions.service import DisableService
from device_agent.actions.ssh import SetSshOption
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System
from device_agent.host.systemd import OfflineUnitFiles
from tests.support.mosquitto import free_port
from tests.support.waiting import wait_for

SSHD: Final = shutil.which("sshd")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_sshd = pytest.mark.skipif(SSHD is None, reason="needs sshd (Debian: openssh-server)")
needs_systemctl = pytest.mark.skipif(shutil.which("systemctl") is None, reason="needs systemctl")


@pytest.fixture
def ssh_root(tmp_path: Path) -> Path:
    """A root with the configuration of a separate SSH server."""
    folder = tmp_path / "etc/ssh"
    folder.mkdir(parents=True)
    key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"# ours\nPort {free_port()}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile {tmp_path}/sshd.pid\n"
        "PasswordAuthentication yes\nMaxAuthTries 6\n"
    )
    return tmp_path


@contextlib.contextmanager
def running_sshd(root: Path) -> Iterator[int]:
    """Runs sshd with that configuration; yields its port."""
    config = root / "etc/ssh/sshd_config"
    port = int(config.read_text().split("Port ")[1].split()[0])
    assert SSHD is not None
    with subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: (root / "sshd.pid").exists() and _banner(port), "sshd to answer")
            yield port
        finally:
            process.send_signal(signal.SIGTERM)


def _banner(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(64)
    except OSError:
        return b""


def _methods(port: int) -> str:
    """Returns the authentication methods that the running server offers."""
    argv = ["ssh", "-v", "-p", str(port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
    argv += ["-o", "UserKnownHostsFile=/dev/null", "-o", "PreferredAuthentications=none", "nobody@127.0.0.1", "true"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30).stderr
    lines = [line for line in said.splitlines() if "Authentications that can continue" in line]
    return lines[0].rpartition(": ")[2] if lines else ""


@needs_root
@needs_sshd
def test_password_authentication_of_a_running_sshd_is_disabled_and_restored(ssh_root: Path) -> None:
    config = ssh_root / "etc/ssh/sshd_config"
    before = config.read_text()
    action, params = SetSshOption(System(ssh_root)), {"option": "PasswordAuthentication", "value": "no"}
    with running_sshd(ssh_root) as port:
        assert "password" in _methods(port)
        action.check(params)
        plan = action.plan(params)
        assert "sshd -t" in plan.changes
        assert config.read_text() == before, "a plan changes nothing"
        action.apply(params, plan.before)
        verified = action.verify(params, plan.before)
        assert (verified.is_reached, verified.after) == (True, {"is": "passwordauthentication no"})
        wait_for(lambda: "password" not in (_methods(port) or "password"), "sshd to have read it again")
        assert action.undo(params, plan.before) == "put back as it was"
        assert config.read_text() == before
        wait_for(lambda: "password" in _methods(port), "sshd to have read the old one again")


@needs_root
@needs_sshd
def test_several_options_share_a_block_and_the_last_value_wins(ssh_root: Path) -> None:
    action = SetSshOption(System(ssh_root))
    for option, value in (
        ("MaxAuthTries", 3),
        ("PermitRootLogin", "no"),
        ("MaxAuthTries", 4),
        ("X11Forwarding", False),
    ):
        params: dict[str, Any] = {"option": option, "value": value}
        action.check(params)
        action.apply(params, action.plan(params).before)
        assert action.verify(params, {}).is_reached
    text = (ssh_root / "etc/ssh/sshd_config").read_text()
    assert text.startswith(
        "# cordon: begin\nMaxAuthTries 4\nPermitRootLogin no\nX11Forwarding no\n# cordon: end\n# ours\n"
    )


@needs_root
@needs_sshd
def test_a_configuration_that_sshd_refuses_is_not_written(ssh_root: Path) -> None:
    config = ssh_root / "etc/ssh/sshd_config"
    action, params = SetSshOption(System(ssh_root)), {"option": "MaxAuthTries", "value": "3"}
    plan = action.plan(params)
    config.write_text(config.read_text() + "NoSuchWord yes\n")
    broken = config.read_text()
    with pytest.raises(ActionError, match="sshd refuses it"):
        action.apply(params, plan.before)
    assert config.read_text() == broken
    assert [path.name for path in config.parent.iterdir() if "cordon" in path.name] == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("PermitRootLogin", "yes"),
        ("AuthorizedKeysCommand", "/bin/sh"),
        ("MaxAuthTries", 99),
        ("MaxAuthTries", "3\nPermitRootLogin yes"),
        ("PasswordAuthentication", None),
        ("", "yes"),
    ],
)
def test_unsafe_ssh_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidParamsError):
        SetSshOption(System()).check({"option": option, **({} if value is None else {"value": value})})


class RecordedSystemd:
    """A recorded systemd: `systemctl --root` enables units, this object remembers which of them run."""

    def __init__(self, root: Path, recorded: Mapping[str, Mapping[str, str]]) -> None:
        self._files = OfflineUnitFiles(System(root))
        self._recorded = recorded
        self.active = {unit for unit, fields in recorded.items() if fields.get("ActiveState", "active") == "active"}
        self.done: list[tuple[str, ...]] = []
        self.refuses = ""

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        known = dict(self._files.show(unit, *properties))
        known |= {key: value for key, value in self._recorded.get(unit, {}).items() if key in properties}
        if "ActiveState" in properties:
            known["ActiveState"] = "active" if unit in self.active else "inactive"
        return known

    def run_verb(self, verb: str, *units: str) -> None:
        self.done.append((verb, *units))
        if verb == self.refuses:
            raise ExecuteError(f"systemctl {verb} ended with status 1: recorded")
        self._files.run_verb(verb, *units)
        if verb == "stop":
            self.active -= set(units)
        if verb == "start":
            self.active |= set(units)


@pytest.fixture
def unit_root(tmp_path: Path) -> Path:
    """A root with unit files of a telnet server, its dependents, and auditd."""
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for name in ("telnetd", "gateway", "auditd"):
        (folder / f"{name}.service").write_text(
            f"[Service]\nExecStart=/usr/sbin/{name}\n[Install]\nWantedBy=multi-user.target\n"
        )
    (folder / "telnetd.socket").write_text("[Socket]\nListenStream=23\n[Install]\nWantedBy=sockets.target\n")
    for unit in ("telnetd.service", "telnetd.socket", "gateway.service"):
        subprocess.run(["systemctl", f"--root={tmp_path}", "-q", "enable", unit], check=True, capture_output=True)
    return tmp_path


def _enabled(root: Path) -> set[str]:
    return {path.name for path in (root / "etc/systemd/system").rglob("*.*") if path.is_symlink()}


@needs_systemctl
def test_units_below_a_root_are_disabled_by_the_real_systemctl(unit_root: Path) -> None:
    action, params = DisableService(System(unit_root)), {"name": "telnetd"}
    plan = action.plan(params)
    assert plan.changes == "systemctl disable --now telnetd.service telnetd.socket"
    assert _enabled(unit_root) == {"telnetd.service", "telnetd.socket", "gateway.service"}
    action.apply(params, plan.before)
    assert _enabled(unit_root) == {"gateway.service"}
    assert action.verify(params, plan.before).after == {"is": "disabled, inactive"}
    assert not action.plan(params).is_needed
    action.undo(params, plan.before)
    assert _enabled(unit_root) == {"telnetd.service", "telnetd.socket", "gateway.service"}


@needs_systemctl
@pytest.mark.recorded_fake
def test_a_service_that_others_require_is_not_disabled(unit_root: Path) -> None:
    systemd = RecordedSystemd(
        unit_root,
        {
            "telnetd.service": {"RequiredBy": "gateway.service idle.service", "TriggeredBy": "telnetd.socket"},
            "gateway.service": {"BoundBy": "cordon-agent.service"},
            "cordon-agent.service": {},
            "idle.service": {"ActiveState": "inactive"},
        },
    )
    action = DisableService(System(unit_root), systemd)
    with pytest.raises(ActionError) as caught:
        action.plan({"name": "telnetd"})
    assert str(caught.value) == (
        "telnetd.service is needed by gateway.service, cordon-agent.service (through gateway.service): "
        "stopping it would stop that too"
    )
    assert systemd.done == []


@needs_systemctl
@pytest.mark.recorded_fake
def test_triggers_are_stopped_before_their_service_and_a_failure_is_undone(unit_root: Path) -> None:
    systemd = RecordedSystemd(unit_root, {"telnetd.service": {"TriggeredBy": "telnetd.socket"}, "telnetd.socket": {}})
    action, params = DisableService(System(unit_root), systemd), {"name": "telnetd.service"}
    plan = action.plan(params)
    action.apply(params, plan.before)
    assert systemd.done[1] == ("stop", "telnetd.socket", "telnetd.service")
    assert action.verify(params, plan.before).is_reached
    assert _enabled(unit_root) == {"gateway.service"}
    action.undo(params, plan.before)
    systemd.refuses = "stop"
    with pytest.raises(ActionError, match="recorded"):
        action.apply(params, plan.before)
    action.undo(params, plan.before)
    assert systemd.active == {"telnetd.service", "telnetd.socket"}
    assert _enabled(unit_root) == {"telnetd.service", "telnetd.socket", "gateway.service"}


@needs_systemctl
def test_auditd_is_enabled_and_started(unit_root: Path) -> None:
    action = EnableAudit(System(unit_root))
    plan = action.plan({})
    action.apply({}, plan.before)
    assert action.verify({}, plan.before).is_reached
    assert "auditd.service" in _enabled(unit_root)
    assert not action.plan({}).is_needed
    action.undo({}, plan.before)
    assert "auditd.service" not in _enabled(unit_root)
    (unit_root / "usr/lib/systemd/system/auditd.service").unlink()
    with pytest.raises(ActionError, match="auditd is not installed"):
        action.plan({})


@needs_systemctl
@pytest.mark.recorded_fake
def test_a_port_is_closed_by_disabling_its_service(unit_root: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    net, process = unit_root / "proc/net", unit_root / "proc/77"
    net.mkdir(parents=True)
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("telnetd\n")
    (process / "cgroup").write_text("0::/system.slice/telnetd.service\n")
    (process / "fd/3").symlink_to(f"socket:[{os.fstat(listener.fileno()).st_ino}]")
    table = Path("/proc/self/net/tcp").read_text()
    (net / "tcp").write_text(table)
    listener.close()
    systemd = RecordedSystemd(unit_root, {"telnetd.service": {}, "telnetd.socket": {}})
    action, params = ClosePort(System(unit_root), systemd), {"port": port}
    action.check(params)
    plan = action.plan(params)
    assert (plan.before["by"], plan.changes) == ("service telnetd.service", "systemctl disable --now telnetd.service")
    assert action.broker_timeout_seconds(params, plan.before) == 0.0
    action.apply(params, plan.before)
    (net / "tcp").write_text(table.splitlines()[0] + "\n")
    assert action.verify(params, plan.before).after == {"is": "closed"}
    assert systemd.active == {"telnetd.socket"}
    assert not action.plan(params).is_needed
    action.undo(params, plan.before)
    assert systemd.active == {"telnetd.service", "telnetd.socket"}


@needs_root
def test_a_missing_tool_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    action = RunScan(System(is_root_user=True))
    action.check({"tool": "lynis"})
    with pytest.raises(ActionError, match="lynis is not installed"):
        action.plan({"tool": "lynis"})
    with pytest.raises(InvalidParamsError):
        action.check({"tool": "rm"})


@needs_root
@pytest.mark.recorded_fake
def test_a_tool_run_succeeds_only_with_a_new_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "lynis"
    program.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[-1], 'w').write('report_version_major=1')\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    report = tmp_path / "log/lynis-report.dat"
    action, params = RunScan(System(is_root_user=True), {"lynis": report}), {"tool": "lynis"}
    plan = action.plan(params)
    assert plan.changes.startswith("lynis audit system")
    assert not report.exists()
    action.apply(params, plan.before)
    assert action.verify(params, plan.before).is_reached
    again = action.plan(params)
    assert not action.verify(params, again.before).is_reached
    time.sleep(0.01)
    action.apply(params, again.before)
    assert action.verify(params, again.before).is_reached


@needs_root
@pytest.mark.skipif(shutil.which("lynis") is None, reason="needs lynis (Debian: lynis)")
def test_lynis_runs_after_a_killed_run(tmp_path: Path) -> None:
    options = ["--tests", "KRNL-5820", "--plugindir", str(tmp_path), "--log-file", str(tmp_path / "lynis.log")]
    report = tmp_path / "report.dat"
    action, params = RunScan(System(is_root_user=True), {"lynis": report}, options), {"tool": "lynis"}
    leftover = Path("/run/lynis.pid")
    leftover.write_text("4194303\n")
    try:
        plan = action.plan(params)
        action.apply(params, plan.before)
        assert action.verify(params, plan.before).is_reached
        assert "finish=true" in report.read_text()
    finally:
        leftover.unlink(missing_ok=True)


@pytest.mark.recorded_fake
@pytest.mark.skipif(shutil.which("aa-enforce") is None, reason="needs aa-enforce (Debian: apparmor-utils)")
def test_aa_enforce_accepts_the_profile_names_of_the_kernel(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    shutil.copytree("/etc/apparmor.d", profiles)
    body = "#include <tunables/global>\n{} flags=(complain) {{\n  /etc/passwd r,\n{}}}\n"
    child = "  profile child flags=(complain) {\n    /etc/group r,\n  }\n"
    (profiles / "usr.bin.demo").write_text(body.format("/usr/bin/demo", ""))
    (profiles / "named").write_text(body.format("profile named /usr/bin/named", child))
    # Stands for the list in the kernel, which only changes with AppArmor in the kernel.
    listed = tmp_path / "root/sys/kernel/security/apparmor/profiles"
    listed.parent.mkdir(parents=True)
    listed.write_text("/usr/bin/demo (complain)\nnamed (complain)\nnamed//child (complain)\n/usr/bin/man (enforce)\n")
    action = EnforceMac(System(tmp_path / "root", is_root_user=True), ["--no-reload", "-d", str(profiles)])
    plan = action.plan({})
    assert plan.changes == "aa-enforce /usr/bin/demo named"
    action.apply({}, plan.before)
    assert not any("complain" in (profiles / name).read_text() for name in ("usr.bin.demo", "named"))
    assert not action.verify({}, plan.before).is_reached
    listed.write_text(listed.read_text().replace("complain", "enforce"))
    assert action.verify({}, plan.before).is_reached
    assert not action.plan({}).is_needed
