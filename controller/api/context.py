"""The services behind the API, and the dependencies with which each router takes the ones that it needs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Protocol

from fastapi import Depends, Request

from controller.api.errors import ApiError, detail_for
from controller.domain.device import Device
from controller.domain.policy.model import PolicySet
from controller.ports.broker import BrokerControl
from controller.ports.fleet_queries import FleetQueries
from controller.ports.inspection import BrokerInspector
from controller.ports.leases import Leases
from controller.ports.messages import Messages
from controller.ports.store import Store
from controller.ports.updates import UpdateRepository
from controller.service.accounts.authentication import Authentication
from controller.service.accounts.services import AccountServices
from controller.service.approvals.inbox import ApprovalInbox
from controller.service.broker.access_operations import AccessOperations
from controller.service.broker.audit import BrokerAuditor
from controller.service.broker.setup import SetupOperations
from controller.service.containment.nodes import NodeWatch
from controller.service.containment.operator_actions import OperatorActions
from controller.service.containment.outbox import Outbox
from controller.service.containment.reconciler import Reconciler
from controller.service.containment.returns import ReturnMonitor
from controller.service.containment.users import UserContainments
from controller.service.containment.waivers import WaiverService
from controller.service.controllers import Controllers
from controller.service.fleet_state import FleetState
from controller.service.identity.own_certificates import OwnCertificates
from controller.service.identity.services import IdentityServices
from controller.service.ingest.ingest import Ingest
from controller.service.ingest.signatures import ReportSigningServices
from controller.service.maintenance import MetadataRefresher
from controller.service.notifications.operations import NotificationOperations
from controller.service.policy.activation import PolicyActivation
from controller.service.policy.knowledge import KnowledgeService
from controller.service.policy.preview import PreviewPlaces
from controller.service.rollout.operations import RolloutOperations
from controller.service.settings.settings import Settings
from controller.service.waiting import Waiters

RETRY_AFTER: Final = {"Retry-After": "5"}  # seconds


class CandidatePolicyCompiler(Protocol):
    """Compiles texts (source and text) to a set of policies, in addition to the active ones or alone."""

    def __call__(self, texts: Sequence[tuple[str, str]], *, alone: bool) -> PolicySet:
        """Returns the set, which is not put in force.

        Raises:
            PolicyError: a text has a mistake.
        """
        ...


@dataclass(frozen=True, slots=True)
class PolicyServices:
    activation: PolicyActivation
    compile: CandidatePolicyCompiler
    knowledge: KnowledgeService
    previews: PreviewPlaces = field(default_factory=PreviewPlaces)


@dataclass(frozen=True, slots=True)
class ContainmentServices:
    """What decides about containments, and carries them out."""

    fleet: FleetState
    operators: OperatorActions
    waivers: WaiverService
    users: UserContainments
    outbox: Outbox
    broker: BrokerControl
    returns: ReturnMonitor


@dataclass(frozen=True, slots=True)
class BrokerServices:
    """What looks after the broker itself."""

    control: BrokerControl
    inspector: BrokerInspector
    auditor: BrokerAuditor
    setup: SetupOperations
    access: AccessOperations
    reconciler: Reconciler
    nodes: NodeWatch


@dataclass(frozen=True, slots=True)
class RolloutServices:
    """Rollouts, and the repository of updates where one is configured."""

    operations: RolloutOperations
    updates: UpdateRepository | None
    refresher: MetadataRefresher | None


@dataclass(frozen=True, slots=True)
class LeaderServices:
    """What exists once for a store: the leader has it, and builds it anew when it becomes leader."""

    containment: ContainmentServices
    approvals: ApprovalInbox
    broker: BrokerServices
    rollouts: RolloutServices
    accounts: AccountServices
    notifications: NotificationOperations


class NoLeaderError(ApiError):
    """Another controller leads, or none does."""

    def __init__(self) -> None:
        super().__init__(503, "no_leader", "no controller leads now: try again", RETRY_AFTER)


@dataclass(slots=True)
class Services:
    """Everything that the API serves; `identity` is absent where no authority is configured.

    `started_at` is in Unix seconds. `leader` is set while this controller leads; what belongs to it raises
    `NoLeaderError` otherwise, also when the lease is just over and the leader's loops have not ended yet.
    """

    settings: Settings
    started_at: float
    fleet: FleetState
    store: Store
    queries: FleetQueries
    messages: Messages
    ingest: Ingest
    signing: ReportSigningServices
    policies: PolicyServices
    waivers: WaiverService
    outbox: Outbox
    nodes: NodeWatch
    auditor: BrokerAuditor
    waiters: Waiters
    identity: IdentityServices | None
    own_certificates: OwnCertificates
    controllers: Controllers
    leases: Leases
    authentication: Authentication
    leader: LeaderServices | None = None

    def lead_with(self, leader: LeaderServices | None) -> None:
        """From now on this controller leads, or another one does."""
        self.leader = leader

    @property
    def leading(self) -> LeaderServices:
        if self.leader is None or not self.leases.is_leader:
            raise NoLeaderError
        return self.leader

    @property
    def containment(self) -> ContainmentServices:
        return self.leading.containment

    @property
    def approvals(self) -> ApprovalInbox:
        return self.leading.approvals

    @property
    def broker(self) -> BrokerServices:
        return self.leading.broker

    @property
    def rollouts(self) -> RolloutServices:
        return self.leading.rollouts

    @property
    def accounts(self) -> AccountServices:
        return self.leading.accounts

    @property
    def notifications(self) -> NotificationOperations:
        return self.leading.notifications


async def services_of(request: Request) -> Services:
    """The services that the application was created with."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def _settings(services: ServicesDep) -> Settings:
    return services.settings


