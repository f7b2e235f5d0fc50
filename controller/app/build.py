"""Builds every service over given adapters and wires them: the one place that knows how they hang together.

Each service gets what it needs through its constructor, so the order here is the order of their dependencies: what
follows commits, the fleet's state, what the outbox carries out, what ingest takes in, what the API serves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from controller.adapters.policies.knowledge import parse_knowledge
from controller.adapters.policies.loader import candidate_policies
from controller.adapters.sql.notifications import SqlNotificationStore
from controller.adapters.sql.rollouts import SqlRolloutStore
from controller.api.audit_texts import sentence
from controller.api.context import ContainmentServices, PolicyServices, RolloutServices, Services
from controller.api.metrics import ContainmentDurations
from controller.app.accounts import account_services, authentication
from controller.app.adapters import Adapters
from controller.app.broker import access_rules, broker_services
from controller.app.controllers import controllers, policy_activation, presence
from controller.app.identity import identity_services, report_signing
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.cel import ExpressionError
from controller.domain.policy.model import PolicySet
from controller.domain.record_budget import DAY, RecordBudget, RecordLimits
from controller.packs import shipped_knowledge
from controller.ports.errors import SettingsError
from controller.ports.log import Log
from controller.ports.messages import IncomingMessage
from controller.service.accounts.authentication import Authentication
from controller.service.approvals.book import ApprovalBook
from controller.service.approvals.inbox import ApprovalInbox
from controller.service.audit_log import AuditLogger
from controller.service.broker.access import AccessRuleManager
from controller.service.containment.enforcer import Enforcer
from controller.service.containment.operator_actions import OperatorActions, OperatorLimits
from controller.service.containment.outbox import EffectQueue, Outbox
from controller.service.containment.returns import ReturnMonitor
from controller.service.containment.users import UserContainments
from controller.service.containment.waivers import WaiverService
from controller.service.fleet_state import POOL_LEDGER, FleetState
from controller.service.identity.clones import CloneMonitor
from controller.service.identity.own_certificates import OwnCertificates
from controller.service.identity.services import IdentityServices
from controller.service.ingest.ingest import Ingest
from controller.service.ingest.rate_limit import RateLimit, RateLimiter
from controller.service.ingest.signatures import ReportSigningServices
from controller.service.maintenance import MetadataRefresher, StoreMaintenance
from controller.service.notifications.dispatcher import NotificationDispatcher, NotificationWake
from controller.service.notifications.operations import NotificationOperations
from controller.service.notifications.watch import TroubleWatch
from controller.service.own_clients import OwnClients
from controller.service.policy.activation import PolicyActivation
from controller.service.policy.knowledge import KnowledgeService
from controller.service.rollout.engine import RolloutEngine
from controller.service.rollout.observations import RolloutObservations
from controller.service.rollout.operations import RolloutOperations
from controller.service.rollout.triggers import RolloutTrigger
from controller.service.settings.settings import Settings
from controller.service.timers import DeviceTimers
from controller.service.unit_of_work import CommitListener
from controller.service.waiting import Waiters
from schemas.key_text import key_id_from_text
from schemas.signing import parse_public_key


class BackgroundLoop(Protocol):
    """A part that runs as long as the controller does."""

    async def run(self) -> None:
        """Runs until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Controller:
    """Everything of one controller, wired and at rest; `loops` run by name and are stopped in their order."""

    services: Services
    policies: PolicyActivation
    durations: ContainmentDurations
    loops: tuple[tuple[str, BackgroundLoop], ...]


async def build(
    settings: Settings, adapters: Adapters, policies: PolicySet, guards: FleetGuards, *listeners: CommitListener
) -> Controller:
    """Builds the services over what the store holds; `listeners` follow each commit after Cordon's own.

    Raises:
        ControllerError: what the store holds, or a file of the configuration, cannot be used.
    """
    core = await _core(settings, adapters, policies, guards, listeners)
    fleet = core.fleet
    access = await access_rules(adapters, fleet, core.effects)
    signing = report_signing(settings, adapters, fleet)
    identity = await identity_services(settings, adapters, fleet, signing.keyring.invalidate)
    clones = _clone_monitor(settings, adapters, fleet)
    callers = authentication(settings, adapters)
    book = ApprovalBook(fleet, callers.standing, callers.grants)
    containment = await _containment(settings, adapters, core, access, book)
    engine, trigger = await _rollouts(settings, adapters, fleet, core.observations)
    own = _own_certificates(adapters, identity, fleet)
    operations = RolloutOperations(fleet, engine)
    approvals = _approvals(fleet, book, containment, operations, identity, own, adapters.log("approvals"), callers)
    activation = policy_activation(settings, adapters, fleet)
    knowledge = await _knowledge(settings, adapters, fleet, activation)
    services = Services(
        settings=settings,
        started_at=adapters.clock.now(),
        fleet=fleet,
        store=adapters.requests,
        queries=adapters.store.fleet_queries,
        messages=adapters.messages,
        ingest=_ingest(settings, adapters, fleet, signing, identity, clones, containment.returns),
        signing=signing,
        policies=PolicyServices(activation, partial(candidate_policies, fleet), knowledge),
        containment=containment,
        approvals=approvals,
        broker=broker_services(settings, adapters, fleet, core.effects, access),
        rollouts=RolloutServices(operations, adapters.updates, _metadata_refresher(settings, adapters)),
        waiters=core.waiters,
        identity=identity,
        own_certificates=own,
        accounts=account_services(settings, adapters, callers, fleet, book),
        notifications=_notifications(settings, adapters, core),
        controllers=await controllers(settings, adapters, fleet.own, lambda: activation.files_version),
        leases=adapters.leases,
    )
    loops = _loops(services, adapters.store, activation, (engine, trigger), clones, adapters.log)
    asked = presence(settings, adapters, fleet)
    if asked is not None:
        loops = (*loops, ("presence", asked[0]), ("presence of all", asked[1]))
    return Controller(services, activation, core.durations, loops)


