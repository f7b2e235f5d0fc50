"""OpenSSL: settings of prepared roots, processes with replaced libraries, TLS errors in the journal, this machine."""

import json
import mmap
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.crypto import openssl, openssl_config, tls_errors
from device_agent.collectors.crypto.openssl import stale_processes
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put, put_all

DEBIAN = """
HOME = .
openssl_conf = openssl_init   # a comment
[openssl_init]
ssl_conf = ssl_sect
providers = provider_sect
[provider_sect]
default = default_sect
legacy = legacy_sect
[default_sect]
activate = 1
[legacy_sect]
activate = %(legacy)s
[ssl_sect]
system_default = system_default_sect
[system_default_sect]
MinProtocol = %(protocol)s
CipherString = DEFAULT:\\
@SECLEVEL=%(level)s
Options = ServerPreference,UnsafeLegacyRenegotiation
[req]
default_bits = 1024
MinProtocol = SSLv3
"""
FEDORA = """
openssl_conf = openssl_init
[openssl_init]
alg_section = evp_properties
ssl_conf = ssl_module
[evp_properties]
default_properties = fips = yes
[ssl_module]
system_default = crypto_policy
[crypto_policy]
.include = /etc/crypto-policies/back-ends/opensslcnf.config
"""
POLICY = "CipherString = @SECLEVEL=2:kEECDH\nTLS.MinProtocol = TLSv1.2\nTLS.MaxProtocol = TLSv1.3\nDTLS.Min = x\n"


def config(root: Path, path: str = "/etc/ssl/openssl.cnf") -> dict[str, Any]:
    return openssl_config.read_policy(System(root), path, "3.5.1").value


def test_the_policy_of_debian(tmp_path: Path) -> None:
    text = DEBIAN % {"protocol": "TLSv1.2", "level": 2, "legacy": 0}
    put_all(tmp_path, {"etc/ssl/openssl.cnf": text.replace(",UnsafeLegacyRenegotiation", "")})
    assert config(tmp_path) == {
        "file": "/etc/ssl/openssl.cnf",
        "min_protocol": "TLSv1.2",
        "max_protocol": "",
        "cipher_string": "DEFAULT:@SECLEVEL=2",
        "security_level": 2,
        "legacy_provider": False,
        "fips": False,
        "unsafe_options": [],
    }
    put_all(tmp_path, {"etc/ssl/openssl.cnf": DEBIAN % {"protocol": "TLSv1", "level": 0, "legacy": 1}})
    weak = config(tmp_path)
    assert (weak["min_protocol"], weak["security_level"], weak["legacy_provider"]) == ("TLSv1", 0, True)
    assert weak["unsafe_options"] == ["UnsafeLegacyRenegotiation"]


def test_the_policy_of_fedora_with_an_included_file(tmp_path: Path) -> None:
    put_all(tmp_path, {"etc/pki/tls/openssl.cnf": FEDORA, "etc/crypto-policies/back-ends/opensslcnf.config": POLICY})
    assert openssl_config.config_path(System(tmp_path), "") == "/etc/pki/tls/openssl.cnf"
    policy = config(tmp_path, "/etc/pki/tls/openssl.cnf")
    assert (policy["min_protocol"], policy["max_protocol"], policy["security_level"]) == ("TLSv1.2", "TLSv1.3", 2)
    assert policy["fips"] is True


def test_the_policy_of_alpine_leaves_settings_unset(tmp_path: Path) -> None:
    put_all(tmp_path, {"etc/ssl/openssl.cnf": "[ca]\ndefault_ca = CA_default\n"})
    policy = config(tmp_path)
    assert (policy["min_protocol"], policy["security_level"], policy["cipher_string"]) == ("", None, "")


