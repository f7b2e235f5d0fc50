"""Runs the controller: opens the adapters, builds the services over them, serves until it is stopped.

Read on in `build` (which service gets what), then `broker` and `identity` (its two larger groups), `adapters` (what is
opened as the configuration says) and `servers`. `offline` is what the command line needs without a running controller.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from controller.adapters.logs import configure_logs, logger_for
from controller.api.context import Services
from controller.app.adapters import PolicyLoader, check_secret_files, open_adapters
from controller.app.build import BackgroundLoop, Controller, build, fleet_guards
from controller.app.servers import STOP_TIMEOUT, CrlServer, UpdateServer, api_server, listen
from controller.ports.errors import ControllerError
from controller.service.maintenance import tune_gc
from controller.service.settings.settings import Settings

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def serve(
    settings: Settings, *, ready: Callable[[dict[str, Any]], None] | None = None, force: bool = False
) -> None:
    """Runs the controller until SIGTERM or SIGINT; SIGHUP reloads the policies.

    `ready` is called once with the API's URL when everything listens. `force`: start with policies that would contain
    more devices than the guards allow.

    Raises:
        ControllerError: it cannot start.
    """
    log = logger_for("app")
    check_secret_files(settings)
    loader = PolicyLoader(settings)
    policies = loader.load()
    async with contextlib.AsyncExitStack() as stack:
        adapters = await open_adapters(stack, settings, loader)
        controller = await build(settings, adapters, policies, fleet_guards(settings))
        tune_gc()
        servers = tuple(_servers(settings, controller.services))
        await controller.policies.start(force=force)
        resumed = await controller.services.containment.outbox.resume()
        devices = len(controller.services.fleet.devices)
        log("started", {"devices": devices, "effects": resumed, "policies": policies.version})
        await _run(controller, servers, ready)
    log("stopped", {})


def _servers(settings: Settings, services: Services) -> Iterator[tuple[str, BackgroundLoop]]:
    if settings.updates.folder is not None and settings.updates.listen is not None:
        yield "update downloads", UpdateServer(settings)
    if services.identity is not None and settings.authority.crl_listen is not None:
        yield "revocation lists", CrlServer(services, settings.authority.crl_listen)


async def _run(
    controller: Controller,
    servers: tuple[tuple[str, BackgroundLoop], ...],
    ready: Callable[[dict[str, Any]], None] | None,
) -> None:
    settings = controller.services.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, controller.policies.request_reload)
    listener = listen(settings)
    server = api_server(controller.services, controller.durations)
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(sockets=[listener]), name="api")
            tasks = [group.create_task(one.run(), name=name) for name, one in (*controller.loops, *servers)]
            if ready is not None:
                host, port = listener.getsockname()[:2]
                ready({"api": f"{'https' if settings.api.certificate else 'http'}://{host}:{port}"})
            await stop.wait()
            controller.services.waiters.close()
            server.should_exit = True
            for task in tasks:
                task.cancel()
                await asyncio.wait([task], timeout=STOP_TIMEOUT)
            await asyncio.wait([serving], timeout=STOP_TIMEOUT)
            serving.cancel()
    finally:
        for number in (*_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)


def run(settings: Settings, *, ready: Callable[[dict[str, Any]], None] | None = None, force: bool = False) -> int:
    """Serves until stopped; returns the process's exit code. `force` as for `serve`.

    Raises:
        ControllerError: it cannot start, or a part of it failed for good.
    """
    configure_logs(settings.log.level, settings.log.format)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve(settings, ready=ready, force=force))
        except* ControllerError as group:
            raise _first(group) from group
    return 0


def _first(group: BaseExceptionGroup[ControllerError]) -> ControllerError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ControllerError)
    return error
