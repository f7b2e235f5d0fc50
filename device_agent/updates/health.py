"""The health check in a target's signed metadata: a command, a service, a TCP port, an HTTP address."""

import http.client
import socket
import threading
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from device_agent.host.execute import ExecuteError, run
from schemas.http_deadline import HttpConnection
from schemas.updates import HealthCheck, UpdateTarget

INTERVAL_SECONDS: Final = 0.5  # between two checks
_CHECK_SECONDS: Final = 10.0  # for each part of a check

ResolveProgram = Callable[[str], str]
"""Returns the path of a program that a health check names."""


def wait_until_healthy(
    target: UpdateTarget, resolve_program: ResolveProgram, seconds: float, stopping: threading.Event
) -> str:
    """Repeats the health check until it passes; returns an empty text, or the problem of the last check."""
    deadline = time.monotonic() + seconds
    while True:
        check_seconds = max(0.1, min(_CHECK_SECONDS * 6, deadline - time.monotonic()))
        problem = check_health(target, resolve_program, check_seconds, stopping)
        if not problem or time.monotonic() + INTERVAL_SECONDS >= deadline or stopping.wait(INTERVAL_SECONDS):
            return problem


def check_health(
    target: UpdateTarget, resolve_program: ResolveProgram, seconds: float, stopping: threading.Event | None = None
) -> str:
    """Runs the health check once; returns an empty text, or the problem."""
    health = target.health
    problem = _command(target, resolve_program, seconds, stopping) if health.command else ""
    problem = problem or (_service(health.service) if health.service else "")
    problem = problem or (_tcp(health.tcp) if health.tcp is not None else "")
    return problem or (_http(health) if health.http else "")


def _command(
    target: UpdateTarget, resolve_program: ResolveProgram, seconds: float, stopping: threading.Event | None
) -> str:
    name, *arguments = target.health.command
    environment = {"CORDON_UPDATE_NAME": target.name, "CORDON_UPDATE_VERSION": target.version}
    try:
        run([resolve_program(name), *arguments], seconds=seconds, environment=environment, cancelled=stopping)
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
            socket.create_connection((address, port), timeout=_CHECK_SECONDS).close()
        except OSError:
            continue
        return ""
    return f"no process accepts connections at port {port}"


def _http(health: HealthCheck) -> str:
    parts = urlsplit(health.http)
    connection = HttpConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=_CHECK_SECONDS)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as e:
        return f"{health.http} does not answer: {type(e).__name__}"
    finally:
        connection.close()
    return "" if status == 200 else f"{health.http} answers {status}"
