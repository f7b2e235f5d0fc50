"""The binary records of login files (btmp, wtmp) as glibc writes them."""

import struct
from typing import Final

# glibc's record of a login; machines that never were 32 bits wide have longer ones.
RECORD: Final = struct.Struct("=h2xi32s4s32s256shhiii16s20x")

WIDE_RECORD: Final = struct.Struct("=h2xi32s4s32s256shhqqq16s24x")

WIDE_MACHINES: Final = frozenset({"aarch64", "riscv64", "loongarch64"})
