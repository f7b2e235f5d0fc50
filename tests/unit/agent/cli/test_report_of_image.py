"""`cordon-agent report --root DIR`: every fact is from below DIR, and nothing else is read."""

import json
import platform
import socket
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from device_agent.main import main
from schemas.posture import FullReport
from tests.support.root_folder import put, put_all

_TRACE = """
import json, os, sys
from device_agent.collectors import registry, scan
from device_agent import main, runtime
from device_agent.domain import report, report_limits
from device_agent.identity import store
import device_agent.cli.report
seen = []
KINDS = {"open", "os.listdir", "os.scandir", "os.exec", "subprocess.Popen", "socket.connect", "socket.gethostname"}
sys.addaudithook(lambda event, arguments: seen.append([event, str(arguments[0])]) if event in KINDS else None)
status = main.main(["report", "--root", sys.argv[1]])
print(json.dumps(seen), file=sys.stderr)
sys.exit(status)
"""
_DEBIAN = {
    "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "/etc/hostname": "camera-7\n",
    "/etc/passwd": "root:x:0:0::/root:/bin/sh\nguest::1000:1000::/:/bin/sh\n",
    "/etc/shadow": "root:*:19000:0:99999:7:::\nguest::19000:0:99999:7:::\n",
    "/etc/ssh/sshd_config": "PermitRootLogin yes\nInclude /etc/ssh/sshd_config.d/*.conf\n",
    "/etc/pam.d/common-auth": "auth required pam_unix.so nullok\n",
    "/etc/sudoers": "guest ALL=(ALL) NOPASSWD: ALL\n",
    "/etc/systemd/system/multi-user.target.wants/telnetd.service": "",
    "/usr/lib/systemd/system/telnetd.service": "[Service]\nExecStart=/usr/sbin/telnetd\n",
    "/usr/lib/systemd/system/ssh.service": "[Service]\n",
    "/usr/lib/modules/6.1.0-41-amd64/modules.dep": "",
    "/var/lib/dpkg/status": "Package: openssl\nStatus: install ok installed\nVersion: 3.0.17-1~deb12u2\n\n"
    "Package: libssl3\nStatus: deinstall ok config-files\nVersion: 3.0.1-1\n\n",
}


def _report(capsys: pytest.CaptureFixture[str], root: Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["report", "--root", str(root)]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    FullReport.model_validate(report)
    return report


def test_the_report_of_an_empty_root_has_nothing_of_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Apia")
    report = _report(capsys, tmp_path)
    sections = report["sections"]
    assert {name for name, section in sections.items() if section["state"] == "ok"} <= {"logging"}
    assert (report["device_id"], report["boot_id"]) == ("image", "")
    text = json.dumps(sections)
    for fact in (socket.gethostname(), platform.release(), platform.machine(), ssl.OPENSSL_VERSION.split()[1], "Apia"):
        assert fact not in text


def test_the_facts_of_an_image_are_those_of_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_all(tmp_path, _DEBIAN)
    put(tmp_path, "/usr/bin/env", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44))
    report = _report(capsys, tmp_path)
    sections = report["sections"]
    assert report["device_id"] == "camera-7"
    assert [sections["os"][key] for key in ("id", "version", "kernel", "machine")] == [
        *("debian", "12", "6.1.0-41-amd64", "aarch64")
    ]
    assert sections["openssl"]["package"]["version"] == "3.0.17-1~deb12u2"
    assert sections["updates"]["installed"] == ["openssl 3.0.17-1~deb12u2"]
    assert (sections["services"]["init"], [unit["name"] for unit in sections["services"]["units"]]) == (
        *("systemd", ["telnetd.service"]),
    )
    assert sections["access"]["empty_passwords"] == ["guest"]
    assert sections["access"]["sudo_without_password"] == ["guest"]
    assert sections["ssh"]["root_login"] == "yes"


def test_sections_that_need_a_living_system_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_all(tmp_path, {**_DEBIAN, "/proc/net/tcp": "x", "/sys/fs/selinux/enforce": "1", "/var/log/auth.log": ""})
    put_all(tmp_path, {"/etc/selinux/config": "SELINUX=enforcing\n"})
    sections = _report(capsys, tmp_path)["sections"]
    for name in ("sockets", "firewall", "disk", "integrity", "software"):
        assert (sections[name]["state"], sections[name]["reason"][:20]) == ("unknown", "needs a living syste")
    gaps = {(name, gap["fact"]): gap["reason"] for name in sections for gap in sections[name].get("gaps", [])}
    for gap in (
        *(("updates", fact) for fact in ("pending", "security_pending", "kernel_current", "reboot_required")),
        *(("access", "failed_logins"), ("mac", "mode"), ("openssl", "stale_processes")),
    ):
        assert gap in gaps
    assert (sections["mac"]["mode"], sections["mac"]["configured"]) == ("unknown", "enforcing")


def test_nothing_outside_of_the_image_is_opened_and_nothing_of_it_is_run(tmp_path: Path) -> None:
    put(tmp_path, "outside/passwd", "thief::0:0::/:/bin/sh\n")
    root = put_all(tmp_path / "image", _DEBIAN)
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(tmp_path / "outside/passwd")
    (root / "etc/sudoers.d").symlink_to("/etc/sudoers.d")
    (root / "etc/ssl").symlink_to("../../../../../../../etc/ssl")
    for name in ("etc/group", "etc/pam.d/login", "etc/apt", "etc/openssl.cnf", "etc/localtime", "var/log"):
        (root / name).symlink_to(f"/proc/self/root/{name}")
    put(root, "usr/bin/openssl", "#!/bin/sh\ntouch /tmp/ran\n", 0o755)
    traced = subprocess.run(
        [sys.executable, "-c", _TRACE, str(root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
        timeout=60,
    )
    assert "thief" not in traced.stdout
    events = [(kind, path) for kind, path in json.loads(traced.stderr.splitlines()[-1])]
    programs = {path.rpartition("/")[2] for kind, path in events if kind in {"subprocess.Popen", "os.exec"}}
    assert programs <= {"cvtsudoers", "rpm"}
    assert {kind for kind, _ in events} <= {"open", "os.listdir", "os.scandir", "subprocess.Popen"}
    own = (*sysconfig.get_paths().values(), *(path for path in sys.path if path), sys.base_prefix, "/proc/self/fd/")
    for kind, path in events:
        if kind == "subprocess.Popen" or not path.startswith("/"):  # a name in an opened folder, or a descriptor
            continue
        assert path == str(root) or path.startswith(own), (kind, path)
    assert not any(path.startswith("..") or "/.." in path for _, path in events)


@pytest.mark.parametrize(
    ("root", "line"),
    [
        ("/", "cordon-agent: --root: / is the root of this machine: leave --root out to examine it"),
        ("{tmp}/none", "cordon-agent: --root {tmp}/none: No such file or directory"),
        ("{tmp}/file", "cordon-agent: --root {tmp}/file: Not a directory"),
    ],
)
def test_a_wrong_root_is_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], root: str, line: str
) -> None:
    put(tmp_path, "file")
    assert main(["report", "--root", root.format(tmp=tmp_path)]) == 2
    assert capsys.readouterr().err.strip() == line.format(tmp=tmp_path)


def test_root_and_config_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["report", "--root", str(tmp_path), "--config", "agent.toml"])
    assert "not allowed with" in capsys.readouterr().err
