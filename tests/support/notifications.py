"""Sinks and lines for tests of notifications, and a harness driven by hand."""

from dataclasses import replace
from typing import Any, Final

from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.notifications.model import (
    AlertSeverity,
    Delivery,
    HttpTarget,
    Message,
    Sink,
    SinkKind,
    ThreadStatus,
)
from controller.domain.notifications.planning import Line
from controller.service.notifications.operations import NewSink
from tests.support.controller_harness import ControllerHarness

NOW: Final = 1_800_000_000.0
URL: Final = "http://127.0.0.1:1/hook"
SECRETS: Final = {"notifications": {"secrets": {"key": "/nowhere"}}}


def sink(name: str = "ops", **changes: Any) -> Sink:
    """A webhook that is told everything."""
    made = Sink(name, f"id-{name}", SinkKind.WEBHOOK, "tests", NOW, HttpTarget(url=URL, secret="key"))
    return replace(made, **changes)


def line(
    kind: AuditKind,
    seq: int = 1,
    *,
    device: str = "pump-7",
    case: str = "case-1",
    at: float = NOW,
    alert: bool = False,
    actor: str = "cordon",
    device_class: str = "",
    **detail: Any,
) -> Line:
    """An audit line."""
    return Line(AuditId(1, seq), at, AuditEntry(kind, device, actor, case, detail, alert), device_class)


def delivery(name: str = "ops", key: str = "k" * 32, **changes: Any) -> Delivery:
    """A delivery of a message about a contained device."""
    message = Message(
        "containment.decided", AlertSeverity.WARNING, ThreadStatus.OPEN, "pump-7: A containment was decided.",
        "case:case-1", "pump-7: A containment was decided.", NOW, "1-7", (("level", "isolated"),), "case-1", "pump-7",
        actor="cordon",
    )  # fmt: skip
    return Delivery(key, name, NOW, replace(message, **changes))


async def add_sink(harness: ControllerHarness, name: str = "ops", **changes: Any) -> None:
    """Adds a webhook through the operations; needs the settings `SECRETS`."""
    new = NewSink(name, SinkKind.WEBHOOK, HttpTarget(url=URL, secret="key"), None, (), None)
    await harness.services.notifications.add(replace(new, **changes), "operator:tests")
    await harness.services.notifications.dispatcher.load()


async def deliver(harness: ControllerHarness) -> None:
    """Plans all lines, and delivers what is due now."""
    dispatcher = harness.services.notifications.dispatcher
    await dispatcher.plan()
    for worker in list(dispatcher.workers.values()):
        while await worker.run_once() == 0.0:
            pass
