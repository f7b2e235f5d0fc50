"""Options on the command line of SSH servers, wherever one is started."""

from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.access import ssh
from device_agent.host.system import System
from tests.support.root_folder import put_all

KEYS_ONLY: Final = "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n"


def _system(root: Path, files: dict[str, str]) -> System:
    return System(put_all(root, files), is_root_user=True)


DEBUG_UNIT = "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -f /etc/ssh/sshd_config_debug\n"
UNIT = "[Service]\nEnvironmentFile=-/etc/x\nExecStart=/usr/sbin/sshd -D $OPTIONS\n"
OPEN = "-o PasswordAuthentication=yes"


@pytest.mark.parametrize(
    "files",
    [
        {"/etc/sysconfig/ssh": f'SSHD_OPTS="{OPEN}"\n'},
        {"/etc/systemd/system/ssh.service.d/x.conf": DEBUG_UNIT, "/usr/lib/systemd/system/ssh.service": UNIT},
        {"/usr/lib/systemd/system/sshd@.service": UNIT, "/etc/x": f"OPTIONS='{OPEN}'\n"},
        {"/usr/lib/systemd/system/admin.service": f"[Service]\nExecStart=/bin/sh -c 'exec /usr/sbin/sshd -D {OPEN}'\n"},
        {"/etc/init.d/S50sshd": f"#!/bin/sh\nstart-stop-daemon -S -x /usr/sbin/sshd -- {OPEN}\n"},
        {"/etc/init.d/rcS": "mount -a; /usr/sbin/sshd -ePasswordAuthentication -oPermitRootLogin=yes &\n"},
        {"/etc/inittab": f"::respawn:/usr/sbin/sshd -D {OPEN}\n"},
        {"/etc/rc.local": f"#!/bin/sh\n/usr/sbin/sshd {OPEN}\n"},
        {"/etc/conf.d/sshd": 'cfgfile="/etc/ssh/other"\n'},
        {
            "/proc/1/comm": "init\n",
            "/proc/7/comm": "sshd\n",
            "/proc/7/cmdline": f"sshd: /usr/sbin/sshd {OPEN} [listener] 0",
        },
    ],
)
def test_options_of_the_command_line_leave_the_settings_unknown(files: dict[str, str], tmp_path: Path) -> None:
    section = ssh.collect(_system(tmp_path, {"/etc/ssh/sshd_config": KEYS_ONLY, **files}))
    assert (section["password_login"], section["root_login"], section["overrides"]) == (None, None, None)


@pytest.mark.parametrize(
    "files",
    [
        {"/usr/lib/systemd/system/ssh.service": UNIT},
        {"/etc/init.d/ssh": "test -x /usr/sbin/sshd -o -f /x || exit 0\n#/usr/sbin/sshd -f /x\n"},
        {"/etc/sysconfig/sshd": "OPTIONS='-u0 -4 -p 22'\n"},
        {"/usr/lib/systemd/system/sshd.service": UNIT, "/etc/x": "OPTIONS='-oCiphers=aes256-ctr -oMACs=x'\n"},
    ],
)
def test_other_options_leave_the_settings_as_they_are(files: dict[str, str], tmp_path: Path) -> None:
    section = ssh.collect(_system(tmp_path, {"/etc/ssh/sshd_config": KEYS_ONLY, **files}))
    assert (section["password_login"], section["root_login"], section["overrides"]) == (False, "no", [])


DROPBEAR_UNIT = (
    '[Service]\nEnvironment="KEYS=/etc/dropbear"\nEnvironmentFile=-/etc/default/dropbear\n'
    "ExecStart=-/usr/sbin/dropbear -i -B -r ${KEYS}/rsa $DROPBEAR_EXTRA_ARGS\n"
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/usr/lib/systemd/system/dropbear@.service": DROPBEAR_UNIT}, {"empty_passwords": True, "ports": [22]}),
        (
            {
                "/usr/lib/systemd/system/dropbear@.service": DROPBEAR_UNIT,
                "/etc/default/dropbear": 'DROPBEAR_EXTRA_ARGS="-s"\n',
            },
            {"empty_passwords": False, "password_login": False},
        ),
        ({"/etc/init.d/rcS": "/usr/sbin/dropbear -R -B -p 2222\n"}, {"empty_passwords": True, "ports": [2222]}),
        (
            {
                "/etc/init.d/dropbear": 'start-stop-daemon -x /usr/sbin/dropbear -- -p "$PORT" $DROPBEAR_EXTRA_ARGS\n',
                "/etc/default/dropbear": "DROPBEAR_PORT=23\nDROPBEAR_EXTRA_ARGS=-w\n",
            },
            {"root_login": "no", "ports": [23], "password_login": True},
        ),
        ({"/etc/inittab": "::respawn:/usr/sbin/dropbear -F -B\n"}, {"empty_passwords": True}),
        ({"/etc/sysconfig/dropbear": 'OPTIONS="-B"\n'}, {"empty_passwords": True}),
        (
            {"/etc/default/dropbear": "DROPBEAR_ARGS=-s\n", "/etc/rc.local": "/usr/sbin/dropbear -p 2222\n"},
            {"password_login": True, "ports": [2222]},
        ),
    ],
)
def test_arguments_of_dropbear_where_it_is_started(
    files: dict[str, str], expected: dict[str, Any], tmp_path: Path
) -> None:
    section = ssh.collect(_system(tmp_path, {"/usr/sbin/dropbear": "", **files}))
    assert {key: section[key] for key in expected} == expected
