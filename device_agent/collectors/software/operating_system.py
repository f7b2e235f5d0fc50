"""The operating system (section `os`): of the running machine, or as the files of an image tell."""

import struct
from typing import Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.software import kernels
from device_agent.host.os_release import describe_os, read_os_release
from device_agent.host.system import System
from schemas.safe_files import open_for_reading

# Programs that a distribution has for its own architecture, also where it runs programs of another one too.
_PROGRAMS: Final = ("/sbin/init", "/bin/busybox", "/bin/sh", "/usr/bin/env", "/bin/ls", "/usr/bin/dpkg", "/usr/bin/rpm")
_HEADER_BYTES: Final = 20
_WIDE: Final = 2  # of the ELF class: 64 bits
_BIG: Final = 2  # of the ELF data encoding
# By the number of the machine in an ELF header (gABI): its name with 32 bits, and with 64, as `uname -m` has them.
_MACHINES: Final = {
    3: ("i686", "i686"),
    8: ("mips", "mips64"),
    20: ("ppc", "ppc"),
    21: ("ppc64", "ppc64"),
    22: ("s390", "s390x"),
    40: ("arm", "arm"),
    62: ("x86_64", "x86_64"),
    183: ("aarch64", "aarch64"),
    243: ("riscv32", "riscv64"),
    258: ("loongarch32", "loongarch64"),
}


def collect(system: System) -> Section:
    """Collects the `os` section."""
    return _of_image(system) if system.is_image else SectionBuilder(**describe_os(system)).build()


def _of_image(system: System) -> Section:
    release = read_os_release(system)
    section = SectionBuilder(id=release.get("ID", "linux"), version=release.get("VERSION_ID", ""))
    if installed := kernels.releases(system):
        section.set(kernel=installed[-1])
    else:
        section.gap("kernel", reason="the image has no kernel, or one without modules")
    machine = next(filter(None, (_machine(system, program) for program in _PROGRAMS)), "")
    section.set(machine=machine)
    if not machine:
        section.gap("machine", reason="no program of a known architecture was found")
    return section.build()


def _machine(system: System, program: str) -> str:
    path = system.path(program)
    if not path.is_file():
        return ""
    with open_for_reading(path) as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(b"\x7fELF"):
        return ""
    width, encoding = header[4], header[5]
    (number,) = struct.unpack_from(">H" if encoding == _BIG else "<H", header, 18)
    name = _MACHINES.get(number, ("", ""))[width == _WIDE]
    return f"{name}le" if name == "ppc64" and encoding != _BIG else name
