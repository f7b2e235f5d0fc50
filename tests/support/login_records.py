"""Records of failed logins as login(1) and sshd write them."""

import struct

from device_agent.host import login_records


def btmp_record(at: int, host: str, packing: struct.Struct = login_records.RECORD) -> bytes:
    return packing.pack(6, 1, b"ssh:notty", b"", b"root", host.encode(), 0, 0, 0, at, 0, b"")
