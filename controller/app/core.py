"""Builds what every controller runs: the fleet's state, ingest, what is carried out, timers, and what the API reads.

Each service gets what it needs through its constructor, so the order here is the order of their dependencies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from controller.adapters.policies.knowledge import parse_knowledge
from controller.adapters.policies.loader import candidate_policies
from controller.api.context import PolicyServices, Services
from controller.api.metrics import ContainmentDurations
from controller.app.accounts import authentication
from controller.app.adapters import Adapters
from controller.app.broker import auditor, release_rules
from controller.app.controllers import connection_checks, controllers, policy_activation
from controller.app.identity import identity_services, report_signing
from controller.app.parts import BackgroundLoop, NamedLoops, present
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.cel import ExpressionError
from controller.domain.policy.model import PolicySet
from controller.domain.record_budget import DAY, RecordBudget, RecordLimits
from controller.packs import shipped_knowledge
from controller.ports.errors import SettingsError
from controller.ports.messages import IncomingMessage
from controller.service.audit_log import AuditLogger
from controller.service.broker.release_rules import ReleaseRules
from controller.service.containment.effect_queue import EffectQueue
from controller.service.containment.enforcer import Enforcer
from controller.service.containment.nodes import NodeWatch
from controller.service.containment.outbox import Outbox
from controller.service.containment.waivers import WaiverService
from controller.service.device_cache import DeviceCache
from controller.service.fleet_state import FleetState
from controller.service.identity.own_certificates import OwnCertificates
from controller.service.identity.services import IdentityServices
from controller.service.ingest.ingest import Ingest
from controller.service.ingest.rate_limit import RateLimit, RateLimiter
from controller.service.ingest.signatures import ReportSigningServices
from controller.service.maintenance import MetadataRefresher
from controller.service.own_clients import OwnClients
from controller.service.policy.activation import PolicyActivation
from controller.service.policy.knowledge import KnowledgeService
from controller.service.presence import PresenceCheck, PresenceSweep
from controller.service.settings.settings import Settings
from controller.service.timers import DeviceTimers
from controller.service.unit_of_work import CommitListener
from controller.service.waiting import Waiters
from schemas.key_text import key_id_from_text
from schemas.signing import parse_public_key


class PresenceFeed:
    """Hands the broker's presence messages to whoever looks at them now: monitors of the leader."""

    def __init__(self) -> None:
        self._observers: tuple[Callable[[Sequence[IncomingMessage]], None], ...] = ()

    def show_to(self, *observers: Callable[[Sequence[IncomingMessage]], None]) -> None:
        """From now on these get the messages, and nobody else."""
        self._observers = observers

    def __call__(self, messages: Sequence[IncomingMessage]) -> None:
        for observe in self._observers:
            observe(messages)


@dataclass(frozen=True, slots=True)
class Core:
    """What every controller has. `services` is what the API serves; the leader's part is set while it leads."""

    settings: Settings
    adapters: Adapters
    services: Services
    effects: EffectQueue
    durations: ContainmentDurations
    presence: PresenceFeed
    release_rules: ReleaseRules
    refresher: MetadataRefresher | None
    sweep: PresenceSweep | None
    loops: NamedLoops


async def build_core(
    settings: Settings,
    adapters: Adapters,
    policies: PolicySet,
    guards: FleetGuards,
    listeners: Sequence[CommitListener],
) -> Core:
    """Builds it over what the store holds; `listeners` follow each commit after Cordon's own.

    Raises:
        ControllerError: what the store holds, or a file of the configuration, cannot be used.
    """
    durations, waiters, log = ContainmentDurations(), Waiters(), adapters.log
    effects = EffectQueue(waiters.wake, adapters.leases)
    followed: tuple[CommitListener, ...] = (effects, durations, AuditLogger(log("record")), waiters, *listeners)
    fleet = await _fleet(settings, adapters, policies, guards, followed)
    waivers = _waivers(settings, fleet)
    await fleet.start()
    rules, signing = release_rules(adapters, fleet), report_signing(settings, adapters, fleet)
    identity = await identity_services(settings, adapters, fleet, signing.keyring.invalidate)
    activation = policy_activation(settings, adapters, fleet)
    knowledge = await _knowledge(settings, adapters, fleet, activation)
    presence = PresenceFeed()
    services = Services(
        settings=settings,
        started_at=adapters.clock.now(),
        fleet=fleet,
        store=adapters.requests,
        queries=fleet.queries,
        messages=adapters.messages,
        ingest=_ingest(settings, adapters, fleet, signing, identity, presence),
        signing=signing,
        policies=PolicyServices(activation, partial(candidate_policies, fleet), knowledge),
        waivers=waivers,
        outbox=Outbox(fleet, effects, _enforcer(settings, adapters, fleet, rules), log("outbox"), adapters.rand),
        nodes=NodeWatch(adapters.broker.tables),
        auditor=auditor(adapters.broker.inspector, settings),
        waiters=waiters,
        controllers=await controllers(settings, adapters, fleet.own, lambda: activation.files_version),
        leases=adapters.leases,
        identity=identity,
        own_certificates=_own_certificates(adapters, identity, fleet),
        authentication=authentication(settings, adapters),
    )
    check, sweep = connection_checks(settings, adapters, fleet)
    refresher = _metadata_refresher(settings, adapters)
    loops = _loops(services, adapters.store, refresher, check)
    return Core(settings, adapters, services, effects, durations, presence, rules, refresher, sweep, loops)