def test_variables_included_folders_and_circular_includes(tmp_path: Path) -> None:
    put_all(
        tmp_path,
        {
            "etc/ssl/openssl.cnf": "name = init\nopenssl_conf = $name\n.include conf.d\n.include openssl.cnf\n",
            "etc/ssl/conf.d/a.cnf": "[init]\nssl_conf = s\n[s]\nsystem_default = ${ENV::missing}d\n",
            "etc/ssl/conf.d/b.conf": "[d]\nleast = TLSv1.3\nMinProtocol = $d::least\n",
            "etc/ssl/conf.d/c.txt": "[d]\nMinProtocol = SSLv3\n",
        },
    )
    sections = openssl_config.read_sections(System(tmp_path), "/etc/ssl/openssl.cnf", GapRecorder())
    assert sections["d"]["MinProtocol"] == "TLSv1.3"
    assert sections["default"]["openssl_conf"] == "init"


def test_the_section_of_a_prepared_root(tmp_path: Path) -> None:
    put_all(tmp_path, {
        "lib/apk/db/installed": "P:openssl\nV:3.3.2-r0\n",
        "etc/ssl/openssl.cnf": DEBIAN % {"protocol": "TLSv1.2", "level": 1, "legacy": 0},
        "proc/7/maps": "7f00-7f01 r-xp 0 00:00 1 /usr/lib/libssl.so.3 (deleted)\n", "proc/7/comm": "mosquitto\n",
        "proc/8/maps": "7f00-7f01 r-xp 0 00:00 1 /usr/lib/libcrypto.so.3\n", "proc/8/comm": "sshd\n",
        "proc/9/maps": "7f00-7f01 r-xp 0 00:00 1 /usr/lib/libz.so.1 (deleted)\n", "proc/9/comm": "other\n",
    })  # fmt: skip
    section = normalise_findings({"openssl": openssl.collect(System(tmp_path))}).sections["openssl"]
    assert section["state"] == "ok"
    assert section["version"] == "3.3.2"
    assert section["stale_processes"] == ["mosquitto"]
    assert section["config"]["security_level"] == 1
    assert gap_texts(section) == ["tls_errors: only the running system has a journal"]


def test_a_process_with_a_deleted_library_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FactsUnavailableError, match="no list of processes"):
        stale_processes(System(tmp_path))
    library = tmp_path / "libcrypto.so.99"
    library.write_bytes(b"\0" * mmap.PAGESIZE)
    own = Path("/proc/self/comm").read_text().strip()
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        before, _ = stale_processes(System())
        library.unlink()
        after, _ = stale_processes(System())
    assert set(after) - set(before) <= {own}
    assert own in after


def test_unreadable_processes_of_other_users_are_reported(tmp_path: Path) -> None:
    if Path("/proc/1/maps").exists() and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    code = (
        "from pathlib import Path\nfrom device_agent.collectors.crypto.openssl import stale_processes\n"
        "from device_agent.host.system import System\nprint(stale_processes(System())[1])"
    )
    argv = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", code]
    process = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd=Path.cwd())
    if process.returncode != 0:
        pytest.skip(f"cannot run as another user: {process.stderr.splitlines()[-1] if process.stderr else ''}")
    assert process.stdout.strip() == "True"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program here")
def test_the_section_of_this_machine_matches_openssl() -> None:
    section = openssl.collect(System())
    version = subprocess.run(
        ["openssl", "version", "-v"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert version.startswith(f"OpenSSL {section['version']} ")
    assert section["library"] in version
    folder = subprocess.run(["openssl", "version", "-d"], capture_output=True, text=True, check=True, timeout=60).stdout
    expected = Path(folder.partition('"')[2].rstrip('"\n')) / "openssl.cnf"
    assert expected.is_file() == ("config" in section)
    assert "config" not in section or section["config"]["file"] == str(expected)
    tls = section.get("tls_errors")
    assert (tls is None) == any(problem.startswith("tls_errors: ") for problem in gap_texts(section))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("error:0A000086:SSL routines::certificate verify failed", True),
        ("SSL_do_handshake() failed (SSL: error:1408F10B:SSL routines:ssl3_get_record:wrong version number)", True),
        ("TLS handshake failure from 10.0.0.1", True),
        ("OpenSSL Error[0]: error:0A000126:SSL routines::unexpected eof while reading", True),
        ("x509: certificate has expired or is not yet valid", True),
        ("TLS connection established", False),
        ("certificate renewed", False),
        ("disk error: 5", False),
        ([84, 76, 83, 32, 104, 97, 110, 100, 115, 104, 97, 107, 101, 32, 102, 97, 105, 108, 101, 100], True),
        (None, False),
        (7, False),
        ([-1, 300, "x"], False),
    ],
)
def test_tls_errors_are_recognised_in_journal_messages(message: Any, expected: bool) -> None:
    assert tls_errors.is_tls_error(json.dumps({"MESSAGE": message})) is expected
    assert tls_errors.is_tls_error(json.dumps({"MESSAGE": message, "SYSLOG_IDENTIFIER": "cordon-agent"})) is False


