"""Loads rule sets in a network namespace and sends packets from another: which ports of which protocol they reach.

Run as a program in a namespace of its own (`unshare -n`), the device's. It makes a second one, the strangers', joined
by a pair of veth interfaces; nothing outside of both is touched. Each line of standard input is a request, each line of
output its answer.
"""

import ctypes
import errno
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Final

PORTS: Final = (22, 53, 80, 443, 1024, 1883, 8080, 30000, 50000)
SOURCE_PORTS: Final = (0, 53, 1000)
DEVICE: Final = {"ip": ("198.51.100.1", "10.1.2.1"), "ip6": ("2a0f::1",)}
SOURCES: Final = {"ip": ("5.5.5.5", "93.184.216.34", "130.1.1.1", "200.1.1.1"), "ip6": ("2a0f::2", "3fff:1::5")}
_FAMILIES: Final = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}
_CLONE_NEWNET: Final = 0x40000000
_MACS: Final = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, timeout=20)


def join_namespaces() -> tuple[int, int]:
    """Returns descriptors of the device's and the strangers' namespace, joined and with addresses."""
    device = os.open("/proc/self/ns/net", os.O_RDONLY)
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    strangers = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    _enter(device)
    _ip(
        f"link add wan0 address {_MACS[0]} type veth peer name peer0 address {_MACS[1]}",
        f"link set peer0 netns /proc/{os.getpid()}/fd/{strangers}", "link set lo up",
        "link set wan0 up", "link add lan0 type veth peer name lan1", "link set lan0 up", "link set lan1 up",
        "addr add 10.1.2.1/24 dev lan0",
        "addr add 198.51.100.1/24 dev wan0", "addr add 2a0f::1/64 dev wan0 nodad",
        f"neigh replace 198.51.100.2 lladdr {_MACS[1]} dev wan0 nud permanent",
        f"-6 neigh replace 2a0f::2 lladdr {_MACS[1]} dev wan0 nud permanent",
        "route add default via 198.51.100.2", "-6 route add default via 2a0f::2",
    )  # fmt: skip
    _enter(strangers)
    _ip("link set lo up", "link set peer0 up", "addr add 198.51.100.2/24 dev peer0",
        "addr add 2a0f::2/64 dev peer0 nodad",
        *(f"addr add {address}/32 dev peer0" for address in SOURCES["ip"]),
        *(f"addr add {address}/128 dev peer0 nodad" for address in SOURCES["ip6"][1:]),
        "route add 10.1.2.0/24 via 198.51.100.1",
        f"neigh replace 198.51.100.1 lladdr {_MACS[0]} dev peer0 nud permanent",
        f"-6 neigh replace 2a0f::1 lladdr {_MACS[0]} dev peer0 nud permanent")  # fmt: skip
    _enter(device)
    return device, strangers


class Listeners:
    """Sockets on every probed port of the device."""

    def __init__(self) -> None:
        self.tcp: list[socket.socket] = []
        self.udp: dict[tuple[str, int], socket.socket] = {}
        for name, family in _FAMILIES.items():
            for port in PORTS:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind(("", port))
                    if kind == socket.SOCK_STREAM:
                        sock.listen(128)
                        self.tcp.append(sock)
                    else:
                        self.udp[name, port] = sock

    def drain(self) -> set[str]:
        """Closes what was accepted; returns where datagrams arrived."""
        reached = set()
        for sock in self.tcp:
            while True:
                try:
                    sock.accept()[0].close()
                except OSError:
                    break
        for (family, port), sock in self.udp.items():
            while True:
                try:
                    sock.recv(100)
                except OSError:
                    break
                reached.add(f"udp {family} {port}")
        return reached


def forget_connections() -> None:
    """Empties the table of tracked connections of this namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:  # NETLINK_NETFILTER
        netlink.bind((0, 0))
        # IPCTNL_MSG_CT_DELETE of the subsystem ctnetlink, NLM_F_REQUEST and NLM_F_ACK
        netlink.send(struct.pack("=IHHII", 20, 0x0102, 0x5, 1, 0) + struct.pack("=BBH", 0, 0, 0))
        netlink.recv(4096)


def _from_stranger(kind: int, family: str, source: str, port: int) -> socket.socket:
    sock = socket.socket(_FAMILIES[family], kind | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((source, port))
    return sock


def send(source_ports: tuple[int, ...], ports: tuple[int, ...], seconds: float) -> set[str]:
    """Sends from every source and source port to the ports in order; returns the TCP ports that answered in time."""
    pending: dict[int, tuple[socket.socket, str]] = {}
    poll = select.poll()
    reached = set()
    for family, sources in SOURCES.items():
        for source in sources:
            for source_port in source_ports:
                udp = _from_stranger(socket.SOCK_DGRAM, family, source, source_port)
                for target in ((address, port) for address in DEVICE[family] for port in ports):
                    udp.sendto(b"x", target)
                    tcp = _from_stranger(socket.SOCK_STREAM, family, source, source_port)
                    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    tcp.connect_ex(target)
                    pending[tcp.fileno()] = (tcp, f"tcp {family} {target[1]}")
                    poll.register(tcp, select.POLLOUT)
                udp.close()
    end = time.monotonic() + seconds
    while pending and (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            sock, name = pending.pop(number)
            poll.unregister(number)
            # Reset after the answer: only later packets of the connection were refused.
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in {0, errno.ECONNRESET, errno.EPIPE}:
                reached.add(name)
            sock.close()
    for sock, _ in pending.values():
        sock.close()
    return reached


def _run(argv: list[str], given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise ValueError(f"{argv[0]}: {done.stderr[:2000]}")
    return done.stdout


def answer(request: dict[str, Any], listeners: Listeners, namespaces: tuple[int, int]) -> dict[str, Any]:
    """Loads the rules of a request, and sends packets.

    Request: `rules`, the text for each program that loads one; `lists`, the commands whose output the answer has in the
    same order; `has_source_ports`; `is_repeated`; `seconds` to wait for answers.
    """
    _run(["nft", "flush", "ruleset"])
    try:
        for argv, text in request["rules"]:
            _run(argv, text)
        listed = [_run(argv) for argv in request["lists"]]
    except ValueError as e:
        return {"error": str(e)}
    forget_connections()
    listeners.drain()
    _enter(namespaces[1])
    # An ICMP error for a later packet of a connection looks like a refusal. There is one a second: another order meets
    # another port.
    ports = PORTS[::-1] if request["is_repeated"] else PORTS
    reached = send(SOURCE_PORTS if request["has_source_ports"] else SOURCE_PORTS[:1], ports, request["seconds"])
    _enter(namespaces[0])
    return {"listed": listed, "reached": sorted(reached | listeners.drain())}


def main() -> None:
    """Answers requests until the end of standard input."""
    namespaces = join_namespaces()
    listeners = Listeners()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), listeners, namespaces)), flush=True)


if __name__ == "__main__":
    main()