async def _fleet(
    settings: Settings,
    adapters: Adapters,
    policies: PolicySet,
    guards: FleetGuards,
    listeners: Sequence[CommitListener],
) -> FleetState:
    limits, now = settings.limits, adapters.clock.now()
    budget = RecordBudget(RecordLimits(limits.audit_rows_per_day, limits.audit_bytes_per_day))
    budget.load(await adapters.store.record_use(now - now % DAY), now)
    return FleetState(
        adapters.store,
        policies,
        adapters.language,
        adapters.clock,
        adapters.ids,
        tuple(listeners),
        limits.max_devices,
        guards,
        budget,
        OwnClients.of(settings.client_id, settings.mqtt.username),
        queries=adapters.store.fleet_queries,
        cache=DeviceCache(adapters.store, is_shared=adapters.leases.is_shared),
        writer=adapters.leases.run_number,
        log=adapters.log("fleet"),
    )


def _waivers(settings: Settings, fleet: FleetState) -> WaiverService:
    """Puts the waivers of the store in force whenever the fleet reads what counts against its guards.

    Raises:
        SettingsError: `guards.protected_if` is no expression.
    """
    try:
        waivers = WaiverService(fleet, settings.guards.protected_if)
    except ExpressionError as e:
        raise SettingsError(f"guards.protected_if: {e}") from e
    fleet.held.follow(waivers.load)
    return waivers


def _enforcer(settings: Settings, adapters: Adapters, fleet: FleetState, rules: ReleaseRules) -> Enforcer:
    return Enforcer(
        fleet,
        adapters.broker.control,
        adapters.messages,
        adapters.sign,
        rules.rules_after,
        accept_claimed=settings.identity.unsafe_accept_claimed,
    )


async def _knowledge(
    settings: Settings, adapters: Adapters, fleet: FleetState, activation: PolicyActivation
) -> KnowledgeService:
    """What the store or this version of Cordon knows of supports, in force before a report is judged."""
    keys = {key_id_from_text(text): parse_public_key(text) for text in settings.policy.knowledge_keys}
    log = adapters.log("knowledge")
    service = KnowledgeService(fleet, adapters.store, activation, shipped_knowledge(), parse_knowledge, keys, log)
    await service.load()
    return service


def _own_certificates(adapters: Adapters, identity: IdentityServices | None, fleet: FleetState) -> OwnCertificates:
    certificates = None if identity is None else identity.certificates
    return OwnCertificates(adapters.own_certificates, certificates, fleet, adapters.log("identity"))


def _ingest(
    settings: Settings,
    adapters: Adapters,
    fleet: FleetState,
    signing: ReportSigningServices,
    identity: IdentityServices | None,
    presence: PresenceFeed,
) -> Ingest:
    limits = settings.limits
    return Ingest(
        adapters.messages,
        fleet,
        adapters.log("ingest"),
        RateLimiter(RateLimit(limits.messages_per_second, limits.message_burst)),
        signing.verifier,
        None if identity is None else identity.renewals.enqueue,
        presence if settings.identity.watch_presence else None,
    )


def _metadata_refresher(settings: Settings, adapters: Adapters) -> MetadataRefresher | None:
    if adapters.updates is None:
        return None
    return MetadataRefresher(adapters.updates, adapters.clock, settings.updates.refresh_every, adapters.log("updates"))


def _loops(
    services: Services,
    store: BackgroundLoop,
    refresher: MetadataRefresher | None,
    presence: PresenceCheck | None,
) -> NamedLoops:
    identity = services.identity
    return present(
        ("store", store),
        ("controllers", services.controllers),
        ("link", services.messages),
        ("ingest", services.ingest),
        ("policies", services.policies.activation),
        ("knowledge", services.policies.knowledge),
        ("timers", DeviceTimers(services.fleet, services.settings.posture.stale_after, services.leases)),
        ("nodes", services.nodes),
        ("outbox", services.outbox),
        ("update metadata", refresher),
        ("own certificates", services.own_certificates),
        ("revocations elsewhere", None if identity is None else identity.follower),
        ("renewals", None if identity is None else identity.renewals),
        ("report keys", services.signing),
        ("presence", presence),
    )
