"""Where logs go and whether they are kept: rsyslog, syslog-ng and smaller daemons in prepared roots."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.system import log_settings
from device_agent.domain.report_limits import normalise_findings
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put_all

SYSTEMD: Final = {
    "/usr/lib/systemd/systemd-journald": "",
    "/etc/systemd/journald.conf": "[Journal]\nStorage=persistent\n",
    "/proc/1/comm": "systemd\n",
    "/proc/50/comm": "systemd-journal\n",
}
DISK: Final = "20 1 179:2 / / rw - ext4 /dev/mmcblk0p2 rw\n"
RSYSLOG: Final = {"/usr/sbin/rsyslogd": "", "/proc/1/comm": "systemd\n", "/proc/60/comm": "rsyslogd\n"}
SYSLOG_NG: Final = {"/usr/sbin/syslog-ng": "", "/proc/1/comm": "init\n", "/proc/9/comm": "syslog-ng\n"}
BUSYBOX: Final = {"/sbin/syslogd": "", "/proc/1/comm": "init\n", "/proc/9/comm": "syslogd\n"}


def collect(root: Path, *files: Mapping[str, str]) -> dict[str, Any]:
    for one in files:
        put_all(root, one)
    section = log_settings.collect(System(root, is_root_user=True))
    assert normalise_findings({"logging": section}).sections["logging"]["state"] == "ok"
    return section


def targets_of(root: Path, *files: Mapping[str, str]) -> tuple[list[str] | None, bool]:
    """Returns the targets (of a partial list: those that were read), and whether the list has a gap."""
    section = collect(root, *files)
    is_partial = any(gap["fact"] == "remote_targets" for gap in section["gaps"])
    if is_partial:
        return section.get("partial", {}).get("remote_targets", []), True
    return section["remote_targets"], False


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        # Filters of every form let a part through, which is a target.
        (':programname, isequal, "app" @@a.example:6514\n', ["tcp a.example:6514"]),
        (
            "if $syslogseverity <= 4 then @@b.example:514\n& @@c.example\n",
            ["tcp b.example:514", "tcp c.example:514"],
        ),
        ("auth,authpriv.*\t\t@@(o)d.example:6514;RSYSLOG_SyslogProtocol23Format\n", ["tcp d.example:6514"]),
        ('if ($msg contains "a (b)") then {\n @e.example\n}\n', ["udp e.example:514"]),
        ("*.* @f.example # why\n", ["udp f.example:514"]),
        ("$ActionSendStreamDriverMode 1\n*.* @@g.example:6514\n", ["tls g.example:6514"]),
        ('*.* action(type="omfwd" target=["h.example", "i.example"])\n', ["udp h.example:514", "udp i.example:514"]),
        ("*.* :omrelp:j.example:2514;tpl\n", ["relp j.example:2514"]),
        ('ruleset(name="Out") { action(type="omfwd" target="k.example") }\ncall out\n', ["udp k.example:514"]),
        ('input(type="imfile" file="/x" ruleset="r")\nruleset(name="r") {\n*.* @l.example\n}\n', ["udp l.example:514"]),
        ("*.info stop\n*.* @m.example\n", ["udp m.example:514"]),
        ("!sshd\n*.* ~\n!*\n*.* @n.example\n", ["udp n.example:514"]),
        ('include(file="/etc/rsyslog.d/x.conf")\n', ["tcp included.example:514"]),
        ("$IncludeConfig /etc/rsyslog.d/\n", ["tcp included.example:514"]),
        (
            'template(name="t" type="list") { constant(value="}") property(name="msg") }\n*.* @o.example;t\n',
            ["udp o.example:514"],
        ),
        ("*.* \\\n  @p.example\n", ["udp p.example:514"]),
        # Nothing reaches these.
        ("#*.* @@z.example\n/* *.* @@z.example */\n", []),
        ("*.none @z.example\n", []),
        ("mail.*;mail.none @z.example\n", []),
        ("*.* stop\n*.* @z.example\n", []),
        ("*.* /var/log/all\n& ~\n*.* @z.example\n", []),
        ("*.info stop\n*.info @z.example\n", []),
        ("if 0 then @z.example\n", []),
        ('if $msg contains "a" then stop else stop\n*.* @z.example\n', []),
        ('ruleset(name="unused") { action(type="omfwd" target="z.example") }\n', []),
        ('ruleset(name="net") { *.* @z.example\n }\ninput(type="imtcp" port="514" ruleset="net")\n', []),
        ('action(type="omfwd" target="z.example" config.enabled="off")\n', []),
        ("*.* /var/log/all\n$ActionExecOnlyWhenPreviousIsSuspended on\n& @@z.example\n", []),
        ('set $.target = "@@z.example";\n', []),
        ("", []),
        # This device itself.
        ("*.* @127.0.0.1:5140\n*.* @@localhost:10514\n", []),
        ('action(type="omfwd" target="::1" port="514" protocol="tcp")\n*.* @[::ffff:127.0.0.1]\n*.* @0.0.0.0\n', []),
        ("*.* @127.1\n*.* @0x7f000001\n*.* @LOCALHOST.\n*.* @box\n*.* @box.example\n*.* @loghost\n", []),
    ],
)
def test_targets_of_rsyslog(text: str, targets: list[str], tmp_path: Path) -> None:
    put_all(tmp_path, {"/etc/rsyslog.d/x.conf": "*.* @@included.example\n", "/etc/hostname": "box.example\n"})
    put_all(tmp_path, {"/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 loghost # own\n192.0.2.7 f.example\n"})
    assert targets_of(tmp_path, RSYSLOG, {"/etc/rsyslog.conf": text}) == (targets, False)


@pytest.mark.parametrize(
    "text",
    [
        '*.* action(type="omelasticsearch" server="z.example")\n',
        'if $msg contains "a" and 0 then @z.example\n',
        "*.bogus @@127.0.0.1\n",
        "*.* {\n @z.example\n",
        "}\n*.* @z.example\n",
        'action(type="omfwd" target="z.example"\n*.* @z.example\n',
        "*.* @@`echo $HOST`\n",
        "call nowhere\n",
        "$IncludeConfig /etc/*/x.conf\n",
        'include(text=`echo "x"`)\n',
        "*.* :omkafka:x\n",
    ],
)
def test_what_is_not_understood_of_rsyslog_is_a_gap_and_no_target(text: str, tmp_path: Path) -> None:
    assert targets_of(tmp_path, RSYSLOG, {"/etc/rsyslog.conf": text}) == ([], True)


TO_D: Final = "log { source(s); destination(d); };\n"
IF_D: Final = "if (match(x)) { destination(d); }"
NG_SOURCE: Final = 'source s { system(); internal(); };\nsource n { tcp(ip("0.0.0.0") port(601)); };\n'


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        (
            'destination d { network("a.example" port(6514) transport("tls")); };\n' + TO_D,
            ["tls a.example:6514"],
        ),
        (
            'log { source { system(); }; filter { level(info..emerg); }; destination { udp("b.example"); }; };',
            ["udp b.example:514"],
        ),
        (
            'destination d { syslog("c.example" transport(tls) tls(ca-dir("/x"))); };\n'
            + TO_D.replace("destination(d)", IF_D),
            ["tls c.example:514"],
        ),
        ('@include "conf.d/*.conf"\nlog { source(s); destination(d_in); };', ["tcp in.example:514"]),
        ('destination d { tcp("z.example"); };\n# log { source(s); destination(d); };\n', []),
        ('destination d { tcp("z.example"); };\nlog { source(n); destination(d); };\n', []),
        ('destination d { tcp("localhost"); };\nlog { source(s); destination(d); };\n', []),
        (
            'destination d { tcp("z.example"); };\nlog { source(s); destination { file("/x"); }; flags(final); };'
            + TO_D,
            [],
        ),
    ],
)
def test_targets_of_syslog_ng(text: str, targets: list[str], tmp_path: Path) -> None:
    included = {"/etc/syslog-ng/conf.d/x.conf": 'destination d_in { tcp("in.example"); };\n'}
    config = {"/etc/syslog-ng/syslog-ng.conf": f'@version: 4.3\n@include "scl.conf"\n{NG_SOURCE}{text}'}
    assert targets_of(tmp_path, SYSLOG_NG, included, config) == (targets, False)


@pytest.mark.parametrize(
    "text",
    [
        'destination d { http(url("https://z.example")); };\nlog { source(s); destination(d); };\n',
        'destination d { tcp("z.example"; };\nlog { source(s); destination(d); };\n',
        'destination d { tcp("z.example"); };\nlog { source(gone); destination(d); };\n',
        'destination d { tcp("`where`"); };\nlog { source(s); destination(d); };\n',
        'destination d { tcp("z.example"); };\nlog { source(s); destination(d); flags(fallback); };\n',
        '@include "gone.conf"\n',
        'destination d { tcp("z.example"); };\nlogg { source(s); destination(d); };\n',
    ],
)
def test_what_is_not_understood_of_syslog_ng_is_a_gap_and_no_target(text: str, tmp_path: Path) -> None:
    assert targets_of(tmp_path, SYSLOG_NG, {"/etc/syslog-ng/syslog-ng.conf": NG_SOURCE + text}) == ([], True)


UPLOAD: Final = {"/usr/lib/systemd/systemd-journal-upload": ""}
WANTED: Final = {"/etc/systemd/system/multi-user.target.wants/systemd-journal-upload.service": ""}


def test_journal_upload_is_a_target_where_it_is_enabled(tmp_path: Path) -> None:
    config = {"/etc/systemd/journal-upload.conf": "[Upload]\nURL=https://logs.example.org:19532\n"}
    assert targets_of(tmp_path / "off", SYSTEMD, UPLOAD, config) == ([], False)
    assert targets_of(tmp_path / "on", SYSTEMD, UPLOAD, config, WANTED) == (["https logs.example.org:19532"], False)
    own = {"/etc/systemd/journal-upload.conf.d/own.conf": "[Upload]\nURL=http://127.0.0.1\n"}
    assert targets_of(tmp_path / "own", SYSTEMD, UPLOAD, config, own, WANTED) == ([], False)
    odd = {"/etc/systemd/journal-upload.conf": "[Upload]\nURL=ftp://x y\n"}
    assert targets_of(tmp_path / "odd", SYSTEMD, UPLOAD, odd, WANTED) == ([], True)


def test_targets_of_a_daemon_that_does_not_run_are_not_in_force(tmp_path: Path) -> None:
    config = {"/etc/rsyslog.conf": "*.* @@a.example\n", "/usr/sbin/rsyslogd": ""}
    assert targets_of(tmp_path / "image", config) == (["tcp a.example:514"], False)
    assert targets_of(tmp_path / "live", SYSTEMD, config) == ([], False)


@pytest.mark.parametrize("process", ["vector", "fluent-bit", "promtail"])
def test_other_forwarders_are_recognised_with_the_reason(process: str, tmp_path: Path) -> None:
    section = collect(tmp_path, SYSTEMD, {"/proc/80/comm": f"{process}\n"})
    assert f"remote_targets: what {process} forwards is not read" in gap_texts(section)


LOG2RAM: Final = DISK + "21 20 0:30 / /var/log rw - tmpfs log2ram rw,size=131072k\n"
ON_DISK: Final = {"/proc/self/mountinfo": DISK}
IN_MEMORY: Final = {"/proc/self/mountinfo": LOG2RAM}
OVERLAY: Final = "20 1 0:40 / / rw - overlay o rw,lowerdir=/ro,upperdir=/rw/up,workdir=/rw/w\n"


@pytest.mark.parametrize(
    ("files", "kept", "journald"),
    [
        (SYSTEMD | {"/proc/self/mountinfo": DISK}, True, "persistent"),
        (SYSTEMD | {"/proc/self/mountinfo": LOG2RAM}, False, "volatile"),
        (SYSTEMD | ON_DISK | {"/etc/systemd/journald.conf": "[Journal]\nStorage=none\n"}, False, "none"),
        (SYSTEMD | {"/proc/self/mountinfo": OVERLAY + "21 20 0:41 / /rw rw - tmpfs t rw\n"}, False, "volatile"),
        (SYSTEMD | {"/proc/self/mountinfo": OVERLAY + "21 20 8:1 / /rw rw - ext4 /dev/sda1 rw\n"}, True, "persistent"),
        (SYSTEMD | {"/proc/self/mountinfo": OVERLAY}, None, "persistent"),
        (SYSTEMD | {"/etc/fstab": "tmpfs /var/log tmpfs size=64m 0 0\n"}, False, "volatile"),
        (SYSTEMD | {"/etc/fstab": "/dev/sda1 / ext4 defaults 0 1\n"}, True, "persistent"),
        (SYSTEMD | {"/etc/log2ram.conf": "SIZE=128M\n"}, None, None),
        (RSYSLOG | {"/etc/rsyslog.conf": "*.* -/var/log/syslog\n", "/proc/self/mountinfo": DISK}, True, "absent"),
        (RSYSLOG | {"/etc/rsyslog.conf": "*.* -/var/log/syslog\n", "/proc/self/mountinfo": LOG2RAM}, False, "absent"),
        (RSYSLOG | {"/etc/rsyslog.conf": "*.* @a.example\n", "/proc/self/mountinfo": DISK}, False, "absent"),
        (RSYSLOG | ON_DISK | {"/etc/rsyslog.conf": "*.* ?PerHost\n"}, None, "absent"),
        (RSYSLOG | ON_DISK | {"/etc/rsyslog.conf": 'action(type="omfile" dynaFile="PerHost")\n'}, None, "absent"),
        (BUSYBOX | {"/etc/conf.d/syslog": 'SYSLOGD_OPTS="-t"\n'}, True, "absent"),
        (BUSYBOX | {"/etc/conf.d/syslog": 'SYSLOGD_OPTS="-t -C128"\n'}, False, "absent"),
        (BUSYBOX | {"/etc/conf.d/syslog": 'SYSLOGD_OPTS="-R 192.0.2.6"\n'}, False, "absent"),
        (BUSYBOX | {"/etc/conf.d/syslog": 'SYSLOGD_OPTS="-L -R 192.0.2.6"\n'}, True, "absent"),
        (BUSYBOX | IN_MEMORY | {"/etc/conf.d/syslog": 'SYSLOGD_OPTS="-O/var/log/all"\n'}, False, "absent"),
        (BUSYBOX | {"/proc/9/cmdline": "syslogd\0-C\0", "/etc/conf.d/syslog": 'SYSLOGD_OPTS="-t"\n'}, False, "absent"),
        ({"/sbin/syslogd": ""}, None, "absent"),
        ({"/sbin/logd": "", "/proc/1/comm": "procd\n", "/proc/5/comm": "logd\n"}, False, "absent"),
    ],
)  # fmt: skip
def test_whether_logs_are_kept(files: dict[str, str], kept: bool | None, journald: str | None, tmp_path: Path) -> None:
    section = collect(tmp_path, files)
    assert (section["kept"], section["journald"]) == (kept, journald)
    assert kept is not None or any(gap["fact"] == "kept" for gap in section["gaps"])


@pytest.mark.parametrize(
    ("arguments", "targets", "has_gap"),
    [
        ("-R 192.0.2.6:1514 -L", ["udp 192.0.2.6:1514"], False),
        ("-nR192.0.2.6", ["udp 192.0.2.6:514"], False),
        ("-R localhost", [], False),
        ("-O /x -s -R a.example", [], True),  # `-s` takes the next word as its value
        ("-b 3 -l 5 -t", [], False),
        ("-R $LOGHOST", [], True),
        ("-Z", [], True),
    ],
)
def test_options_of_busybox(arguments: str, targets: list[str], has_gap: bool, tmp_path: Path) -> None:
    assert targets_of(tmp_path, BUSYBOX, {"/etc/conf.d/syslog": f'SYSLOGD_OPTS="{arguments}"\n'}) == (targets, has_gap)


def test_openwrt_sends_only_where_remote_logging_is_on(tmp_path: Path) -> None:
    text = "config system\n\toption log_ip '192.0.2.5' # why\n\toption log_proto 'tcp'\n{}"
    text += "config other\n\toption log_ip x\n"
    logd = {"/sbin/logd": ""}
    assert targets_of(tmp_path / "a", logd, {"/etc/config/system": text.format("")}) == (["tcp 192.0.2.5:514"], False)
    off = text.format("\toption log_remote '0'\n")
    assert targets_of(tmp_path / "b", logd, {"/etc/config/system": off}) == ([], False)
    assert targets_of(tmp_path / "c", logd, {"/etc/config/system": text.format("\toption x '\n")}) == ([], True)


INERT_RSYSLOG: Final = (
    "# *.* @@z.example",
    "*.none @@z.example",
    'ruleset(name="unused") {\n*.* @@z.example\n}',
    'if 0 then {\n action(type="omfwd" target="z.example")\n}',
    "*.* @127.0.0.1",
    "*.* stop\n*.* @@z.example",
)
INERT_SYSLOG_NG: Final = (
    '# destination d { tcp("z.example"); };',
    'destination d { tcp("z.example"); };\nlog { source(n); destination(d); };',
    'destination d { tcp("z.example"); };',
    'log { source(s); destination { tcp("localhost"); }; };',
)
FROM_NETWORK: Final = 'log { source(n); destination { tcp("z.example"); }; };\n'
JUNK: Final = (
    "}", "{", '"', "'", "/*", "*/", "#", "&", "& stop", "*.* ", "if", "then", 'if $msg contains "x" then', ")", "(",
    ";", "!sshd", "$RuleSet other", "local0.* {", 'action(type="omfile"', "log {", "source(s);", "};", "\0",
    "else", 'template(name="t"', "@@", "stop", "call unused2", "@define x y", "foreach", "destination(d)",
)  # fmt: skip


@pytest.mark.parametrize(
    ("base", "inert", "path"),
    [(RSYSLOG, INERT_RSYSLOG, "/etc/rsyslog.conf"), (SYSLOG_NG, INERT_SYSLOG_NG, "/etc/syslog-ng/syslog-ng.conf")],
)
@given(data=st.data())
@settings(max_examples=60, derandomize=True)
def test_added_lines_make_no_target_of_what_is_none(
    base: dict[str, str], inert: tuple[str, ...], path: str, data: st.DataObject
) -> None:
    """A target that nothing reaches stays none, or its list gets a gap, whatever stands around it."""
    blocks = data.draw(st.lists(st.sampled_from(inert), min_size=1, max_size=3))
    junk = data.draw(
        st.lists(
            st.one_of(st.sampled_from(JUNK), st.text(st.characters(exclude_characters="@"), max_size=6)), max_size=4
        )
    )
    lines = data.draw(st.permutations([*blocks, *(one.replace("z.example", "") for one in junk)]))
    prefix = NG_SOURCE if "syslog-ng" in path else ""
    with tempfile.TemporaryDirectory() as folder:
        found, has_gap = targets_of(Path(folder), base, {path: prefix + "\n".join(lines) + "\n"})
        assert found == [] or has_gap, lines


@pytest.mark.parametrize(
    ("base", "text", "path"),
    [
        (RSYSLOG, 'if $msg contains "a" then {\n @@127.0.0.1\n} else {\n *.none @@z.example\n}\n', "/etc/rsyslog.conf"),
        (
            SYSLOG_NG,
            NG_SOURCE + 'log { source(n); destination { tcp("z.example"); }; };\n',
            "/etc/syslog-ng/syslog-ng.conf",
        ),
    ],
)
@given(data=st.data())
@settings(max_examples=40, derandomize=True)
def test_a_file_that_is_cut_off_gains_no_target(
    base: dict[str, str], text: str, path: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(min_value=0, max_value=len(text)))
    with tempfile.TemporaryDirectory() as folder:
        assert targets_of(Path(folder), base, {path: text[:cut]})[0] == []
