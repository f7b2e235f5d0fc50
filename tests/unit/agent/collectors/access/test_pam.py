"""What PAM's stacks enforce: lockout, quality and empty passwords; and root without a password by su and doas."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.collectors.access import account_security, pam
from device_agent.collectors.access.accounts import parse_shadow_line
from device_agent.host.system import System
from tests.support.root_folder import put_all

ACCOUNTS = {"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\n", "/etc/shadow": "root:!:19000:0:90:7:::\n"}
UNIX = "auth sufficient pam_unix.so try_first_pass\n"
AUTHFAIL = "auth [default=die] pam_faillock.so authfail deny=3 unlock_time=900\n"
PREAUTH = "auth required pam_faillock.so preauth\n"


def access(tmp_path: Path, files: dict[str, str]) -> dict[str, Any]:
    return account_security.collect(System(put_all(tmp_path, {**ACCOUNTS, **files}), is_root_user=True))


@pytest.mark.parametrize(
    ("stack", "locks"),
    [
        (PREAUTH + UNIX + AUTHFAIL, True),
        (PREAUTH.replace(" preauth", "") + UNIX + AUTHFAIL, True),
        (UNIX + AUTHFAIL, False),
        (UNIX + PREAUTH + AUTHFAIL, False),
        (PREAUTH + UNIX, False),
    ],
)
def test_faillock_counts_failures_and_looks_before_the_password(stack: str, locks: bool, tmp_path: Path) -> None:
    section = access(tmp_path, {"/etc/pam.d/login": stack})
    assert section["lockout"] == (["faillock"] if locks else [])


@pytest.mark.parametrize(
    ("config", "locks"),
    [
        ("UsePAM yes\n", True),
        ("UsePAM no\n", False),
        ("Port 22\n", False),
        ("UsePAM no\nPasswordAuthentication no\n", True),
    ],
)
def test_a_lockout_of_pam_protects_an_ssh_server_that_asks_pam(config: str, locks: bool, tmp_path: Path) -> None:
    stack = PREAUTH + UNIX + AUTHFAIL
    files = {"/etc/pam.d/login": stack, "/etc/pam.d/sshd": stack, "/usr/sbin/sshd": "", "/etc/ssh/sshd_config": config}
    assert access(tmp_path, files)["lockout"] == (["faillock"] if locks else [])


@pytest.mark.parametrize(
    ("line", "accepts"),
    [
        ("auth required pam_unix.so nullok_secure", True),
        ("auth required pam_unix_auth.so nullok", True),
        ("auth required pam_tcb.so nullok", True),
        ("auth required pam_unix.so nullresetok", False),
    ],
)
def test_stacks_that_accept_an_empty_password(line: str, accepts: bool, tmp_path: Path) -> None:
    assert access(tmp_path, {"/etc/pam.d/common-auth": line})["accepts_empty"] is accepts


@pytest.mark.parametrize(
    ("module", "length"),
    [
        ("pam_cracklib.so minlen=12", 8),
        ("pam_cracklib.so minlen=12 dcredit=0 ucredit=0 lcredit=0 ocredit=0", 12),
        ("pam_cracklib.so minlen=7", 6),
        ("pam_pwquality.so minlen=12", 12),
        ("pam_pwquality.so minlen=12 dcredit=2", 10),
        ("pam_pwquality.so minlen=12 dcredit=-1", 12),
        ("pam_pwquality.so minlen=12 enforcing=0", 6),
        ("pam_passwdqc.so min=disabled,24,11,8,7", 7),
        ("pam_passwdqc.so min=disabled,disabled,16,14,12", 12),
        ("pam_passwdqc.so", 7),
        ("pam_passwdqc.so config=/etc/passwdqc.conf", None),
        ("pam_passwdqc.so min=disabled,x", None),
    ],
)
def test_the_shortest_password_that_a_module_takes(module: str, length: int | None, tmp_path: Path) -> None:
    files = {"/etc/pam.d/common-password": f"password requisite {module}\n"}
    assert access(tmp_path, files)["minimum_length"] == length


@pytest.mark.parametrize(
    ("defs", "module", "method"),
    [
        ("MD5_CRYPT_ENAB yes", "pam_unix.so", "md5"),
        ("MD5_CRYPT_ENAB yes\nENCRYPT_METHOD SHA512", "pam_unix.so", "sha512"),
        ("MD5_CRYPT_ENAB yes", "pam_unix.so yescrypt", "yescrypt"),
        ("MD5_CRYPT_ENAB no", "pam_unix.so", None),
        ("PASS_MAX_DAYS 90", "pam_unix.so", None),
    ],
)
def test_the_method_of_new_passwords_is_unknown_where_none_is_configured(
    defs: str, module: str, method: str | None, tmp_path: Path
) -> None:
    section = access(tmp_path, {"/etc/login.defs": defs, "/etc/pam.d/common-password": f"password required {module}\n"})
    assert section["new_hash"] == method
    assert ("new_hash" in [gap["fact"] for gap in section["gaps"]]) is (method is None)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"/etc/pam.d/su": "auth sufficient pam_wheel.so trust use_uid\n"}, ["su %wheel"]),
        ({"/etc/pam.d/su-l": "auth sufficient pam_wheel.so group=ops trust\n"}, ["su %ops"]),
        ({"/etc/pam.d/su": "auth required pam_wheel.so use_uid\n#auth sufficient pam_wheel.so trust\n"}, []),
        ({"/etc/doas.conf": "permit \\\n  nopass keepenv :wheel\n"}, ["doas :wheel"]),
        ({"/etc/doas.conf": 'permit nopass setenv { A=1 "B=x y" } "ada"\n'}, ["doas ada"]),
        ({"/etc/doas.conf": 'permit "nopass" ada # persist\n#permit nopass eve\n'}, ["doas ada"]),
        ({"/etc/doas.conf": "permit persist :wheel\ndeny eve\n"}, []),
        ({"/etc/sudoers": "", "/etc/sudoers-rs": "ada ALL=(ALL:ALL) NOPASSWD: ALL\n"}, ["ada"]),
    ],
)
def test_who_becomes_root_without_a_password(files: dict[str, str], names: list[str], tmp_path: Path) -> None:
    assert access(tmp_path, files)["sudo_without_password"] == names


def test_a_line_of_doas_that_is_not_understood_is_a_gap(tmp_path: Path) -> None:
    section = access(tmp_path, {"/etc/doas.conf": "permitt nopass ada\n"})
    assert [gap["fact"] for gap in section["gaps"] if gap.get("source", "").endswith("doas.conf: permitt")] == [
        "sudo_without_password"
    ]


@pytest.mark.parametrize(
    "password",
    ["", "U6aMy0wojraho", "$1$$qRPK7m23GJusamGpoGLby/", "$5$$3c2QQ0KjIU1OLtB29cl8Fplc2WN7X89bnoEjaR7tWu."],
)
def test_the_hash_of_the_empty_password_is_an_empty_password(password: str) -> None:
    entry = parse_shadow_line(f"root:{password}:10933:0:99999:7:::")
    assert entry is not None
    assert entry.is_empty


@pytest.mark.parametrize(("changed", "days"), [("", None), ("19000", 90)])
def test_a_password_without_the_date_of_its_last_change_never_expires(changed: str, days: int | None) -> None:
    entry = parse_shadow_line(f"root:$6$abc$abcdefghijklmnop:{changed}:0:90:7:::")
    assert entry is not None
    assert entry.max_days == days


def test_what_su_trusts_is_read_from_its_own_stack(tmp_path: Path) -> None:
    files = {"/etc/pam.d/sshd": "auth sufficient pam_wheel.so trust\n", "/etc/pam.d/su": "@include x\n"}
    assert list(pam.trusted_by_su(System(put_all(tmp_path, files)))) == []
