"""Thousands of idle, half-open, slow-reading and slow-writing clients at every listener, while devices violate.

Real processes on loopback: a stand-in with mutual TLS, and a controller that may open 1,024 files.
"""

import asyncio
import contextlib
import resource
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
import pytest

from controller.ports.errors import ControllerError
from tests.support.mosquitto import free_port
from tests.support.mtls_deployment import CONTROLLER, EnrolledDevice, MutualTlsDeployment, wait_for_devices
from tests.support.project_tree import ROOT
from tests.support.waiting import wait_for

VIOLATIONS: Final = 12
CLIENTS: Final = 2000  # of each listener, where this process may open so many files
ATTACK_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 10.0  # until a client that was cut off connects again
STARTS_AT_ONCE: Final = 50  # connections that an attacker opens at the same time
OPEN_FILES: Final = 1024  # of the controller: the default of a shell
# Below this the quiet time says nothing: after the drop the controller waits up to 2 s before it reconnects, the broker
# is compared every 5 s, and the attackers need one of the two cores of a small machine for themselves.
FLOOR_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 20.0
_HALF: Final = (
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ",
    b"POST /api/v1/enrolment/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{",
    b"GET /targets/big.bin HTTP/1.1\r\nHost: x\r\n\r\n",
)
"""What a client sends: nothing, half a header, half a body, or a request whose answer it does not read."""


class Crowd:
    """Clients of a listener in a thread of their own; each that is cut off comes again."""

    def __init__(self, port: int, count: int, tls: bool) -> None:
        self._port = port
        self._count = count
        self._tls = tls
        self._stop = threading.Event()
        # A daemon: clients that hang at their end must not hang the test.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=f"crowd-{port}", daemon=True)
        self.connected = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_STOP_SECONDS)

    async def _run(self) -> None:
        starting = asyncio.Semaphore(STARTS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._client(n, starting)) for n in range(self._count)]
            while not self._stop.is_set():
                await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()

    async def _client(self, number: int, starting: asyncio.Semaphore) -> None:
        address = f"127.0.{1 + number // 250}.{1 + number % 250}"
        sent = _HALF[number % len(_HALF)]
        context = None
        if self._tls and number % 8 >= 4:  # the others never finish the handshake
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while True:
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
                async with starting:
                    reader, writer = await asyncio.wait_for(
                        asyncio.open_connection(
                            "127.0.0.1", self._port, local_addr=(address, 0), ssl=context, limit=1024
                        ),
                        5.0,
                    )
                    self.connected += 1
                try:
                    writer.write(sent)
                    while await reader.read(64):  # slowly: at most 64 bytes a second
                        await asyncio.sleep(1.0)
                        if number % 2:
                            writer.write(b"a")
                finally:
                    writer.transport.abort()
            await asyncio.sleep(AGAIN_SECONDS)


