"""The broker audit: evaluates policies over the broker's own settings."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.domain.broker.facts import gather_broker_facts
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.explain import RuleExplanation, explain
from controller.domain.policy.model import PolicySet
from controller.ports.inspection import BrokerInspector, DashboardLogin

BROKER: Final = "broker"


@dataclass(frozen=True, slots=True)
class BrokerAudit:
    """One audit: when (Unix seconds), by which policies, and every rule with its result and facts."""

    at: float
    policies: str
    items: tuple[RuleExplanation, ...]


class BrokerAuditor:
    """Inspects and evaluates on request; one audit at a time, because an inspection tries a login."""

    def __init__(self, inspector: BrokerInspector, language: CelEnvironment, load: Callable[[], PolicySet]) -> None:
        """`load` reads the policies again for each audit."""
        self._inspector = inspector
        self._language = language
        self._load = load
        self._looking = asyncio.Lock()

    async def audit(self, login: DashboardLogin | None = None) -> BrokerAudit:
        """Inspects the broker now.

        Raises:
            ControllerError: the policies have a mistake.
        """
        policies = self._load()
        async with self._looking:
            seen = await self._inspector.inspect(login)
        return BrokerAudit(seen.at, policies.version, explain(policies, self._language, gather_broker_facts(seen)))
