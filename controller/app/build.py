"""Builds a controller over given adapters: the core that every one runs, and what it runs in addition while it leads.

With a store of its own a controller leads from the start to its end. Read on in `core`, then `leader`.
"""

from dataclasses import dataclass

from controller.api.context import Services
from controller.api.metrics import ContainmentDurations
from controller.app.adapters import Adapters
from controller.app.core import Core, build_core
from controller.app.leadership import Leadership
from controller.app.parts import NamedLoops
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import PolicySet
from controller.service.books import Books
from controller.service.policy.activation import PolicyActivation
from controller.service.settings.settings import Settings
from controller.service.unit_of_work import CommitListener


@dataclass(frozen=True, slots=True)
class Controller:
    """Everything of one controller, wired and at rest; `loops` run by name and are stopped in their order."""

    services: Services
    policies: PolicyActivation
    durations: ContainmentDurations
    leadership: Leadership
    loops: NamedLoops


async def build(
    settings: Settings, adapters: Adapters, policies: PolicySet, guards: FleetGuards, *listeners: CommitListener
) -> Controller:
    """Builds the services over what the store holds; `listeners` follow each commit after Cordon's own.

    Raises:
        ControllerError: what the store holds, or a file of the configuration, cannot be used.
    """
    core = await build_core(settings, adapters, policies, guards, listeners)
    books = _books(core)
    leadership = Leadership(core, adapters.leases, books, adapters.log("app"))
    await leadership.prepare()
    loops: NamedLoops = (*core.loops, ("leader", leadership))
    if adapters.leases.is_shared:
        loops = (*loops, ("books", books))
    return Controller(core.services, core.services.policies.activation, core.durations, leadership, loops)


def _books(core: Core) -> Books:
    """What of the leader's books every controller holds."""
    store, services, knowledge = core.adapters.store, core.services, core.services.policies.knowledge

    async def version() -> int:
        return (await store.fleet_versions()).books

    async def load_guards() -> None:
        snapshot = await store.guard_books()
        services.waivers.load(snapshot)
        lent = {one.request_id: one.grant for one in snapshot.requests if one.grant is not None}
        services.authentication.grants.replace_all(lent)

    loads = (load_guards, knowledge.load_again)
    return Books(version, loads, core.adapters.leases, core.adapters.log("app"))


def fleet_guards(settings: Settings) -> FleetGuards:
    """The configured guards, without what the store knows of recent containments."""
    guards = settings.guards
    return FleetGuards(
        BlastRadius(guards.bounds),
        protection=guards.protection,
        fresh_for=settings.posture.stale_after,
        must_answer=settings.reports.must_answer,
    )
