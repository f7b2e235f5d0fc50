"""Automatic installation of updates counts only where everything that it needs is on."""

from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.software import unattended_upgrades
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System
from tests.support.root_folder import put_all

ON = 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'
ORIGINS = 'Unattended-Upgrade::Origins-Pattern { "origin=Debian,codename=${distro_codename}-security"; };\n'
WANTS = "/etc/systemd/system/timers.target.wants"
UNITS = "/usr/lib/systemd/system"


def unit(name: str) -> dict[str, str]:
    return {f"{UNITS}/{name}": "", f"{WANTS}/{name}": ""}


def release(origin: str, suite: str, codename: str) -> str:
    return f"Origin: {origin}\nLabel: {origin}\nSuite: {suite}\nCodename: {codename}\n"


DEBIAN = {
    "/etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n",
    "/etc/apt/apt.conf.d/20auto-upgrades": ON,
    "/etc/apt/apt.conf.d/50unattended-upgrades": ORIGINS,
    "/usr/bin/unattended-upgrade": "",
    "/var/lib/apt/lists/a_InRelease": release("Debian", "oldstable", "bookworm"),
    "/var/lib/apt/lists/b_InRelease": release("Debian", "oldstable-security", "bookworm-security"),
    **unit("apt-daily.timer"),
    **unit("apt-daily-upgrade.timer"),
}
RASPBIAN = {"/var/lib/apt/lists/b_InRelease": None, "/var/lib/apt/lists/a_InRelease": release("Raspbian", "x", "b")}
UBUNTU = {
    "/etc/os-release": "ID=ubuntu\nVERSION_CODENAME=jammy\n",
    "/var/lib/apt/lists/b_InRelease": release("Ubuntu", "jammy-security", "jammy"),
    "/etc/apt/apt.conf.d/50unattended-upgrades": (
        'Unattended-Upgrade::Allowed-Origins {\n\t"${distro_id}:${distro_codename}";\n'
        '\t"${distro_id}:${distro_codename}-security";\n//\t"${distro_id}:${distro_codename}-updates";\n};\n'
    ),
}
CRON_ONLY = {
    **dict.fromkeys(set(unit("apt-daily.timer")) | set(unit("apt-daily-upgrade.timer"))),
    "/etc/cron.daily/apt-compat": "",
    "/etc/rc2.d/S01cron": "",
}


def conf(text: str) -> dict[str, str]:
    return {"/etc/apt/apt.conf.d/20auto-upgrades": text}


def root(tmp_path: Path, files: dict[str, Any]) -> System:
    return System(put_all(tmp_path, {name: text for name, text in files.items() if text is not None}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        (conf('APT { Periodic { Unattended-Upgrade "7"; Update-Package-Lists "always"; }; };'), True),
        (conf(ON.replace('"1"', '"12h"')), True),
        (conf(ON.replace("Upgrade", "upgrade")), True),
        (UBUNTU, True),
        (CRON_ONLY, True),
        (conf(""), False),
        (conf(ON.replace('Unattended-Upgrade "1"', 'Unattended-Upgrade "0"')), False),
        (conf(ON.replace('Unattended-Upgrade "1"', 'Unattended-Upgrade ""')), False),
        (conf(ON.replace('Lists "1"', 'Lists "0"')), False),
        (conf(ON.replace("APT::Periodic::Update-Package-Lists", "// APT::Periodic::Update-Package-Lists")), False),
        (conf(ON + 'APT::Periodic::Enable "0";'), False),
        (conf(ON + "#clear APT::Periodic;"), False),
        ({"/usr/bin/unattended-upgrade": None}, False),
        ({f"{WANTS}/apt-daily-upgrade.timer": None}, False),
        ({f"{WANTS}/apt-daily.timer": None}, False),
        ({f"{UNITS}/apt-daily.timer": None}, False),
        ({**CRON_ONLY, "/etc/rc2.d/S01cron": None}, False),
        ({**CRON_ONLY, "/etc/cron.daily/apt-compat": None}, False),
        ({"/etc/apt/apt.conf.d/50unattended-upgrades": ""}, False),
        ({"/etc/apt/apt.conf.d/50unattended-upgrades": ORIGINS + "#clear Unattended-Upgrade::Origins-Pattern;"}, False),
        ({"/etc/apt/apt.conf.d/50unattended-upgrades": ORIGINS.replace("-security", "")}, False),
        ({"/etc/apt/apt.conf.d/50unattended-upgrades": ORIGINS.replace("origin=Debian", "origin=Docker")}, False),
        ({"/etc/apt/apt.conf.d/51x": 'Unattended-Upgrade::Package-Blacklist { ".*"; };'}, False),
        (RASPBIAN, False),
        (RASPBIAN | {"/etc/apt/apt.conf.d/51x": 'Unattended-Upgrade::Origins-Pattern:: "origin=Raspbian";'}, True),
    ],
)
def test_unattended_upgrades_of_apt(tmp_path: Path, change: dict[str, Any], expected: bool) -> None:
    assert unattended_upgrades.is_unattended(root(tmp_path, DEBIAN | change), "deb") is expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (conf(ON + "APT::Periodic::Enable"), "the file ends within a setting"),
        (conf(ON + 'APT::Periodic { Enable "0" }; '), "misplaced }"),
        (conf(ON + 'APT::Periodic::Enable "0'), "a quotation does not end"),
        (conf(ON + '#include "/etc/other";'), "not a setting"),
        (conf(ON.replace('Upgrade "1"', 'Upgrade "often"')), "not an interval"),
        ({name: None for name in DEBIAN if "lists" in name}, "no package list says which origins"),
    ],
)
def test_what_is_not_understood_is_not_taken_for_on(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(FactsUnavailableError, match=reason):
        unattended_upgrades.is_unattended(root(tmp_path, DEBIAN | change), "deb")


@pytest.mark.parametrize("folder", ["/etc/systemd/system", "/run/systemd/system"])
@pytest.mark.parametrize("timer", ["apt-daily.timer", "apt-daily-upgrade.timer"])
def test_a_masked_timer_starts_nothing(tmp_path: Path, timer: str, folder: str) -> None:
    system = root(tmp_path, DEBIAN)
    system.path(folder).mkdir(parents=True, exist_ok=True)
    system.path(f"{folder}/{timer}").symlink_to("/dev/null")
    assert unattended_upgrades.is_unattended(system, "deb") is False


OFF: dict[str, Any] = {"/etc/apt/apt.conf.d/20auto-upgrades": "", "/etc/rc2.d/S01cron": ""}


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("/etc/crontab", "0 3 * * * root /usr/bin/unattended-upgrade -v"),
        ("/etc/cron.d/updates", "0 3 * * * root apt-get update && apt-get -y upgrade"),
        ("/etc/cron.daily/own", "#!/bin/sh\n(apt-get update; apt-get -qy dist-upgrade) >/dev/null"),
        ("/var/spool/cron/crontabs/root", "@daily apt -y full-upgrade"),
        ("/var/spool/cron/root", "@daily /usr/bin/dnf -y upgrade --security"),
        ("/etc/cron.weekly/own", "yum -y update"),
        ("/etc/cron.weekly/own", "zypper -n patch"),
    ],
)
def test_a_cron_job_that_upgrades_packages_is_not_taken_for_none(tmp_path: Path, file: str, line: str) -> None:
    with pytest.raises(FactsUnavailableError, match=f"a cron job upgrades packages.*{file}"):
        unattended_upgrades.is_unattended(root(tmp_path, DEBIAN | OFF | {file: line + "\n"}), "deb")


