"""The composition root: the only place that names implementations. Builds everything, runs it, stops it in order."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from controller.adapters.keys import load_signing_key
from controller.adapters.logs import configure_logs, logger_for
from controller.adapters.mqtt.messages import PahoMessages
from controller.adapters.policies.loader import candidate_policies
from controller.adapters.system import SystemClock, UlidGenerator
from controller.api.context import Services
from controller.api.metrics import ContainmentDurations
from controller.app.broker import broker_parts
from controller.app.build import (
    STOP_TIMEOUT,
    PolicyLoader,
    UpdateServer,
    api_server,
    check_secret_files,
    guard_parts,
    guards_of,
    ingest_parts,
    link_options,
    listen,
    open_broker,
    own_store,
    rollout_parts,
    signer_of,
    update_parts,
    user_parts,
)
from controller.app.identity import identity_loops, identity_parts, presence_loops
from controller.domain.policy.model import PolicySet
from controller.ports.errors import ControllerError
from controller.service.audit_log import AuditLogger
from controller.service.containment.enforcer import Enforcer
from controller.service.containment.outbox import EffectQueue, Outbox
from controller.service.fleet_state import FleetState
from controller.service.maintenance import StoreMaintenance, settle
from controller.service.policy.activation import PolicyActivation
from controller.service.rollout.observations import RolloutObservations
from controller.service.settings.settings import Settings
from controller.service.timers import DeviceTimers
from controller.service.waiting import Waiters
from schemas.signing import public_key_text

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Runs(Protocol):
    async def run(self) -> None:
        """Until cancelled."""
        ...


# What runs, by name, in the order in which it is stopped: no new messages first, what is decided last.
_Running = tuple[tuple[str, _Runs], ...]


@dataclass(frozen=True, slots=True)
class _Controller:
    """Everything that `serve` runs."""

    services: Services
    running: _Running
    gate: PolicyActivation
    durations: ContainmentDurations


async def serve(
    settings: Settings, *, ready: Callable[[dict[str, Any]], None] | None = None, force: bool = False
) -> None:
    """Run the controller until SIGTERM or SIGINT; SIGHUP reads the policies again.

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
        controller = await _build(stack, settings, loader, policies)
        services = controller.services
        await controller.gate.start(force=force)
        resumed = await services.outbox.resume()
        log("started", {"devices": len(services.keeper.devices), "effects": resumed, "policies": policies.version})
        await _run(controller, ready)
    log("stopped", {})


async def _build(
    stack: contextlib.AsyncExitStack, settings: Settings, loader: PolicyLoader, policies: PolicySet
) -> _Controller:
    signing_key, clock, waiters = load_signing_key(settings.commands.signing_key), SystemClock(), Waiters()
    link = PahoMessages(link_options(settings), rand=random.random, log=logger_for("mqtt"))
    store = await own_store(stack, settings, clock)
    broker = await stack.enter_async_context(open_broker(settings))
    most, guards = settings.limits.max_devices, guards_of(settings)
    effects, durations, observations = EffectQueue(waiters.wake), ContainmentDurations(), RolloutObservations()
    listeners = (effects, durations, AuditLogger(logger_for("record")), observations, waiters)
    keeper = FleetState(store, policies, loader.language, clock, UlidGenerator(), listeners, most, guards)
    keeper.load(await store.devices())
    guarding, waiving = await guard_parts(keeper, store, settings)
    gate = PolicyActivation(keeper, store, loader.load, logger_for("app"))
    settle()
    accept_claimed = settings.identity.unsafe_accept_claimed
    enforcer = Enforcer(keeper, broker, link, signer_of(settings, signing_key), accept_claimed=accept_claimed)
    ingest, signing = ingest_parts(settings, store, keeper, broker, link)
    looked_after = await broker_parts(broker, store, keeper, effects, enforcer, settings)
    updates, refresher, update_server = update_parts(settings, clock)
    rollout_loops, desk = await rollout_parts(keeper, store, updates, observations, settings)
    identity = await identity_parts(settings, store, keeper, ingest, link, (public_key_text(signing_key.public_key()),))
    services = Services(
        keeper=keeper,
        store=store,
        messages=link,
        outbox=Outbox(keeper, effects, enforcer, logger_for("outbox"), random.random),
        reconciler=looked_after.reconciler,
        ingest=ingest,
        broker=broker,
        inspector=looked_after.inspector,
        auditor=looked_after.auditor,
        settings=settings,
        started_at=clock.now(),
        reload_policies=gate.reload,
        guarding=guarding,
        waiving=waiving,
        waiters=waiters,
        candidate=partial(candidate_policies, keeper),
        updates=updates,
        rollouts=desk,
        update_refresher=refresher,
        identity=identity,
        setup=looked_after.setup,
        access=looked_after.access,
        signing=signing,
        users=await user_parts(settings, keeper, store, broker),
    )
    return _Controller(services, _loops(services, gate, rollout_loops, update_server), gate, durations)


def _loops(
    services: Services, gate: PolicyActivation, rollouts: _Running, update_server: UpdateServer | None
) -> _Running:
    """What runs as long as the controller does."""
    keeper, clock, refresher = services.keeper, services.keeper.clock, services.update_refresher
    return (
        ("link", services.messages),
        ("ingest", services.ingest),
        ("policies", gate),
        ("guards", services.guarding),
        ("waivers", services.waiving),
        ("timers", DeviceTimers(keeper, services.settings.posture.stale_after)),
        ("reconciler", services.reconciler),
        *rollouts,
        *((("access", services.access.access),) if services.access is not None else ()),
        *((("users", services.users),) if services.users is not None else ()),
        ("outbox", services.outbox),
        ("housekeeping", StoreMaintenance(services.store, clock, logger_for("housekeeping"))),
        *((("update metadata", refresher),) if refresher is not None else ()),
        *((("update downloads", update_server),) if update_server is not None else ()),
        *identity_loops(services),
        *presence_loops(services),
        *((("report keys", services.signing),) if services.signing is not None else ()),
    )


async def _run(controller: _Controller, ready: Callable[[dict[str, Any]], None] | None) -> None:
    settings = controller.services.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, controller.gate.ask)
    listener = listen(settings)
    server = api_server(controller.services, controller.durations)
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(sockets=[listener]), name="api")
            tasks = [group.create_task(one.run(), name=name) for name, one in controller.running]
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
    """Serve until stopped; the process's exit code. `force` as for `serve`.

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
