"""Files of a hostile image or folder that are endless, include each other without end, or take long to match."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.access import accounts, pam
from device_agent.collectors.crypto import revocation
from device_agent.collectors.crypto.certificate_chain import MAX_ELEMENTS
from device_agent.collectors.crypto.key_asn1 import read_asn1_keys
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_lines
from device_agent.host.packages import installed
from device_agent.host.system import System

ENDLESS: Final = 300 * 1024**3  # bytes of a sparse file, which takes no place
MEMORY: Final = 64 * 1024 * 1024  # bytes that a reader may take beside what the process has
CPU_SECONDS: Final = 10


def _release(root: Path, name: str) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").write_text(f"ID={name}\nVERSION_ID=12\n")


def _endless(root: Path, path: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(b"Package: other\n" if "status" in path else b"root:x:0:0::/root:/bin/sh\n")
        os.truncate(opened.fileno(), ENDLESS)


def _installed(system: System) -> object:
    return installed(system, "openssl")


READERS: Final[dict[str, tuple[str, str, Callable[[System], Any]]]] = {
    "dpkg": ("debian", "var/lib/dpkg/status", _installed),
    "distroless": ("debian", "var/lib/dpkg/status.d/openssl", _installed),
    "apk": ("alpine", "lib/apk/db/installed", _installed),
    "opkg": ("openwrt", "usr/lib/opkg/status", _installed),
    "passwd": ("debian", "etc/passwd", accounts.accounts),
    "shadow": ("debian", "etc/shadow", accounts.shadow_entries),
}


@pytest.mark.parametrize("which", READERS)
def test_an_endless_file_of_an_image_is_a_gap_and_fills_no_memory(tmp_path: Path, which: str) -> None:
    """Finding: a sparse file was read until the memory of the examining machine was full."""
    name, path, read = READERS[which]
    _release(tmp_path, name)
    _endless(tmp_path, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FactsUnavailableError, match=r"too large|line"), _memory_limit():
        read(System.image(tmp_path))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2 * MEMORY


class _memory_limit:  # noqa: N801 - used as a function
    """Bounds the address space, so that a reader without a bound fails instead of the machine."""

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        now = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self._before)


def test_many_short_lines_are_bounded_too(tmp_path: Path) -> None:
    file = tmp_path / "many"
    file.write_bytes(b"a\n" * 1000)
    assert list(read_lines(file, 2000, 2)) == ["a\n"] * 1000
    with pytest.raises(FactsUnavailableError):
        list(read_lines(file, 1999, 2))
    with pytest.raises(FactsUnavailableError):
        list(read_lines(file, 2000, 1))


def test_files_of_pam_that_include_each_other_many_times_are_a_gap(tmp_path: Path) -> None:
    """Finding: eight levels of files with thousands of `@include` lines each gave modules without end."""
    folder = tmp_path / "etc/pam.d"
    folder.mkdir(parents=True)
    for level in range(7):
        (folder / f"l{level}").write_text(f"@include l{level + 1}\n" * 10_000)
    (folder / "l7").write_text("auth required pam_unix.so\n" * 5_000)
    with pytest.raises(FactsUnavailableError, match="lines"):
        pam.service_stack(System.image(tmp_path), "auth", "l0")
    (folder / "empty").write_text("")
    (folder / "wide").write_text("auth include empty\n" * 5_001)
    with pytest.raises(FactsUnavailableError, match="too many files"):
        pam.service_stack(System.image(tmp_path), "auth", "wide")


_LONG: Final = {
    "newlines in a PEM block": (
        "key_format.read_keys",
        "b'-----BEGIN PRIVATE KEY-----' + b'\\n' * 250_000 + b'A-----END PRIVATE KEY-----'",
    ),
    "newlines after an encryption header": (
        "key_format.read_keys",
        "b'-----BEGIN RSA PRIVATE KEY-----\\nProc-Type: 4,ENCRYPTED\\n' + b'\\n' * 250_000 + b'-----END RSA KEY-----'",
    ),
    "spaces in a header": (
        "key_format.read_keys",
        "b'-----BEGIN PRIVATE KEY-----\\nProc-Type:' + b' ' * 250_000 + b'4,\\n-----END PRIVATE KEY-----'",
    ),
    "small structures in DER": ("key_format.read_keys", "bytes((0x30, 0)) * 125_000"),
    "small structures in a revocation list": ("revocation._parse_crls", "bytes((0x30, 0)) * 2_000_000"),
    "small structures in a certificate": ("certificate_chain.load_bundle", "bytes((0x30, 0)) * 2_000_000"),
    "labels without an end": ("key_format.read_keys", "b'-----BEGIN PRIVATE KEY-----\\n' * 9_000"),
    "dashes": ("key_format.read_keys", "b'-----BEGIN ' + b'-' * 250_000"),
    "blanks of WireGuard": ("key_format.read_keys", "b'[Interface]\\n' + b' ' * 250_000 + b'PrivateKey'"),
    "newlines in an updateinfo": ("pending_rpm._UPDATED.findall", "'\\n' * 250_000"),
    "newlines of cryptsetup": ("block_devices.cipher_in_status", "'\\n' * 250_000"),
}


@pytest.mark.parametrize("which", _LONG)
def test_long_input_takes_linear_time(which: str) -> None:
    """Finding: a quadratic expression held the interpreter for minutes, and with it every section of the scan.

    A child with a limit of CPU time, since no thread could stop an expression while it matches.
    """
    what, data = _LONG[which]
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
from device_agent.collectors.crypto import certificate_chain, key_format, revocation
from device_agent.collectors.software import pending_rpm
from device_agent.collectors.system import block_devices
from device_agent.errors import FactsUnavailableError
try:
    {what}({data})
except FactsUnavailableError:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_beyond_the_most_elements_of_a_list_nothing_is_clear() -> None:
    lists = revocation._parse_crls(b"\x30\x00" * 1000)
    assert len(lists) == MAX_ELEMENTS + 1
    assert lists[-1] is None


def test_too_many_structures_are_a_gap_and_keys_among_few_are_found() -> None:
    with pytest.raises(FactsUnavailableError, match="structures"):
        read_asn1_keys(b"\x30\x00" * 1000, 17)
    rsa = bytes.fromhex("300602010002010d")
    assert [key.kind for key in read_asn1_keys(b"\x30\x00" * 5 + rsa, 17)] == [
        key.kind for key in read_asn1_keys(rsa, 17)
    ]