def test_counts_are_reported_as_buckets() -> None:
    assert [tls_errors.bucket_label(n) for n in (0, 1, 9, 10, 99, 100)] == [
        "none",
        "few",
        "few",
        "some",
        "some",
        "many",
    ]


@pytest.mark.parametrize(
    ("err", "out", "status", "expected"),
    [
        ("", '{"MESSAGE": "TLS handshake failed"}\n{"MESS', 0, "few"),
        ("", "", 0, "none"),
        ("No journal files were found.\n", "", 0, "no journal"),
        ("Hint: You are currently not seeing messages from other users and the system.\n", "{}", 0, "needs root"),
        ("Failed\n", "", 1, "no journal"),
    ],
)
def test_tls_errors_are_counted_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, err: str, out: str, status: int, expected: str
) -> None:
    program = tmp_path / "journalctl"
    (tmp_path / "out").write_text(out)
    (tmp_path / "err").write_text(err)
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/out\ncat {tmp_path}/err >&2\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if expected in ("few", "none"):
        assert tls_errors.count_journal_tls_errors() == expected
        return
    with pytest.raises(FactsUnavailableError, match=expected):
        tls_errors.count_journal_tls_errors()


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="[]=$:{}()#\\\n \"'.includeopsl_conf@SECLV9\x00é", max_size=300))
def test_any_text_is_parsed_without_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    put_all(root, {"etc/ssl/openssl.cnf": "openssl_conf = i\n[i]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\n" + text})
    config(root)
    tls_errors.is_tls_error(text)


@pytest.mark.parametrize(
    ("commands", "lowest"),
    [
        ("TLS.MinProtocol = TLSv1\nDTLS.MinProtocol = DTLSv1.2\n", "TLSv1"),
        ("TLS.MinProtocol = TLSv1.2\nDTLS.MinProtocol = DTLSv1\n", "TLSv1.2"),
        ("MinProtocol = TLSv1.2\nTLS.MinProtocol = TLSv1\n", "TLSv1"),
        ("TLS.MinProtocol = TLSv1\nMinProtocol = TLSv1.2\nTLS.MinProtocol = TLSv1.1\n", "TLSv1.1"),
        ("Protocol = -ALL, TLSv1.2\n", "TLSv1.2"),
        ("MinProtocol = TLSv1\nProtocol = -TLSv1\n", "TLSv1.1"),
        ("Protocol = -TLSv1.3\n", ""),
        ("MinProtocol = None\n", "None"),
    ],
)
def test_the_lowest_protocol_version_is_that_of_the_library(commands: str, lowest: str, tmp_path: Path) -> None:
    put(tmp_path, "/etc/ssl/openssl.cnf", f"openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\n{commands}")
    assert config(tmp_path)["min_protocol"] == lowest


@pytest.mark.parametrize("command", ["MinProtocol = TLS1.2", "MinProtocol =", "Protocol = -TLS1"])
def test_a_protocol_that_is_not_understood_is_a_gap(command: str, tmp_path: Path) -> None:
    put(tmp_path, "/etc/ssl/openssl.cnf", f"openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\n{command}\n")
    reading = openssl_config.read_policy(System(tmp_path), "/etc/ssl/openssl.cnf")
    assert [gap.reason.partition(":")[0] for gap in reading.gaps] == ["not understood"]


