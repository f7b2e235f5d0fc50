"""Builds what exists once for a store, and the leader runs: over the core, from what the store holds now."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controller.adapters.sql.notifications import SqlNotificationStore
from controller.adapters.sql.rollouts import SqlRolloutStore
from controller.api.audit_texts import sentence
from controller.api.context import ContainmentServices, LeaderServices, RolloutServices
from controller.app.accounts import account_services
from controller.app.broker import access_rules, broker_services
from controller.app.core import Core
from controller.app.parts import NamedLoops, present
from controller.ports.messages import IncomingMessage
from controller.ports.store import GuardSnapshot
from controller.service.approvals.book import ApprovalBook
from controller.service.approvals.inbox import ApprovalInbox
from controller.service.broker.access import AccessRuleManager
from controller.service.broker.versions import BrokerVersionWatch
from controller.service.containment.operator_actions import OperatorActions, OperatorLimits
from controller.service.containment.returns import ReturnMonitor
from controller.service.containment.users import UserContainments
from controller.service.identity.clones import CloneMonitor
from controller.service.maintenance import StoreMaintenance
from controller.service.notifications.dispatcher import NotificationDispatcher, NotificationWake
from controller.service.notifications.operations import NotificationOperations
from controller.service.notifications.watch import TroubleWatch
from controller.service.remote_changes import RemoteChanges
from controller.service.rollout.engine import RolloutEngine
from controller.service.rollout.observations import RolloutObservations
from controller.service.rollout.operations import RolloutOperations
from controller.service.rollout.triggers import RolloutTrigger
from controller.service.unit_of_work import CommitListener


@dataclass(frozen=True, slots=True)
class Leader:
    """What the leader has, at rest until `begin`."""

    services: LeaderServices
    loops: NamedLoops
    listeners: tuple[CommitListener, ...]
    observers: tuple[Callable[[Sequence[IncomingMessage]], None], ...]
    access: AccessRuleManager

    def begin(self, core: Core) -> None:
        """From now on it follows commits and presence, and the API serves it."""
        for listener in self.listeners:
            core.services.fleet.follow(listener)
        core.presence.show_to(*self.observers)
        core.release_rules.follow(self.access)
        core.services.lead_with(self.services)

    def end(self, core: Core) -> None:
        """Nothing reaches it any more."""
        core.services.lead_with(None)
        core.release_rules.follow(None)
        core.presence.show_to()
        for listener in self.listeners:
            core.services.fleet.unfollow(listener)


async def build_leader(core: Core) -> Leader:
    """Builds it from what the store holds.

    Raises:
        ControllerError: what the store holds, or a file of the configuration, cannot be used.
    """
    settings, adapters, common = core.settings, core.adapters, core.services
    fleet, log = common.fleet, adapters.log
    access = await access_rules(adapters, fleet, core.effects)
    snapshot = await adapters.store.guard_books()
    book = ApprovalBook(fleet, common.authentication.standing, common.authentication.grants)
    book.load(snapshot)
    containment = await _containment(core, book, snapshot)
    engine, observations = await _rollouts(core)
    operations = RolloutOperations(fleet, engine)
    inbox = ApprovalInbox(
        fleet,
        book,
        containment.operators,
        containment.users,
        operations,
        common.identity,
        common.own_certificates,
        log("approvals"),
        common.authentication.still,
    )
    wake = NotificationWake()
    services = LeaderServices(
        containment=containment,
        approvals=inbox,
        broker=broker_services(settings, adapters, fleet, core.effects, access, common.nodes, common.auditor),
        rollouts=RolloutServices(operations, adapters.updates, core.refresher),
        accounts=account_services(settings, adapters, common.authentication, fleet, book),
        notifications=_notifications(core, wake),
    )
    remote = _remote_changes(core, engine, observations, wake)
    clones = _clone_monitor(core)
    trigger = RolloutTrigger(fleet, operations, settings.rollouts, log("rollouts"))
    observers = (containment.returns.observe, *(() if clones is None else (clones.observe,)))
    listeners = (observations, wake, book, inbox, access)
    loops = (*_loops(core, services, engine, trigger, clones), *present(("changes elsewhere", remote)))
    return Leader(services, loops, listeners, observers, access)


async def _containment(core: Core, book: ApprovalBook, snapshot: GuardSnapshot) -> ContainmentServices:
    settings, adapters, common = core.settings, core.adapters, core.services
    fleet, broker, log = common.fleet, adapters.broker.control, adapters.log("users")
    guards, every = settings.guards, settings.reconcile.every
    limits = OperatorLimits(guards.by_hand, guards.by_hand_window, guards.request_expiry)
    operators = OperatorActions(fleet, limits, book)
    operators.load(snapshot)
    users = UserContainments(fleet, adapters.broker.users, every, log)
    await users.load()
    returns = ReturnMonitor(users, broker, fleet, every, log)
    return ContainmentServices(fleet, operators, common.waivers, users, common.outbox, broker, returns)


async def _rollouts(core: Core) -> tuple[RolloutEngine, RolloutObservations]:
    """The engine with the open rollouts of the store, and what it hears of their devices."""
    adapters, observations = core.adapters, RolloutObservations()
    store, log = SqlRolloutStore(adapters.store), adapters.log("rollouts")
    engine = RolloutEngine(core.services.fleet, store, adapters.targets, observations, core.settings.rollouts, log)
    await engine.load()
    return engine, observations


def _remote_changes(
    core: Core, engine: RolloutEngine, observations: RolloutObservations, wake: NotificationWake
) -> RemoteChanges | None:
    """What hears of other controllers' commits, where there may be any."""
    common, waiters = core.services, core.services.waiters
    if not common.leases.is_shared:
        return None
    sources = (lambda: waiters.subjects, engine.under_way, lambda: observations.devices)
    listeners = (waiters, observations)
    return RemoteChanges(common.fleet, core.adapters.store, sources, listeners, wake.look, core.adapters.log("leader"))