@dataclass(frozen=True, slots=True)
class _Core:
    """The fleet's state with what follows its commits."""

    fleet: FleetState
    effects: EffectQueue
    durations: ContainmentDurations
    observations: RolloutObservations
    waiters: Waiters
    wake: NotificationWake


async def _core(
    settings: Settings,
    adapters: Adapters,
    policies: PolicySet,
    guards: FleetGuards,
    listeners: Sequence[CommitListener],
) -> _Core:
    durations, observations, waiters = ContainmentDurations(), RolloutObservations(), Waiters()
    wake = NotificationWake()
    effects = EffectQueue(waiters.wake, adapters.leases)
    limits, now = settings.limits, adapters.clock.now()
    budget = RecordBudget(RecordLimits(limits.audit_rows_per_day, limits.audit_bytes_per_day))
    budget.load(await adapters.store.record_use(now - now % DAY), now)
    fleet = FleetState(
        adapters.store,
        policies,
        adapters.language,
        adapters.clock,
        adapters.ids,
        (effects, durations, AuditLogger(adapters.log("record")), observations, waiters, wake, *listeners),
        settings.limits.max_devices,
        guards,
        budget,
        OwnClients.of(settings.client_id, settings.mqtt.username),
    )
    fleet.load(await adapters.store.devices())
    return _Core(fleet, effects, durations, observations, waiters, wake)


async def _containment(
    settings: Settings, adapters: Adapters, core: _Core, access: AccessRuleManager, book: ApprovalBook
) -> ContainmentServices:
    """What decides and carries out, with the charges, requests, waivers and user cases of the store.

    Raises:
        SettingsError: `guards.protected_if` is no expression.
    """
    fleet, broker, log = core.fleet, adapters.broker.control, adapters.log
    guards, snapshot = settings.guards, await adapters.store.guard_books()
    fleet.load_charges(one for one in snapshot.charges if not one[0] or one[0].startswith(POOL_LEDGER))
    try:
        waivers = WaiverService(fleet, guards.protected_if)
    except ExpressionError as e:
        raise SettingsError(f"guards.protected_if: {e}") from e
    waivers.load(snapshot)
    limits = OperatorLimits(guards.by_hand, guards.by_hand_window, guards.request_expiry)
    book.load(snapshot)
    operators = OperatorActions(fleet, limits, book)
    operators.load(snapshot)
    enforcer = Enforcer(
        fleet,
        broker,
        adapters.messages,
        adapters.sign,
        access.rules_after,
        accept_claimed=settings.identity.unsafe_accept_claimed,
    )
    outbox = Outbox(fleet, core.effects, enforcer, log("outbox"), adapters.rand)
    every = settings.reconcile.every
    users = UserContainments(fleet, adapters.broker.users, every, log("users"))
    await users.load()
    returns = ReturnMonitor(users, broker, fleet, every, log("users"))
    return ContainmentServices(fleet, operators, waivers, users, outbox, broker, returns)


def _own_certificates(adapters: Adapters, identity: IdentityServices | None, fleet: FleetState) -> OwnCertificates:
    certificates = None if identity is None else identity.certificates
    return OwnCertificates(adapters.own_certificates, certificates, fleet, adapters.log("identity"))


def _approvals(
    fleet: FleetState,
    book: ApprovalBook,
    containment: ContainmentServices,
    rollouts: RolloutOperations,
    identity: IdentityServices | None,
    own: OwnCertificates,
    log: Log,
    callers: Authentication,
) -> ApprovalInbox:
    """What decides every question that needs a second person, over the services that carry it out."""
    operators, users = containment.operators, containment.users
    inbox = ApprovalInbox(fleet, book, operators, users, rollouts, identity, own, log, callers.still)
    fleet.follow(book)
    fleet.follow(inbox)
    return inbox


