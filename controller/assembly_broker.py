"""Makes the parts that look after the broker itself: what judges it, what sets it up, what compares it."""

from controller.adapters.emqx.broker import EmqxBroker
from controller.adapters.emqx.broker_setup import EmqxSetup
from controller.adapters.emqx.inspection import EmqxInspector
from controller.adapters.policies.loader import load_policies
from controller.adapters.secret_files import read_secret
from controller.adapters.sqlite.broker_setup import SqliteSetupStore
from controller.adapters.sqlite.store import SqliteStore
from controller.adapters.system import SystemClock
from controller.adapters.tls_probe import probe_context
from controller.domain.broker_facts import TYPES as BROKER_TYPES
from controller.domain.rules import Language
from controller.packs import broker_pack_path
from controller.ports.broker_setup import SetupWanted
from controller.service.auditor import BROKER, Auditor
from controller.service.settings import Settings
from controller.service.setup_desk import SetupDesk


def inspector(broker: EmqxBroker, settings: Settings) -> EmqxInspector:
    """What looks at the broker to judge it; it shakes hands with the controller's own certificate."""
    mqtt = settings.mqtt
    return EmqxInspector(
        broker.api,
        SystemClock(),
        receive_maximum=mqtt.receive_maximum,
        context=lambda: probe_context(mqtt.certificate, mqtt.key),
    )


def auditor(broker_inspector: EmqxInspector, settings: Settings) -> Auditor:
    """What judges the broker, by the shipped pack where the configuration names no policies."""
    language = Language(BROKER_TYPES, BROKER)
    paths = settings.emqx.audit or (broker_pack_path(),)
    return Auditor(broker_inspector, language, lambda: load_policies(paths, language))


def setup_wanted(settings: Settings) -> SetupWanted:
    """What the configuration asks of the broker.

    Raises:
        SettingsError: the password file cannot be used.
    """
    mqtt = settings.mqtt
    password = "" if mqtt.password_file is None else read_secret(mqtt.password_file, "mqtt.password_file")
    return SetupWanted(mqtt.client_id, mqtt.receive_maximum, mqtt.username or "", password)


def setup_desk(broker: EmqxBroker, store: SqliteStore, settings: Settings) -> SetupDesk:
    """What sets the broker up and takes it back."""
    return SetupDesk(EmqxSetup(broker.api), SqliteSetupStore(store), store, SystemClock(), setup_wanted(settings))
