"""Whether a new version works: what its signed metadata says has to hold, looked at on this machine."""

import http.client
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from device_agent.host.execute import ExecuteError, run
from schemas.updates import HealthCheck, UpdateTarget

AGAIN_SECONDS = 0.5  # between two looks
_LOOK_SECONDS = 10.0  # for one look of a kind


def wait_until_healthy(
    target: UpdateTarget, program: Callable[[str], str], seconds: float, stopping: threading.Event
) -> str:
    """Look again and again until all holds; empty, or what was wrong at the last look."""
    deadline = time.monotonic() + seconds
    while True:
        wrong = look(target, program, max(0.1, min(_LOOK_SECONDS * 6, deadline - time.monotonic())), stopping)
        if not wrong or time.monotonic() + AGAIN_SECONDS >= deadline or stopping.wait(AGAIN_SECONDS):
            return wrong


def look(
    target: UpdateTarget, program: Callable[[str], str], seconds: float, stopping: threading.Event | None = None
) -> str:
    """One look; empty, or what is wrong."""
    health = target.health
    wrong = _command(target, program, seconds, stopping) if health.command else ""
    wrong = wrong or (_service(health.service) if health.service else "")
    wrong = wrong or (_tcp(health.tcp) if health.tcp is not None else "")
    return wrong or (_http(health) if health.http else "")


def _command(
    target: UpdateTarget, program: Callable[[str], str], seconds: float, stopping: threading.Event | None
) -> str:
    name, *arguments = target.health.command
    environment = {"CORDON_UPDATE_NAME": target.name, "CORDON_UPDATE_VERSION": target.version}
    try:
        run([program(name), *arguments], seconds=seconds, environment=environment, cancelled=stopping)
    except ExecuteError as e:
        return str(e)
    return ""


def _service(unit: str) -> str:
    try:
        run(["systemctl", "is-active", "--quiet", unit])
    except ExecuteError:
        return f"{unit} is not active"
    return ""


def _tcp(port: int) -> str:
    for address in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((address, port), timeout=_LOOK_SECONDS).close()
        except OSError:
            continue
        return ""
    return f"nothing takes connections at port {port}"


def _http(health: HealthCheck) -> str:
    parts = urlsplit(health.http)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=_LOOK_SECONDS)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as e:
        return f"{health.http} does not answer: {type(e).__name__}"
    finally:
        connection.close()
    return "" if status == 200 else f"{health.http} answers {status}"