async def _knowledge(
    settings: Settings, adapters: Adapters, fleet: FleetState, activation: PolicyActivation
) -> KnowledgeService:
    """What the store or this version of Cordon knows of supports, in force before a report is judged."""
    keys = {key_id_from_text(text): parse_public_key(text) for text in settings.policy.knowledge_keys}
    log = adapters.log("knowledge")
    service = KnowledgeService(fleet, adapters.store, activation, shipped_knowledge(), parse_knowledge, keys, log)
    await service.load()
    return service


def _notifications(settings: Settings, adapters: Adapters, core: _Core) -> NotificationOperations:
    dispatcher = NotificationDispatcher(
        core.fleet,
        SqlNotificationStore(adapters.store),
        adapters.sender,
        core.wake,
        sentence,
        adapters.rand,
        adapters.log("notifications"),
    )
    table = settings.notifications
    secrets = {name: table.mail_servers.get(name, "") for name in table.secrets}
    return NotificationOperations(core.fleet, adapters.store, dispatcher, secrets)


def _clone_monitor(settings: Settings, adapters: Adapters, fleet: FleetState) -> CloneMonitor | None:
    if not settings.identity.watch_presence:
        return None
    return CloneMonitor(fleet, adapters.broker.control, adapters.log("identity"))


def _ingest(
    settings: Settings,
    adapters: Adapters,
    fleet: FleetState,
    signing: ReportSigningServices,
    identity: IdentityServices | None,
    clones: CloneMonitor | None,
    returns: ReturnMonitor,
) -> Ingest:
    limits = settings.limits

    def observe(messages: Sequence[IncomingMessage]) -> None:
        returns.observe(messages)
        if clones is not None:
            clones.observe(messages)

    return Ingest(
        adapters.messages,
        fleet,
        adapters.log("ingest"),
        RateLimiter(RateLimit(limits.messages_per_second, limits.message_burst)),
        signing.verifier,
        None if identity is None else identity.renewals.enqueue,
        observe if settings.identity.watch_presence else None,
    )


def fleet_guards(settings: Settings) -> FleetGuards:
    """The configured guards, without what the store knows of recent containments."""
    guards = settings.guards
    return FleetGuards(
        BlastRadius(guards.bounds),
        protection=guards.protection,
        fresh_for=settings.posture.stale_after,
        must_answer=settings.reports.must_answer,
    )


async def _rollouts(
    settings: Settings, adapters: Adapters, fleet: FleetState, observations: RolloutObservations
) -> tuple[RolloutEngine, RolloutTrigger]:
    """The engine with the open rollouts of the store, and what starts the rollouts that policies ask for."""
    store, terms, log = SqlRolloutStore(adapters.store), settings.rollouts, adapters.log("rollouts")
    engine = RolloutEngine(fleet, store, adapters.targets, observations, terms, log)
    await engine.load()
    return engine, RolloutTrigger(fleet, RolloutOperations(fleet, engine), terms, log)


def _metadata_refresher(settings: Settings, adapters: Adapters) -> MetadataRefresher | None:
    if adapters.updates is None:
        return None
    return MetadataRefresher(adapters.updates, adapters.clock, settings.updates.refresh_every, adapters.log("updates"))


def _loops(
    services: Services,
    store: BackgroundLoop,
    activation: PolicyActivation,
    rollouts: tuple[RolloutEngine, RolloutTrigger],
    clones: CloneMonitor | None,
    log: Callable[[str], Log],
) -> tuple[tuple[str, BackgroundLoop], ...]:
    """What runs as long as the controller does; absent parts are left out."""
    containment, broker, identity = services.containment, services.broker, services.identity
    engine, trigger = rollouts
    dispatcher = services.notifications.dispatcher
    trouble = TroubleWatch(
        services.fleet, services.store, services.messages, broker.nodes, dispatcher, log("notifications")
    )
    loops: tuple[tuple[str, BackgroundLoop | None], ...] = (
        ("store", store),
        ("controllers", services.controllers),
        ("link", services.messages),
        ("ingest", services.ingest),
        ("policies", activation),
        ("knowledge", services.policies.knowledge),
        ("approvals", services.approvals),
        ("waivers", containment.waivers),
        ("timers", DeviceTimers(services.fleet, services.settings.posture.stale_after)),
        ("nodes", broker.nodes),
        ("reconciler", broker.reconciler),
        ("rollouts", engine),
        ("rollouts of policies", trigger),
        ("access", broker.access.access),
        ("users", containment.users),
        ("returns", containment.returns),
        ("outbox", containment.outbox),
        ("housekeeping", StoreMaintenance(services.store, log("housekeeping"))),
        ("update metadata", services.rollouts.refresher),
        ("certificates", None if identity is None else identity.certificates),
        ("own certificates", services.own_certificates),
        ("revocation", None if identity is None else identity.revocation),
        ("revocations elsewhere", None if identity is None else identity.follower),
        ("renewals", None if identity is None else identity.renewals),
        ("followed lists", None if identity is None else identity.external),
        ("clones", clones),
        ("report keys", services.signing),
        ("trouble", trouble),
        ("notifications", dispatcher),
    )
    return tuple((name, loop) for name, loop in loops if loop is not None)
