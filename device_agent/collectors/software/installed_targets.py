"""Targets installed by updates (section `software`), verified on disk: the report confirms what is really installed."""

import threading
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.errors import JournalError, NotApplicableError
from device_agent.host.system import System
from device_agent.updates.errors import UpdateError
from device_agent.updates.updater import Updater
from schemas.updates import UpdatePhase

_NOT_SET_UP: Final = "updates are not set up on this device: updates.url and updates.root of agent.toml"


class InstalledTargetsCollector:
    """Collects the `software` section; not applicable without an updater."""

    def __init__(self, updater: Updater | None = None) -> None:
        self._updater = updater
        self._mutex = threading.Lock()

    def __call__(self, system: System) -> Section:
        """Returns the section, with one entry for each target name."""
        del system
        updater = self._updater
        if updater is None:
            raise NotApplicableError(_NOT_SET_UP)
        with self._mutex:
            section = SectionBuilder(
                device_class=updater.device.device_class,
                hardware=list(updater.device.hardware),
                root_version=updater.tuf_client.root_version,
                entries=[_entry(updater, name) for name in updater.ledger.names()],
            )
            return section.build()


def _entry(updater: Updater, name: str) -> dict[str, Any]:
    try:
        record = updater.ledger.load(name)
        version = updater.installed(record)
        health, health_reason = updater.health(record)
    except (JournalError, UpdateError) as e:
        return {"name": name, "kind": "unknown", "health": "unknown", "health_reason": str(e)}
    release, transaction = record.current, record.transaction
    target = release.target if release is not None else None
    if transaction is not None:
        outcome, attempted, reason = transaction.phase, transaction.version, transaction.reason
    else:
        outcome, attempted, reason = record.outcome, record.attempted, record.reason
    if not version and outcome is UpdatePhase.CONFIRMED:
        health, health_reason = "failed", "the installed target is missing or was changed"
    return {
        "name": name,
        "version": version,
        "kind": target.kind.value if target is not None else "unknown",
        "previous": record.previous.version if record.previous is not None else "",
        "health": health,
        "health_reason": health_reason,
        "outcome": outcome.value,
        "attempted": attempted,
        "reason": reason,
        "command_id": transaction.command_id if transaction is not None else record.command_id,
        "at": record.updated_at.isoformat() if record.updated_at is not None and transaction is None else None,
    }
