"""Puts together what takes messages in and verifies signed reports; one of the places that name implementations."""

from controller.adapters.logs import logger_for
from controller.adapters.sqlite.registry import SqliteRegistry
from controller.adapters.sqlite.report_keys import SqliteReportKeys
from controller.adapters.sqlite.store import SqliteStore
from controller.assembly import fairness
from controller.ports.broker import BrokerControl
from controller.ports.messages import Messages
from controller.service.device_keyring import DeviceKeyring
from controller.service.ingest import Ingest
from controller.service.keeper import Keeper
from controller.service.report_signing import ReportSigning
from controller.service.sealing import SealRules, Seals
from controller.service.settings import Settings
from controller.service.vouching import Vouching


def ingest_parts(
    settings: Settings, store: SqliteStore, keeper: Keeper, broker: BrokerControl, link: Messages
) -> tuple[Ingest, ReportSigning]:
    """What takes messages in, the keys of devices, and what looks at every report."""
    registry = None if settings.authority.folder is None else SqliteRegistry(store)
    book = SqliteReportKeys(store, registry)
    keyring = DeviceKeyring(
        book, Vouching(broker, link, keeper.clock).grade, store, keeper.clock, logger_for("report keys")
    )
    rules = SealRules(settings.reports.max_age, frozenset(settings.reports.must_sign))
    seals = Seals(keyring, keeper.get, rules)
    seals.load(keeper.devices.values())
    ingest = Ingest(link, keeper, logger_for("ingest"), fairness(settings), seals)
    return ingest, ReportSigning(keyring, seals)