@pytest.mark.parametrize(
    "change",
    [
        {"/etc/crontab": "#0 3 * * * root apt-get -y upgrade\n"},
        {"/etc/crontab": "0 3 * * * root apt-get -s upgrade | mail root\n"},
        {"/etc/crontab": "0 3 * * * root apt-get update\n"},
        {"/etc/crontab": "0 3 * * * root apt-get -y upgrade\n", "/etc/rc2.d/S01cron": None},
    ],
)
def test_other_cron_jobs_install_no_updates(tmp_path: Path, change: dict[str, Any]) -> None:
    assert unattended_upgrades.is_unattended(root(tmp_path, DEBIAN | OFF | change), "deb") is False


DNF = {
    "/etc/os-release": "ID=fedora\n",
    "/etc/dnf/automatic.conf": "[commands]\nupgrade_type = default\napply_updates = yes\n",
    **unit("dnf-automatic.timer"),
}
SUSE = {"/etc/os-release": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', **unit("os-update.timer")}
OSTREE = {
    "/etc/os-release": "ID=fedora\n",
    "/run/ostree-booted": "",
    "/etc/rpm-ostreed.conf": "[Daemon]\nAutomaticUpdatePolicy=stage\n",
    **unit("rpm-ostreed-automatic.timer"),
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (DNF, True),
        (DNF | {"/etc/dnf/automatic.conf": "[commands]\napply_updates = no\n"}, False),
        (DNF | {"/etc/dnf/automatic.conf": "[commands]\n# apply_updates = yes\n"}, False),
        (DNF | {"/etc/dnf/automatic.conf": "[emitters]\napply_updates = yes\n"}, False),
        (DNF | {"/etc/dnf/automatic.conf": "[commands]\nApply_Updates = yes\n"}, False),
        (DNF | {f"{WANTS}/dnf-automatic.timer": None}, False),
        (DNF | {f"{UNITS}/dnf-automatic.timer": None}, False),
        (DNF | {"/etc/dnf/automatic.conf": None, **unit("dnf-automatic-install.timer")}, True),
        (DNF | {"/etc/dnf/automatic.conf": None, **unit("dnf-automatic-download.timer")}, False),
        (SUSE, True),
        (SUSE | {f"{WANTS}/os-update.timer": None}, False),
        (SUSE | {f"{WANTS}/os-update.timer": None, "/etc/cron.daily/opensuse.org-online_update": ""}, False),
        (
            {
                "/etc/os-release": "ID=sles\n",
                "/etc/cron.daily/opensuse.org-online_update": "",
                "/etc/systemd/system/multi-user.target.wants/cron.service": "",
            },
            True,
        ),
        (OSTREE, True),
        (OSTREE | {"/etc/rpm-ostreed.conf": "[Daemon]\n#AutomaticUpdatePolicy=stage\n"}, False),
        (OSTREE | {"/etc/rpm-ostreed.conf": "[Daemon]\nAutomaticUpdatePolicy=check\n"}, False),
        (OSTREE | {f"{WANTS}/rpm-ostreed-automatic.timer": None}, False),
    ],
)
def test_automatic_updates_of_dnf_zypper_and_rpm_ostree(tmp_path: Path, files: dict[str, Any], expected: bool) -> None:
    assert unattended_upgrades.is_unattended(root(tmp_path, files), "rpm") is expected


