"""Builds the services that look after the broker itself: access rules, setup, audit, comparison."""

from functools import cache

from controller.adapters.access.templates import parse_templates
from controller.adapters.files import read_line
from controller.adapters.policies.loader import load_policies
from controller.adapters.sql.access import SqlAccessStore
from controller.adapters.sql.broker_setup import SqlSetupStore
from controller.adapters.sql.store import SqlStore
from controller.api.context import BrokerServices
from controller.app.adapters import Adapters
from controller.domain.broker.access import AccessTemplates
from controller.domain.broker.facts import TYPES as BROKER_TYPES
from controller.domain.policy.cel import CelEnvironment
from controller.packs import broker_pack_path
from controller.ports.broker_setup import BrokerSetup, DesiredSetup
from controller.ports.clock import Clock
from controller.ports.inspection import BrokerInspector
from controller.service.audit_log import AuditRecorder
from controller.service.broker.access import AccessRuleManager
from controller.service.broker.access_operations import AccessOperations
from controller.service.broker.audit import BROKER, BrokerAuditor
from controller.service.broker.release_rules import ReleaseRules
from controller.service.broker.setup import SetupOperations
from controller.service.containment.effect_queue import EffectQueue
from controller.service.containment.nodes import NodeWatch
from controller.service.containment.reconciler import Reconciler
from controller.service.fleet_state import FleetState
from controller.service.own_clients import OwnClients
from controller.service.settings.settings import Settings
from schemas.broker_address import BrokerAddress


@cache
def _language() -> CelEnvironment:
    return CelEnvironment(BROKER_TYPES, BROKER)


def auditor(inspector: BrokerInspector, settings: Settings) -> BrokerAuditor:
    """Creates the auditor; without configured policies it uses the shipped pack."""
    paths = settings.emqx.audit or (broker_pack_path(),)
    return BrokerAuditor(inspector, _language(), lambda: load_policies(paths, _language()))


def desired_setup(settings: Settings) -> DesiredSetup:
    """What the configuration asks of the broker.

    Raises:
        SettingsError: the password cannot be had.
    """
    mqtt = settings.mqtt
    password = "" if mqtt.password_file is None else read_line(mqtt.password_file, "mqtt.password_file")
    ports = frozenset(BrokerAddress.parse(url).port for url in mqtt.servers)
    return DesiredSetup(
        settings.client_id, mqtt.receive_maximum, ports, mqtt.username or "", password, shares=settings.has_peers
    )


def setup_operations(
    broker: BrokerSetup, store: SqlStore, record: AuditRecorder, clock: Clock, settings: Settings, own: OwnClients
) -> SetupOperations:
    """`own`: the clients of all controllers."""
    return SetupOperations(broker, SqlSetupStore(store), record, clock, desired_setup(settings), own)


def _templates(text: str) -> AccessTemplates:
    return parse_templates(text, "templates")


def release_rules(adapters: Adapters, fleet: FleetState) -> ReleaseRules:
    """The access rules that releases restore."""
    return ReleaseRules(fleet, SqlAccessStore(adapters.store), _templates)


async def access_rules(adapters: Adapters, fleet: FleetState, effects: EffectQueue) -> AccessRuleManager:
    """The fleet's access rules, as the store has them."""
    access = AccessRuleManager(
        fleet,
        effects,
        adapters.broker.access,
        SqlAccessStore(adapters.store),
        _templates,
        adapters.log("access"),
    )
    await access.load()
    return access


def broker_services(
    settings: Settings,
    adapters: Adapters,
    fleet: FleetState,
    effects: EffectQueue,
    access: AccessRuleManager,
    nodes: NodeWatch,
    audits: BrokerAuditor,
) -> BrokerServices:
    """What the API needs to look after the broker.

    Raises:
        SettingsError: a file of the configuration cannot be used.
    """
    broker = adapters.broker
    setup = setup_operations(broker.setup, adapters.store, fleet.record, adapters.clock, settings, fleet.own)
    reconciler = Reconciler(
        fleet,
        broker.tables,
        effects,
        settings.reconcile.every,
        adapters.log("reconciler"),
        access,
        setup,
        nodes,
    )
    return BrokerServices(
        control=broker.control,
        inspector=broker.inspector,
        auditor=audits,
        setup=setup,
        access=AccessOperations(access, fleet),
        reconciler=reconciler,
        nodes=nodes,
    )
