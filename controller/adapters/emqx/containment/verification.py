"""Asks every node whether what was written holds there: a cluster's tables travel, and a proof cannot wait for hope."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import NodeRow
from controller.ports.broker import Proof, ProofStep
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError, BrokerNotFoundError, BrokerRefusedError

# Seconds between two looks: EMQX's tables reach other nodes in milliseconds, a dead node is noticed in a second.
WAITS_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
# Of one sequence, after which no further look begins: an address that swallows packets costs seconds each time.
HOLD_SECONDS: Final = 5.0
NAME_SECONDS: Final = 60.0  # how long the name behind an address is believed
MAX_STEPS: Final = 500  # of one proof

# Looks at one node and says what is missing there.
NodeCheck = Callable[[EmqxApi], Awaitable[list[str]]]


@dataclass(slots=True)
class ProofRecorder:
    """The steps of one proof, as they happen."""

    steps: list[ProofStep] = field(default_factory=list)
    cut_at: float = 0.0
    ban_until: float | None = None

    def add(self, step: ProofStep) -> None:
        """Take a step; what a runaway repeat adds is not kept."""
        if len(self.steps) < MAX_STEPS:
            self.steps.append(step)

    def say(self, what: str, answer: str, node: str = "") -> None:
        """Take a remark: what was seen rather than what was asked."""
        self.add(ProofStep(what=what, call="", node=node, answer=answer, seconds=0.0))

    def proof(self, missing: Sequence[str]) -> Proof:
        """The proof: it holds if nothing is missing."""
        return Proof(
            holds=not missing,
            missing="; ".join(dict.fromkeys(missing)),
            steps=tuple(self.steps),
            cut_at=self.cut_at,
            ban_until=self.ban_until,
        )


class NodeNameCache:
    """Which node's name is behind which address, learned while it answered, for when it no longer does."""

    def __init__(self, clock: Clock) -> None:
        """Know none yet."""
        self._clock = clock
        self._names: dict[str, tuple[str, float]] = {}

    def name(self, base: str) -> str:
        """The last known name behind the address, empty if it never answered."""
        return self._names.get(base, ("", 0.0))[0]

    async def learn(self, api: EmqxApi, base: str) -> None:
        """Ask the address for its name, now and then."""
        now = self._clock.monotonic()
        name, at = self._names.get(base, ("", 0.0))
        if name and now - at < NAME_SECONDS:
            return
        try:
            self._names[base] = (await api.own_name(), now)
        except (BrokerNotFoundError, BrokerRefusedError):
            # Names are needed only once a node is silent; a key without that right proves everything else.
            self._names[base] = ("", now)


@dataclass(frozen=True, slots=True)
class _Seen:
    base: str
    missing: tuple[str, ...]
    silence: str  # the error's text if the node did not answer


async def on_every_node(
    api: EmqxApi, nodes: NodeNameCache, record: ProofRecorder, what: str, look: NodeCheck
) -> list[str]:
    """What is missing, over every configured address; empty when it holds.

    An address that does not answer is excused only if the cluster says that its node is not running.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look(api, nodes, base, look)) for base in api.addresses]
    seen = [task.result() for task in tasks]
    missing: list[str] = []
    for each in seen:
        if not each.silence:
            record.say(what, "; ".join(each.missing) or "as wanted", each.base)
            missing += each.missing
    silent = [each for each in seen if each.silence]
    if len(silent) == len(seen):
        return [f"no node answered: {silent[0].silence}"]
    if silent:
        cluster = await api.nodes()
        answered = {nodes.name(each.base) for each in seen if not each.silence}
        for each in silent:
            missing += _excuse(each, nodes.name(each.base), answered, cluster, record)
    return missing


async def until_holds(
    clock: Clock, deadline: float, look: Callable[[], Awaitable[list[str]]], repair: Callable[[], Awaitable[None]]
) -> list[str]:
    """Look once; then repair and look again, bounded in times and by the deadline; what is missing in the end."""
    missing = await look()
    for wait in WAITS_SECONDS:
        if not missing or clock.monotonic() > deadline:
            break
        await repair()
        await asyncio.sleep(wait)
        missing = await look()
    return missing


async def _look(api: EmqxApi, nodes: NodeNameCache, base: str, look: NodeCheck) -> _Seen:
    here = api.at(base)
    try:
        await nodes.learn(here, base)
        return _Seen(base, tuple(f"{base}: {text}" for text in await look(here)), "")
    except BrokerError as e:
        if e.transient:
            return _Seen(base, (), str(e))
        return _Seen(base, (str(e),), "")


def _excuse(
    seen: _Seen, name: str, answered: set[str], cluster: Sequence[NodeRow], record: ProofRecorder
) -> tuple[str, ...]:
    running = {row.node for row in cluster if row.node_status == "running"}
    # A name that was never learned is excused when every running node has spoken for itself.
    stopped = name not in running if name else running <= answered
    if stopped:
        record.say("node not running", f"the cluster lists {name or 'its node'} as not running", seen.base)
        return ()
    return (f"no read-back from a running node: {seen.silence}",)