async def _fleet(services: ServicesDep) -> FleetState:
    return services.fleet


async def _store(services: ServicesDep) -> Store:
    return services.store


async def _queries(services: ServicesDep) -> FleetQueries:
    return services.queries


async def _policies(services: ServicesDep) -> PolicyServices:
    return services.policies


async def _containment(services: ServicesDep) -> ContainmentServices:
    return services.containment


async def _approvals(services: ServicesDep) -> ApprovalInbox:
    return services.approvals


async def _waivers(services: ServicesDep) -> WaiverService:
    return services.waivers


async def _broker(services: ServicesDep) -> BrokerServices:
    return services.broker


async def _rollouts(services: ServicesDep) -> RolloutServices:
    return services.rollouts


async def _waiters(services: ServicesDep) -> Waiters:
    return services.waiters


async def _messages(services: ServicesDep) -> Messages:
    return services.messages


async def _signing(services: ServicesDep) -> ReportSigningServices:
    return services.signing


async def _own_certificates(services: ServicesDep) -> OwnCertificates:
    return services.own_certificates


async def _notifications(services: ServicesDep) -> NotificationOperations:
    return services.notifications


async def _leases(services: ServicesDep) -> Leases:
    return services.leases


async def _identity(services: ServicesDep) -> IdentityServices | None:
    return services.identity


async def _accounts(services: ServicesDep) -> AccountServices:
    return services.accounts


SettingsDep = Annotated[Settings, Depends(_settings)]
FleetDep = Annotated[FleetState, Depends(_fleet)]
StoreDep = Annotated[Store, Depends(_store)]
QueriesDep = Annotated[FleetQueries, Depends(_queries)]
PoliciesDep = Annotated[PolicyServices, Depends(_policies)]
ContainmentDep = Annotated[ContainmentServices, Depends(_containment)]
ApprovalsDep = Annotated[ApprovalInbox, Depends(_approvals)]
WaiversDep = Annotated[WaiverService, Depends(_waivers)]
BrokerDep = Annotated[BrokerServices, Depends(_broker)]
RolloutsDep = Annotated[RolloutServices, Depends(_rollouts)]
WaitersDep = Annotated[Waiters, Depends(_waiters)]
SigningDep = Annotated[ReportSigningServices, Depends(_signing)]
MessagesDep = Annotated[Messages, Depends(_messages)]
OwnCertificatesDep = Annotated[OwnCertificates, Depends(_own_certificates)]
AccountsDep = Annotated[AccountServices, Depends(_accounts)]
LeasesDep = Annotated[Leases, Depends(_leases)]
NotificationsDep = Annotated[NotificationOperations, Depends(_notifications)]
IdentityDep = Annotated[IdentityServices | None, Depends(_identity)]


async def require_device(fleet: FleetState, device_id: str) -> Device:
    """The device as it is now.

    Raises:
        ApiError: 404, it never reported.
    """
    device = await fleet.find(device_id)
    if device is None:
        raise _unknown(device_id)
    return device


async def require_devices(fleet: FleetState, ids: Collection[str]) -> None:
    """Checks that each has reported.

    Raises:
        ApiError: 404, one never reported.
    """
    known = {device.device_id for device in await fleet.find_all(ids)}
    for device_id in ids:
        if device_id not in known:
            raise _unknown(device_id)


def _unknown(device_id: str) -> ApiError:
    return ApiError(404, "device_unknown", f"no device {device_id} has ever reported")


async def writable(request: Request, store: StoreDep) -> None:
    """Refuses a decision that could not be stored: it must be durable before it is acknowledged.

    Raises:
        ApiError: 503, the store cannot write.
    """
    if store.health.trouble:
        text = f"nothing can be decided now: {detail_for(request, store.health.trouble)}"
        raise ApiError(503, "store_not_writable", text, RETRY_AFTER)
