"""The SSH server's settings: as its files say, on roots of several distributions, and as sshd itself resolves them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.access import ssh
from device_agent.collectors.access.ssh import parse_resolved, seconds_of, section_of
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import NotApplicableError
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put, put_all

DEBIAN = {
    "/usr/sbin/sshd": "",
    "/etc/ssh/sshd_config": (
        "# top\nInclude /etc/ssh/sshd_config.d/*.conf\nPort 22\nPort 2222\nPermitRootLogin yes\nX11Forwarding yes\n"
        "ChallengeResponseAuthentication no\nMatch User bob Address 192.0.2.0/24\n  PasswordAuthentication yes\n"
        "  AllowTcpForwarding no\nMatch all\nMaxAuthTries=3\n"
    ),
    "/etc/ssh/sshd_config.d/10-first.conf": "PermitRootLogin no\nPasswordAuthentication no\nLoginGraceTime 1m30s\n",
    "/etc/ssh/sshd_config.d/20-late.conf": "PasswordAuthentication yes\nMatch User eve\nPermitRootLogin yes\n",
    "/etc/ssh/sshd_config.d/ignored.txt": "PermitEmptyPasswords yes\n",
}


def collect_ssh(root: Path) -> dict[str, Any]:
    section = ssh.collect(System(root, is_root_user=True))
    assert normalise_findings({"ssh": section}).sections["ssh"]["state"] == "ok"
    return section


def test_includes_and_match_blocks_are_resolved_as_sshd_does(tmp_path: Path) -> None:
    section = collect_ssh(put_all(tmp_path, DEBIAN))
    assert {key: section[key] for key in ("server", "resolved", "ports", "weak_algorithms")} == {
        "server": "openssh", "resolved": False, "ports": [22, 2222], "weak_algorithms": None,
    }  # fmt: skip
    # The first value counts, as in sshd; a Match block never applies to every user.
    assert (section["root_login"], section["password_login"], section["interactive_login"]) == ("no", False, False)
    assert (section["max_auth_tries"], section["login_grace_seconds"], section["x11_forwarding"]) == (3, 90, True)
    assert section["empty_passwords"] is False
    assert section["overrides"] == [
        "Match User eve: permitrootlogin yes",
        "Match User bob Address 192.0.2.0/24: passwordauthentication yes",
    ]
    assert gap_texts(section) == ["weak_algorithms: only the server itself knows the algorithms of its version"]


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    section = collect_ssh(put_all(tmp_path, {"/etc/ssh/sshd_config": ""}))
    assert (section["root_login"], section["password_login"], section["max_auth_tries"], section["ports"]) == (
        "prohibit-password", True, 6, [22],
    )  # fmt: skip


def test_an_unreadable_file_leaves_the_settings_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(tmp_path, DEBIAN)
    original = os.open

    def raise_for_closed(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("/sshd_config"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", raise_for_closed)
    section = collect_ssh(tmp_path)
    assert (section["root_login"], section["password_login"], section["ports"]) == (None, None, None)
    assert "root_login: needs root (/etc/ssh/sshd_config)" in gap_texts(section)
    assert "overrides: needs root (/etc/ssh/sshd_config)" in gap_texts(section)


def test_circular_includes_end(tmp_path: Path) -> None:
    put_all(tmp_path, {"/etc/ssh/sshd_config": "Include sshd_config\nPermitRootLogin no\n"})
    section = collect_ssh(tmp_path)
    # sshd does not start with such a file.
    assert section["root_login"] is None
    assert "root_login: too many nested includes (/etc/ssh/sshd_config:1)" in gap_texts(section)


def test_dropbear_settings_of_openwrt_alpine_and_debian(tmp_path: Path) -> None:
    program = {"/usr/sbin/dropbear": ""}
    uci = "config dropbear\n\toption PasswordAuth 'on'\n\toption RootPasswordAuth 'off'\n\toption Port         '22'\n"
    section = collect_ssh(put_all(tmp_path / "openwrt", {**program, "/etc/config/dropbear": uci}))
    assert (section["server"], section["password_login"], section["root_login"]) == (
        "dropbear", True, "prohibit-password",
    )  # fmt: skip
    assert section["ports"] == [22]
    closed = uci.replace("PasswordAuth 'on'", "PasswordAuth 'off'") + "\toption enable '1'\n\toption RootLogin '0'\n"
    section = collect_ssh(put_all(tmp_path / "closed", {**program, "/etc/config/dropbear": closed}))
    assert (section["password_login"], section["root_login"]) == (False, "no")
    section = collect_ssh(
        put_all(tmp_path / "alpine", {**program, "/etc/conf.d/dropbear": 'DROPBEAR_OPTS="-s -T 3 -p 2022"\n'})
    )
    assert (section["password_login"], section["max_auth_tries"], section["ports"]) == (False, 3, [2022])
    debian = {**program, "/etc/default/dropbear": 'DROPBEAR_PORT=23\nDROPBEAR_EXTRA_ARGS="-w -g"\n'}
    section = collect_ssh(put_all(tmp_path / "debian", debian))
    assert (section["root_login"], section["ports"], section["max_auth_tries"]) == ("no", [23], 10)
    assert section["empty_passwords"] is False


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("/etc/default/dropbear", 'DROPBEAR_EXTRA_ARGS=" -B"\n', {"empty_passwords": True}),
        ("/etc/default/dropbear", "DROPBEAR_EXTRA_ARGS='-B -s'\n", {"empty_passwords": False, "password_login": False}),
        ("/etc/default/dropbear", 'DROPBEAR_ARGS="-s -p 2222"\n', {"password_login": False, "ports": [2222]}),
        ("/etc/default/dropbear", 'DROPBEAR_EXTRA_ARGS="-b/etc/issue.net -W65536"\n', {"password_login": True}),
        ("/etc/default/dropbear", 'DROPBEAR_EXTRA_ARGS="-Ews" # why\n', {"root_login": "no", "password_login": False}),
        ("/etc/default/dropbear", 'DROPBEAR_EXTRA_ARGS="-sp2022 $MORE"\n', {"ports": None, "password_login": None}),
        ("/etc/default/dropbear", 'DROPBEAR_EXTRA_ARGS="-s\n', {"password_login": None, "empty_passwords": None}),
        ("/etc/config/dropbear", "config dropbear\n option PasswordAuth 'off' # keys\n", {"password_login": False}),
        ("/etc/config/dropbear", "config dropbear\n option PasswordAuth 'off\n", {"password_login": None}),
        ("/etc/config/dropbear", "config dropbear\n option PasswordAuth Off\n", {"empty_passwords": None}),
    ],
)
def test_arguments_of_dropbear(path: str, text: str, expected: dict[str, Any], tmp_path: Path) -> None:
    section = collect_ssh(put_all(tmp_path, {"/usr/sbin/dropbear": "", path: text}))
    assert {key: section[key] for key in expected} == expected


def test_a_host_without_an_ssh_server_has_no_section(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError):
        ssh.collect(System(tmp_path))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120), ("2m", 120), ("1h30m", 5400), ("0", 0), ("", None), ("x", None), ("9" * 9 + "w", None)],
)  # fmt: skip
def test_time_values_are_converted_to_seconds(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


def _sshd(config: Path) -> str:
    """Returns the settings that the installed sshd resolves from a configuration file."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        pytest.skip("no sshd here")
    if os.geteuid() != 0:
        pytest.skip("sshd -T needs root")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its service creates it before it starts
    process = subprocess.run([program, "-T", "-f", str(config)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_the_files_are_read_as_the_installed_sshd_resolves_them(tmp_path: Path) -> None:
    """Sshd itself resolves the same file, so that defaults are compared with an independent source."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    text = (
        f"HostKey {key}\nPort 2022\nPort 2023\nPermitRootLogin without-password\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nMaxAuthTries 2\nLoginGraceTime 1m30s\nX11Forwarding no\n"
        "PermitEmptyPasswords no\nMACs hmac-sha1,hmac-sha2-256\nMatch User bob\n  PasswordAuthentication yes\n"
    )
    config = put(tmp_path, "/prepared/etc/ssh/sshd_config", text)
    resolved = parse_resolved(_sshd(config))
    section = collect_ssh(tmp_path / "prepared")
    assert {key: section[key] for key in section_of(resolved)} == section_of(resolved)
    assert [int(port) for port in resolved["port"].split()] == section["ports"]
    assert ssh.weak_algorithms(resolved) == ["hmac-sha1"]
    assert section["overrides"] == ["Match User bob: passwordauthentication yes"]


KEYS_ONLY = "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n"


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (
            "Match User backup\n PasswordAuthentication yes # until the NAS learns keys\n",
            ["passwordauthentication yes"],
        ),
        ("Match User backup\n PasswordAuthentication Yes\n", ["passwordauthentication yes"]),
        ('match "User" backup\n passwordauthentication="yes"\n', ["passwordauthentication yes"]),
        ("Match User backup\n KbdInteractiveAuthentication yes\n", ["kbdinteractiveauthentication yes"]),
        ("Match User backup\n Include more.conf\n", ["permitrootlogin yes"]),
        ("Include in.conf\n", ["permitemptypasswords yes"]),
        ("Match User backup\nMatch all\nX11Forwarding yes\n", []),
    ],
)
def test_match_blocks_are_read_as_sshd_reads_them(text: str, overrides: list[str], tmp_path: Path) -> None:
    put_all(tmp_path, {
        "/etc/ssh/sshd_config": KEYS_ONLY + text,
        "/etc/ssh/more.conf": "PermitRootLogin 'yes'\n",
        "/etc/ssh/in.conf": "Match Address 192.0.2.0/24\n\tPermitEmptyPasswords Yes\n",
    })  # fmt: skip
    section = collect_ssh(tmp_path)
    assert [text.rpartition(": ")[2] for text in section["overrides"]] == overrides
    assert section["password_login"] is False


def test_global_settings_with_comments_and_overrides_for_all(tmp_path: Path) -> None:
    commented = "PasswordAuthentication no # keys only\nPermitRootLogin yes # FIXME\nKbdInteractiveAuthentication no\n"
    section = collect_ssh(put_all(tmp_path / "a", {"/etc/ssh/sshd_config": commented}))
    assert (section["password_login"], section["root_login"], section["interactive_login"]) == (False, "yes", False)
    for_all = KEYS_ONLY + "Match all\nPasswordAuthentication yes\n"
    assert collect_ssh(put_all(tmp_path / "b", {"/etc/ssh/sshd_config": for_all}))["password_login"] is True


@pytest.mark.parametrize(
    ("files", "fields"),
    [
        ({"/etc/ssh/sshd_config": "PermitRootLogin maybe\n"}, {"root_login", "password_login", "overrides"}),
        ({"/etc/ssh/sshd_config": 'PermitRootLogin "no\n'}, {"root_login", "password_login", "overrides"}),
        ({"/etc/ssh/sshd_config": "Match User a\n PasswordAuthentication yes yes\n"}, {"overrides"}),
        ({"/etc/ssh/sshd_config": "Match\n PasswordAuthentication yes\n"}, {"overrides"}),
        (
            {"/etc/ssh/sshd_config": "", "/etc/default/ssh": 'SSHD_OPTS="-o PasswordAuthentication=yes"\n'},
            {"overrides"},
        ),
    ],
)
def test_what_is_not_understood_has_no_value(files: dict[str, str], fields: set[str], tmp_path: Path) -> None:
    section = collect_ssh(put_all(tmp_path, files))
    assert fields <= {gap["fact"] for gap in section["gaps"]}
    assert all(section[field] is None for field in fields)


PASSWORDS: Final = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\nPermitRootLogin yes\n"


@pytest.mark.parametrize(
    ("text", "password", "interactive", "root"),
    [
        ("AuthenticationMethods publickey\n", False, False, "prohibit-password"),
        ("AuthenticationMethods publickey,password\n", False, False, "prohibit-password"),
        ("AuthenticationMethods password,publickey\n", False, False, "prohibit-password"),
        ("AuthenticationMethods publickey keyboard-interactive:pam\n", False, True, "yes"),
        ("AuthenticationMethods publickey\nAuthenticationMethods password\n", False, False, "prohibit-password"),
        ("AuthenticationMethods any\n", True, True, "yes"),
        ("DenyUsers root\n", True, True, "no"),
        ("DenyUsers root@192.0.2.1\n", True, True, "yes"),
        ("AllowUsers ada bob\n", True, True, "no"),
        ("AllowUsers ada\nAllowUsers r*@192.0.2.1\n", True, True, "yes"),
        ("AllowGroups wheel\n", True, True, "yes"),
    ],
)
def test_lists_of_users_and_methods_restrict_logins(
    text: str, password: bool, interactive: bool, root: str, tmp_path: Path
) -> None:
    section = collect_ssh(put_all(tmp_path, {"/etc/ssh/sshd_config": PASSWORDS + text}))
    assert (section["password_login"], section["interactive_login"], section["root_login"]) == (
        password, interactive, root,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("block", "overrides", "password"),
    [
        ("Match User bob\nAuthenticationMethods any\n", None, False),
        ("Match User bob\nAllowUsers root\n", None, False),
        ("Match User bob\nAuthenticationMethods publickey,password\n", [], False),
        ("Match all\nAuthenticationMethods any\n", None, None),
    ],
)
def test_what_a_match_block_opens_is_a_gap(
    block: str, overrides: list[str] | None, password: bool | None, tmp_path: Path
) -> None:
    text = PASSWORDS + "AuthenticationMethods publickey\n" + block
    section = collect_ssh(put_all(tmp_path, {"/etc/ssh/sshd_config": text}))
    assert (section["overrides"], section["password_login"]) == (overrides, password)


def test_each_user_that_sshd_prints_counts() -> None:
    resolved = parse_resolved("permitrootlogin yes\nallowusers ada\nallowusers root\nauthenticationmethods any\n")
    assert resolved["allowusers"] == "ada root"


def test_the_file_of_the_vendor_is_read_where_there_is_no_other(tmp_path: Path) -> None:
    files = {
        "/usr/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\n",
        "/etc/ssh/sshd_config.d/10.conf": "PermitRootLogin yes\n",
    }
    section = collect_ssh(put_all(tmp_path, files))
    assert (section["root_login"], section["interactive_login"], section["password_login"]) == ("yes", False, True)
    section = collect_ssh(put_all(tmp_path, {"/etc/ssh/sshd_config": ""}))
    assert section["root_login"] == "prohibit-password"


def test_a_server_without_a_file_has_no_known_settings(tmp_path: Path) -> None:
    section = collect_ssh(put_all(tmp_path, {"/usr/sbin/sshd": ""}))
    assert (section["root_login"], section["password_login"], section["overrides"]) == (None, None, None)


@pytest.mark.parametrize(
    ("release", "text", "root"),
    [
        ('ID="centos"\nVERSION_ID="7"\n', "#PermitRootLogin yes\n", None),
        ('ID="centos"\nVERSION_ID="7"\n', "PermitRootLogin no\n", "no"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "", "prohibit-password"),
        ("ID=fedora\nVERSION_ID=41\n", "", "prohibit-password"),
    ],
)
def test_the_default_of_the_distribution_for_root(release: str, text: str, root: str | None, tmp_path: Path) -> None:
    section = collect_ssh(put_all(tmp_path, {"/etc/ssh/sshd_config": text, "/etc/os-release": release}))
    assert section["root_login"] == root


@pytest.mark.parametrize(
    ("text", "weak"),
    [
        ("Ciphers aes256-ctr,aes128-cbc\nMACs hmac-md5\n", ["aes128-cbc", "hmac-md5"]),
        ("HostKeyAlgorithms +ssh-dss\n", ["ssh-dss"]),
        ("KexAlgorithms ^diffie-hellman-group1-sha1\n", ["diffie-hellman-group1-sha1"]),
        ("Ciphers -aes128-cbc\n", None),
        ("Ciphers aes256-ctr\n", None),
        ("Ciphers aes256-ctr\nCiphers aes128-cbc\n", None),
    ],
)
def test_weak_algorithms_of_an_explicit_list(text: str, weak: list[str] | None, tmp_path: Path) -> None:
    assert collect_ssh(put_all(tmp_path, {"/etc/ssh/sshd_config": text}))["weak_algorithms"] == weak


def test_the_ports_of_a_socket_of_systemd_take_precedence(tmp_path: Path) -> None:
    files = {
        "/etc/ssh/sshd_config": "Port 22\n",
        "/usr/lib/systemd/system/ssh.socket": "[Socket]\nListenStream=22\n",
        "/etc/systemd/system/ssh.socket.d/a.conf": "[Socket]\nListenStream=\nListenStream=[::]:2222\n",
    }
    assert collect_ssh(put_all(tmp_path, files))["ports"] == [22]
    put(tmp_path, "/etc/systemd/system/sockets.target.wants/ssh.socket", "")
    assert collect_ssh(tmp_path)["ports"] == [2222]
    put(tmp_path, "/usr/lib/systemd/system-generators/sshd-socket-generator", "")
    assert collect_ssh(tmp_path)["ports"] == [22]