@pytest.mark.parametrize(
    ("database", "package"),
    [
        ("Package: libcrypto3\nVersion: 3.0.15-r0\nStatus: install user installed\n\n", "libcrypto3"),
        ("Package: libopenssl3\nVersion: 3.0.16-1\nStatus: install user installed\n\n", "libopenssl3"),
    ],
)
def test_a_library_without_the_program_is_the_package(tmp_path: Path, database: str, package: str) -> None:
    section = openssl.collect(System(put_all(tmp_path, {"usr/lib/opkg/status": database})))
    assert section["package"]["name"] == package
    assert section["version"] == section["package"]["version"].partition("-")[0]


TLS = "openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n"


@pytest.mark.parametrize(
    ("commands", "field", "value"),
    [
        ("1.Options = UnsafeLegacyServerConnect\n2.Options = PrioritizeChaCha", "unsafe_options",
         ["UnsafeLegacyServerConnect"]),
        ("TLS.Options = UnsafeLegacyServerConnect\nDTLS.Options = X", "unsafe_options", ["UnsafeLegacyServerConnect"]),
        ("1.Options = UnsafeLegacyServerConnect\n2.Options = -UnsafeLegacyServerConnect", "unsafe_options", []),
        ("CipherString = DEFAULT:@SECLEVEL=2:@SECLEVEL=0", "security_level", 0),
        ("1.CipherString = DEFAULT:@SECLEVEL=0\n2.CipherString = HIGH", "security_level", 0),
    ],
)  # fmt: skip
def test_every_command_of_a_name_is_carried_out(commands: str, field: str, value: object, tmp_path: Path) -> None:
    put(tmp_path, "/etc/ssl/openssl.cnf", f"{TLS}[c]\n{commands}\n")
    assert config(tmp_path)[field] == value


@pytest.mark.parametrize(
    ("activate", "version", "is_active"),
    [
        ("0", "3.0.15", True), ("", "3.1.4", True), ("no", "3.2.0", True), ("0", "3.3.0", False), ("1", "3.5.1", True),
        ("0", "", True),
    ],
)  # fmt: skip
def test_any_value_activates_a_provider_before_3_3(
    activate: str, version: str, is_active: bool, tmp_path: Path
) -> None:
    text = f"openssl_conf=a\n[a]\nproviders=p\n[p]\nlegacy=l\nfips=l\n[l]\nactivate = {activate}\n"
    put(tmp_path, "/etc/ssl/openssl.cnf", text)
    policy = openssl_config.read_policy(System(tmp_path), "/etc/ssl/openssl.cnf", version).value
    assert (policy["legacy_provider"], policy["fips"]) == (is_active, is_active)


@pytest.mark.parametrize("pragma", [".pragma = includedir:/etc/ssl/policy.d", ".pragma includedir:/etc/ssl/policy.d"])
def test_relative_includes_start_at_the_folder_of_the_pragma(pragma: str, tmp_path: Path) -> None:
    put(tmp_path, "/etc/ssl/openssl.cnf", f"{pragma}\n{TLS}.include = local.cnf\n")
    put(tmp_path, "/etc/ssl/policy.d/local.cnf", "[c]\nMinProtocol = TLSv1\nCipherString = DEFAULT:@SECLEVEL=0\n")
    reading = openssl_config.read_policy(System(tmp_path), "/etc/ssl/openssl.cnf")
    assert (reading.value["min_protocol"], reading.value["security_level"]) == ("TLSv1", 0)
    assert not reading.gaps


@pytest.mark.parametrize("line", [".include local.cnf", ".pragma dollarid:on", ".pragma x", ".include d"])
def test_what_depends_on_the_program_or_an_unknown_pragma_is_a_gap(line: str, tmp_path: Path) -> None:
    put(tmp_path, "/etc/ssl/openssl.cnf", f"{line}\n{TLS}[c]\n")
    assert openssl_config.read_policy(System(tmp_path), "/etc/ssl/openssl.cnf").gaps
