"""Policy preview: evaluates every stored report by candidate policies, page by page."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from controller.domain.policy.evaluate import PolicyEvaluator
from controller.domain.policy.knowledge import KnowledgeEntry
from controller.domain.policy.model import PolicySet
from controller.domain.policy_preview import ContainmentPreview, preview_containment
from controller.ports.errors import ControllerError
from controller.ports.store import Store
from controller.service.fleet_state import FleetState
from schemas.posture import sections_of

PAGE: Final = 64  # reports in memory at a time; each has at most 64 KiB
MAX_OF_ONE: Final = 2  # previews of one person at once
MAX_RUNNING: Final = 8  # of all
_TURN: Final = 16  # reports evaluated before other tasks run


class TooManyPreviewsError(ControllerError):
    """As many previews run as are allowed."""


class PreviewPlaces:
    """Bounds the previews that run at once: each keeps compiled policies and reads every report of the fleet."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    def take(self, person: str) -> None:
        """Takes a place for a person, until `leave` (`TooManyPreviewsError`: there is none)."""
        if self._running[person] >= MAX_OF_ONE:
            raise TooManyPreviewsError(f"{MAX_OF_ONE} previews of yours run already: wait for the end of one")
        if self._running.total() >= MAX_RUNNING:
            raise TooManyPreviewsError(f"{MAX_RUNNING} previews run already: wait for the end of one")
        self._running[person] += 1

    def leave(self, person: str) -> None:
        """Gives a place back."""
        self._running[person] -= 1
        self._running += Counter()  # without those that have none


@dataclass(slots=True)
class PreviewTally:
    """The progress: `judged` of `reports`. `counts`: contained, later, released, held; `rests_on`: knowledge used."""

    reports: int
    judged: int = 0
    stale: int = 0
    unread: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rests_on: set[KnowledgeEntry] = field(default_factory=set)

    @property
    def contains(self) -> int:
        """Devices that would be contained by policy, at once or later."""
        return self.counts["contained"] + self.counts["later"]


@dataclass(frozen=True, slots=True)
class PreviewPage:
    """The changes of one page of reports, and the tally so far."""

    changes: tuple[ContainmentPreview, ...]
    tally: PreviewTally


async def preview(fleet: FleetState, store: Store, candidate: PolicySet) -> AsyncIterator[PreviewPage]:
    """Page by page, the devices whose containment `candidate` would change. Nothing is stored.

    A stale device is counted and not predicted: its earlier reports cause no containment.
    """
    policies = candidate.with_predicates(fleet.policies.predicates)
    judge = PolicyEvaluator(policies, fleet.language)
    tally = PreviewTally(reports=(await store.counts()).get("reports", 0))
    after = ""
    while page := await store.reports(after, PAGE):
        after = page[-1][0]
        changes: list[ContainmentPreview] = []
        devices = {device.device_id: device for device in await fleet.find_all([one for one, _ in page])}
        for number, (device_id, raw) in enumerate(page):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            device = devices.get(device_id)
            if device is None or not device.digest:
                continue
            if device.stale:
                tally.stale += 1
                continue
            try:
                sections = sections_of(raw)
            except ValidationError:
                tally.unread += 1
                continue
            facts = judge.facts(sections, device_id, device.device_class, device.tags)
            tally.rests_on.update(*facts.rests_on.values())
            change = preview_containment(
                device, judge(facts), judge.evaluate_predicates(facts), policies, fleet.guards, fleet.clock.now()
            )
            tally.judged += 1
            if change is not None:
                tally.counts[kind_of(change)] += 1
                changes.append(change)
        yield PreviewPage(tuple(changes), tally)


def kind_of(change: ContainmentPreview) -> str:
    """How a change is counted: contained, later, held or released (also for a step down)."""
    if change.held:
        return "held"
    if change.contains:
        return "later" if change.later else "contained"
    return "released"