@pytest.fixture(scope="module")
def files() -> Iterator[int]:
    """How many clients of each listener this process may have; it raises its own soft limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * CLIENTS + 1000
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))
    yield min(CLIENTS, (max(most, soft) - 512) // 3)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def update_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, update_port: int) -> Iterator[MutualTlsDeployment]:
    folder = tmp_path_factory.mktemp("resources")
    targets = folder / "updates" / "repository" / "targets"
    targets.mkdir(parents=True)
    (targets / "big.bin").write_bytes(bytes(8 * 1024 * 1024))
    more = (
        f'[updates]\nfolder = "{folder / "updates"}"\nlisten = "127.0.0.1:{update_port}"\n'
        f"[guards]\nmax_devices = 1000\nmax_percent = 100.0\n"
    )
    with MutualTlsDeployment(folder, more=more, open_files=OPEN_FILES) as made:
        yield made


def _memory_limit() -> int:
    """`MemoryMax` of the controller's unit, in bytes."""
    unit = (ROOT / "deploy/systemd/cordon.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("MemoryMax=")]
    assert line.endswith("G"), line
    return int(line.removeprefix("MemoryMax=").removesuffix("G")) * 1024**3


def _peak(pid: int) -> int:
    """The most memory that a process held, in bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _contain(deployment: MutualTlsDeployment, devices: list[EnrolledDevice]) -> float:
    """Drops the controller's session, has all devices violate; returns the seconds until the last one is cut off."""
    key, secret = deployment.emqx.key, deployment.emqx.secret
    with httpx.Client(auth=(key, secret)) as emqx:
        dropped = emqx.delete(f"{deployment.emqx.api_urls[0]}/api/v5/clients/{CONTROLLER}")
        assert dropped.status_code == 204, dropped.text
    began = time.monotonic()
    contained: dict[str, float] = {}
    for device in devices:
        device.report(ports=(2375,))

    def all_contained() -> bool:
        for device in devices:
            if device.name not in contained:
                # A message that reached nobody, because the session was gone, is repeated: a device does so, too.
                device.report(ports=(2375,))
                if device.refusals or not device.is_up:
                    contained[device.name] = time.monotonic() - began
        time.sleep(0.5)
        return len(contained) == len(devices)

    wait_for(all_contained, lambda: f"{len(contained)} of {len(devices)} are cut off", 90.0)
    return max(contained.values())


def _fleet(deployment: MutualTlsDeployment, prefix: str) -> list[EnrolledDevice]:
    token = deployment.token(uses=VIOLATIONS)
    with ThreadPoolExecutor(4) as pool:
        devices = list(pool.map(lambda n: deployment.device(f"{prefix}-{n}", token), range(VIOLATIONS)))
    for device in devices:
        device.start()
    wait_for_devices(devices, lambda: all(device.is_up for device in devices), "all are connected")
    for device in devices:
        device.report()
    return devices


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_devices_are_contained_while_every_listener_is_full(
    deployment: MutualTlsDeployment, update_port: int, files: int
) -> None:
    quiet_devices, devices = _fleet(deployment, "quiet"), _fleet(deployment, "attack")
    api_port = urlsplit(deployment.url).port
    assert api_port is not None
    try:
        quiet = _contain(deployment, quiet_devices)
        listeners = ((api_port, True), (deployment.list_port, False), (update_port, False))
        with contextlib.ExitStack() as stack:
            began = time.monotonic()
            crowds = [stack.enter_context(Crowd(port, files, tls=tls)) for port, tls in listeners]
            wait_for(lambda: all(crowd.connected >= min(files, 500) for crowd in crowds), "the crowds are there", 60.0)
            attacked = _contain(deployment, devices)
            _fetch_during_attack(deployment)
            wait_for(lambda: time.monotonic() - began > ATTACK_SECONDS, "a minute of attack", ATTACK_SECONDS + 10.0)
            descriptors = len(list(Path(f"/proc/{deployment.pid}/fd").iterdir()))
    finally:
        for device in (*quiet_devices, *devices):
            device.stop()
    peak = _peak(deployment.pid)
    print(
        f"{files} clients of each listener: quiet {quiet:.1f} s, under attack {attacked:.1f} s; "
        f"at most {peak >> 20} MiB, {descriptors} of {OPEN_FILES} descriptors"
    )
    assert attacked <= max(2 * quiet, FLOOR_SECONDS)
    assert peak < _memory_limit()
    assert descriptors < OPEN_FILES
    assert "Too many open files" not in deployment.log


def _fetch_during_attack(deployment: MutualTlsDeployment) -> None:
    """An operator's request and a broker's fetch of the list succeed, at the latest when they are repeated."""
    issuer = deployment.files.authority.issuer

    def both() -> bool:
        with contextlib.suppress(httpx.HTTPError, ControllerError):
            listed = httpx.get(f"http://127.0.0.1:{deployment.list_port}/crl/{issuer}.pem", timeout=20.0)
            return listed.status_code == 200 and bool(deployment.client.get("/devices"))
        return False

    wait_for(both, "the API and the revocation lists answer", 60.0)
