"""What every handler works with, put together once by the composition root."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from fastapi import Depends, Request

from controller.api.errors import ApiError
from controller.domain.device import Device
from controller.domain.policy.model import PolicySet
from controller.ports.broker import BrokerControl
from controller.ports.inspection import BrokerInspector
from controller.ports.messages import Messages
from controller.ports.store import Store
from controller.ports.updates import UpdateRepository
from controller.service.broker.access_operations import AccessOperations
from controller.service.broker.audit import BrokerAuditor
from controller.service.broker.setup import SetupOperations
from controller.service.containment.operator_actions import OperatorActions
from controller.service.containment.outbox import Outbox
from controller.service.containment.reconciler import Reconciler
from controller.service.containment.users import UserContainments
from controller.service.containment.waivers import WaiverService
from controller.service.fleet_state import FleetState
from controller.service.identity.services import IdentityServices
from controller.service.ingest.ingest import Ingest
from controller.service.ingest.signatures import ReportSigningServices
from controller.service.maintenance import MetadataRefresher
from controller.service.rollout.operations import RolloutOperations
from controller.service.settings.settings import Settings
from controller.service.waiting import Waiters

RETRY_AFTER: Final = {"Retry-After": "5"}  # seconds


class PolicyReloader(Protocol):
    """Reads the policy files again."""

    async def __call__(self, *, force: bool = False) -> PolicySet:
        """The policies in force now."""
        ...


class CandidatePolicyCompiler(Protocol):
    """Makes a set of policies of texts (source and text), beside those in force or alone."""

    def __call__(self, texts: Sequence[tuple[str, str]], *, alone: bool) -> PolicySet:
        """The set; nothing comes into force.

        Raises:
            PolicyError: anything wrong with a text.
        """
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The running controller as the API sees it.

    `started_at` is in Unix seconds. `reload_policies` reads the policy files again and puts them in force, or raises
    `ControllerError` and changes nothing; with `force=True` also those that would contain more than the guards allow.
    `identity` is absent where no authority is configured.
    """

    keeper: FleetState
    store: Store
    messages: Messages
    outbox: Outbox
    reconciler: Reconciler
    ingest: Ingest
    broker: BrokerControl
    inspector: BrokerInspector
    auditor: BrokerAuditor
    settings: Settings
    started_at: float
    reload_policies: PolicyReloader
    guarding: OperatorActions
    waiving: WaiverService
    waiters: Waiters
    candidate: CandidatePolicyCompiler
    users: UserContainments | None = None
    updates: UpdateRepository | None = None
    rollouts: RolloutOperations | None = None
    update_refresher: MetadataRefresher | None = None
    identity: IdentityServices | None = None
    setup: SetupOperations | None = None
    signing: ReportSigningServices | None = None
    access: AccessOperations | None = None

    def device(self, device_id: str) -> Device:
        """The device as it is now.

        Raises:
            ApiError: 404, it never reported.
        """
        device = self.keeper.get(device_id)
        if device is None:
            raise ApiError(404, "device_unknown", f"no device {device_id} has ever reported")
        return device


def services_of(request: Request) -> Services:
    """The services that the application was created with."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


def writable(services: ServicesDep) -> None:
    """Refuse a decision that could not be kept: it has to be durable before it is acknowledged.

    Raises:
        ApiError: 503, the store cannot write.
    """
    health = services.store.health
    if health.trouble:
        raise ApiError(503, "store_not_writable", f"nothing can be decided now: {health.trouble}", RETRY_AFTER)
