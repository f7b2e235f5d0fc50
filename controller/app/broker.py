"""Makes the parts that look after the broker itself: what judges it, what sets it up, what compares it."""

from dataclasses import dataclass

from controller.adapters.access.templates import parse_templates
from controller.adapters.emqx.access import EmqxAccess
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.emqx.inspection import EmqxInspector
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.emqx.tables import EmqxTables
from controller.adapters.files import read_secret
from controller.adapters.logs import logger_for
from controller.adapters.policies.loader import load_policies
from controller.adapters.sqlite.access import SqliteAccessStore
from controller.adapters.sqlite.broker_setup import SqliteSetupStore
from controller.adapters.sqlite.store import SqliteStore
from controller.adapters.system import SystemClock
from controller.adapters.tls_probe import probe_context
from controller.domain.broker.facts import TYPES as BROKER_TYPES
from controller.domain.policy.cel import CelEnvironment
from controller.packs import broker_pack_path
from controller.ports.broker_setup import DesiredSetup
from controller.service.broker.access import AccessRuleManager
from controller.service.broker.access_operations import AccessOperations
from controller.service.broker.audit import BROKER, BrokerAuditor
from controller.service.broker.setup import SetupOperations
from controller.service.containment.enforcer import Enforcer
from controller.service.containment.outbox import EffectQueue
from controller.service.containment.reconciler import Reconciler
from controller.service.fleet_state import FleetState
from controller.service.settings.settings import Settings


def inspector(broker: EmqxBroker, settings: Settings) -> EmqxInspector:
    """What looks at the broker to judge it; it shakes hands with the controller's own certificate."""
    mqtt = settings.mqtt
    return EmqxInspector(
        broker.api,
        SystemClock(),
        receive_maximum=mqtt.receive_maximum,
        context=lambda: probe_context(mqtt.certificate, mqtt.key),
    )


def auditor(broker_inspector: EmqxInspector, settings: Settings) -> BrokerAuditor:
    """What judges the broker, by the shipped pack where the configuration names no policies."""
    language = CelEnvironment(BROKER_TYPES, BROKER)
    paths = settings.emqx.audit or (broker_pack_path(),)
    return BrokerAuditor(broker_inspector, language, lambda: load_policies(paths, language))


def setup_wanted(settings: Settings) -> DesiredSetup:
    """What the configuration asks of the broker.

    Raises:
        SettingsError: the password file cannot be used.
    """
    mqtt = settings.mqtt
    password = "" if mqtt.password_file is None else read_secret(mqtt.password_file, "mqtt.password_file")
    return DesiredSetup(mqtt.client_id, mqtt.receive_maximum, mqtt.username or "", password)


def setup_desk(broker: EmqxBroker, store: SqliteStore, settings: Settings) -> SetupOperations:
    """What sets the broker up and takes it back."""
    return SetupOperations(EmqxSetup(broker.api), SqliteSetupStore(store), store, SystemClock(), setup_wanted(settings))


async def access_desk(
    broker: EmqxBroker, store: SqliteStore, keeper: FleetState, effects: EffectQueue, enforcer: Enforcer
) -> AccessOperations:
    """What keeps the fleet's access rules; a release gives back what it says."""
    access = AccessRuleManager(
        keeper,
        effects,
        EmqxAccess(broker.api),
        SqliteAccessStore(store),
        lambda text: parse_templates(text, "templates"),
        logger_for("access"),
    )
    await access.load()
    enforcer.give_back(access.rules_after)
    return AccessOperations(access, keeper)


@dataclass(frozen=True, slots=True)
class BrokerServices:
    """Everything that looks after the broker."""

    reconciler: Reconciler
    inspector: EmqxInspector
    auditor: BrokerAuditor
    setup: SetupOperations
    access: AccessOperations


async def broker_parts(
    broker: EmqxBroker,
    store: SqliteStore,
    keeper: FleetState,
    effects: EffectQueue,
    enforcer: Enforcer,
    settings: Settings,
) -> BrokerServices:
    """Make all of them; a release gives back what access rules say from now on.

    Raises:
        ControllerError: what the store holds, or a file of the configuration, cannot be used.
    """
    setup = setup_desk(broker, store, settings)
    access = await access_desk(broker, store, keeper, effects, enforcer)
    tables, log = EmqxTables(broker.api), logger_for("reconciler")
    every = settings.reconcile.every
    reconciler = Reconciler(keeper, broker, tables, effects, every, log, settings=setup, managed=access.access)
    looks = inspector(broker, settings)
    return BrokerServices(reconciler, looks, auditor(looks, settings), setup, access)