def _notifications(core: Core, wake: NotificationWake) -> NotificationOperations:
    adapters, fleet = core.adapters, core.services.fleet
    dispatcher = NotificationDispatcher(
        fleet,
        SqlNotificationStore(adapters.store),
        adapters.sender,
        wake,
        sentence,
        adapters.rand,
        adapters.log("notifications"),
    )
    table = core.settings.notifications
    secrets = {name: table.mail_servers.get(name, "") for name in table.secrets}
    return NotificationOperations(fleet, adapters.store, dispatcher, secrets)


def _clone_monitor(core: Core) -> CloneMonitor | None:
    if not core.settings.identity.watch_presence:
        return None
    return CloneMonitor(core.services.fleet, core.adapters.broker.control, core.adapters.log("identity"))


def _loops(
    core: Core, services: LeaderServices, engine: RolloutEngine, trigger: RolloutTrigger, clones: CloneMonitor | None
) -> NamedLoops:
    common, log, identity = core.services, core.adapters.log, core.services.identity
    containment, broker, dispatcher = services.containment, services.broker, services.notifications.dispatcher
    link, notes = common.messages, log("notifications")
    versions = BrokerVersionWatch(core.adapters.broker.inspector, log("controllers"))
    trouble = TroubleWatch(common.fleet, common.store, link, common.nodes, dispatcher, notes)
    return present(
        ("approvals", services.approvals),
        ("waivers", common.waivers),
        ("reconciler", broker.reconciler),
        ("rollouts", engine),
        ("rollouts of policies", trigger),
        ("access", broker.access.access),
        ("users", containment.users),
        ("returns", containment.returns),
        ("housekeeping", StoreMaintenance(common.store, log("housekeeping"))),
        ("certificates", None if identity is None else identity.certificates),
        ("revocation", None if identity is None else identity.revocation),
        ("followed lists", None if identity is None else identity.external),
        ("clones", clones),
        ("presence of all", core.sweep),
        ("versions of EMQX", versions if core.settings.has_peers else None),
        ("trouble", trouble),
        ("notifications", dispatcher),
    )
