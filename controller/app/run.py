"""Runs the controller: opens the adapters, builds the services over them, serves until it is stopped.

Read on in `build`, `core` and `leader` (which service gets what), then `broker` and `identity` (two larger groups),
`adapters` (what is opened as the configuration says) and `servers`. `offline` is what the command line needs without a
running controller.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any, Final

from controller.adapters.http_server.certificate_reload import CertificateReloader
from controller.adapters.logs import configure_logs, logger_for
from controller.app.adapters import PolicyLoader, check_secret_files, open_adapters, own_certificates
from controller.app.build import Controller, build, fleet_guards
from controller.app.peers import announce, peer_access
from controller.app.servers import STOP_TIMEOUT, HttpListener, http_listeners
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
        certificates, settings = own_certificates(settings)
        adapters = await open_adapters(stack, settings, loader, certificates)
        controller = await build(settings, adapters, policies, fleet_guards(settings))
        tune_gc()
        peers = await peer_access(stack, settings, adapters, controller.services)
        listeners = http_listeners(controller.services, controller.durations, log, peers)
        await controller.policies.start(force=force)
        resumed = await controller.services.outbox.resume()
        devices = controller.services.fleet.size
        log("started", {"devices": devices, "effects": resumed, "policies": policies.version})
        if controller.services.leader is not None:
            for warning in await controller.services.leader.accounts.warnings():
                log(warning, {})
        await announce(settings, adapters, listeners[0].url)
        await _run(controller, listeners, ready)
    log("stopped", {})


async def _run(
    controller: Controller,
    listeners: tuple[HttpListener, ...],
    ready: Callable[[dict[str, Any]], None] | None,
) -> None:
    api, *others = listeners
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, controller.policies.request_reload)
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(api.run(), name=api.name)
            tasks = [group.create_task(one.run(), name=name) for name, one in controller.loops]
            tasks += [group.create_task(one.run(), name=one.name) for one in others]
            reloader = CertificateReloader([one.config for one in listeners], logger_for("app"))
            tasks.append(group.create_task(reloader.run(), name="certificates of listeners"))
            if ready is not None:
                ready({"api": api.url})
            await stop.wait()
            controller.services.waiters.close()
            api.close()
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