def test_a_configuration_of_dnf_automatic_that_is_not_understood_is_unknown(tmp_path: Path) -> None:
    system = root(tmp_path, DNF | {"/etc/dnf/automatic.conf": "apply_updates = yes\n[commands]\n"})
    with pytest.raises(FactsUnavailableError, match=r"not a line .* \(/etc/dnf/automatic.conf, line 1\)"):
        unattended_upgrades.is_unattended(system, "rpm")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/etc/crontabs/root": "0 3 * * * apk -U upgrade\n", "/etc/runlevels/default/crond": ""}, True),
        ({"/etc/crontabs/root": "0 3 * * * /sbin/apk -U upgrade # nightly\n", "/etc/rc.d/S50cron": ""}, True),
        ({"/etc/crontabs/root": "0 3 * * * opkg upgrade x\n", "/etc/init.d/S50crond": ""}, True),
        ({"/etc/crontabs/root": "0 3 * * * apk -U upgrade\n"}, False),
        ({"/etc/crontabs/root": "0 3 * * * apk -U upgrade\n", "/etc/rc.d/K50cron": ""}, False),
        ({"/etc/crontabs/root": "# 0 3 * * * apk upgrade\n", "/etc/runlevels/default/crond": ""}, False),
        ({"/etc/crontabs/root": "0 3 * * * ls # apk upgrade\n", "/etc/runlevels/default/crond": ""}, False),
        ({"/etc/crontabs/root": "0 3 * * * apk upgrade -s\n", "/etc/runlevels/default/crond": ""}, False),
        ({"/etc/crontabs/root": "0 3 * * * opkg --noaction upgrade x\n", "/etc/rc.d/S50cron": ""}, False),
        ({"/etc/periodic/daily/up": "#!/bin/sh\napk upgrade -U\n", "/etc/runlevels/default/crond": ""}, False),
        ({}, False),
    ],
)
def test_cron_jobs_of_apk_and_opkg(tmp_path: Path, files: dict[str, Any], expected: bool) -> None:
    assert unattended_upgrades.is_unattended(root(tmp_path, files), "apk") is expected


def test_a_script_of_cron_counts_if_it_may_be_run(tmp_path: Path) -> None:
    files = {"/etc/periodic/daily/up": "#!/bin/sh\napk upgrade -U\n", "/etc/runlevels/default/crond": ""}
    system = root(tmp_path, files)
    system.path("/etc/periodic/daily/up").chmod(0o755)
    assert unattended_upgrades.is_unattended(system, "apk") is True


MULTI_USER: Final = "/etc/systemd/system/multi-user.target.wants"
EMPTY_TIMER: Final = {"/etc/systemd/system/dnf-automatic.timer.d/a.conf": "[Timer]\nOnCalendar=\n"}
SERVICE: Final = "/usr/lib/systemd/system/dnf-automatic.service"
APPLIED: Final = {"/etc/dnf/automatic.conf": "[commands]\napply_updates = yes\n"}
DOWNLOADED: Final = {"/etc/dnf/automatic.conf": "[commands]\napply_updates = no\n"}
YUM: Final = {
    **{f"{folder}/yum-cron.service": "" for folder in ("/usr/lib/systemd/system", MULTI_USER)},
    f"{MULTI_USER}/crond.service": "", "/etc/cron.daily/0yum-daily.cron": "",
    "/etc/yum/yum-cron.conf": "[commands]\napply_updates = yes\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (DNF | APPLIED, True),
        (DNF | APPLIED | EMPTY_TIMER, False),
        (DNF | DOWNLOADED | {SERVICE: "[Service]\nExecStart=/usr/bin/dnf-automatic --timer --installupdates\n"}, True),
        (DNF | APPLIED | {SERVICE: "[Service]\nExecStart=/usr/bin/dnf-automatic --no-installupdates\n"}, False),
        (DNF | DOWNLOADED | YUM, True),
        (DNF | DOWNLOADED | YUM | {"/etc/yum/yum-cron.conf": "[commands]\napply_updates = no\n"}, False),
        (DNF | DOWNLOADED | YUM | {f"{MULTI_USER}/crond.service": None}, False),
    ],
)
def test_drop_ins_of_dnf_automatic_and_yum_cron(tmp_path: Path, files: dict[str, Any], expected: bool) -> None:
    assert unattended_upgrades.is_unattended(root(tmp_path, files), "rpm") is expected
