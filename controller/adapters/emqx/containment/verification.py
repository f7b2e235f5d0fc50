"""Reads back on every node what a stage changed, and repairs until it holds: a cluster's tables take time to travel."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.models import NodeRow
from controller.adapters.emqx.containment.context import RunContext
from controller.adapters.emqx.containment.steps import BrokerAction, BrokerCheck
from controller.ports.errors import BrokerError

# Seconds before each repeated read: tables reach other nodes in milliseconds, a dead node is noticed in a second.
WAITS_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
# Of one plan, after which nothing is read again: an address that swallows packets costs seconds each time.
HOLD_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _NodeResult:
    base: str
    missing: tuple[str, ...]
    silence: str  # the error's text if the node did not answer


async def read_back(run: RunContext, checks: Sequence[BrokerCheck], repairs: Sequence[BrokerAction]) -> list[str]:
    """Runs the checks; repairs and runs them again until nothing is missing or the time is up.

    Returns:
        What is missing in the end.
    """
    missing = await find_missing(run, checks)
    for wait in WAITS_SECONDS:
        if not missing or run.clock.monotonic() > run.deadline:
            break
        for repair in repairs:
            await repair.run(run)
        await asyncio.sleep(wait)
        missing = await find_missing(run, checks)
    return missing


async def find_missing(run: RunContext, checks: Sequence[BrokerCheck]) -> list[str]:
    """Runs the checks once, where each of them is answered: on every node, or on one."""
    missing: list[str] = []
    for check in checks:
        if check.on_every_node:
            missing += await _check_every_node(run, check)
        else:
            found = await check.missing(run, run.api)
            run.record.observe(check.label, "; ".join(found) or "as wanted")
            missing += found
    return missing


async def _check_every_node(run: RunContext, check: BrokerCheck) -> list[str]:
    """What is missing, over every configured address.

    An address that does not answer is excused only if the cluster says that its node is not running.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_check_node(run, check, base)) for base in run.api.addresses]
    results = [task.result() for task in tasks]
    missing: list[str] = []
    for result in results:
        if not result.silence:
            run.record.observe(check.label, "; ".join(result.missing) or "as wanted", result.base)
            missing += result.missing
    silent = [result for result in results if result.silence]
    if len(silent) == len(results):
        return [f"no node answered: {silent[0].silence}"]
    if silent:
        cluster = await run.api.send(requests.read_nodes())
        answered = {run.nodes.name(result.base) for result in results if not result.silence}
        for result in silent:
            missing += _unexcused(run, result, answered, cluster)
    return missing


async def _check_node(run: RunContext, check: BrokerCheck, base: str) -> _NodeResult:
    api = run.api.on_node(base)
    try:
        await run.nodes.refresh(api, base)
        return _NodeResult(base, tuple(f"{base}: {text}" for text in await check.missing(run, api)), "")
    except BrokerError as e:
        if e.transient:
            return _NodeResult(base, (), str(e))
        return _NodeResult(base, (str(e),), "")


def _unexcused(run: RunContext, result: _NodeResult, answered: set[str], cluster: Sequence[NodeRow]) -> tuple[str, ...]:
    running = {row.node for row in cluster if row.node_status == "running"}
    name = run.nodes.name(result.base)
    # A node whose name was never read is excused when every running node has answered for itself.
    if name not in running if name else running <= answered:
        answer = f"the cluster lists {name or 'its node'} as not running"
        run.record.observe("node not running", answer, result.base)
        return ()
    return (f"no read-back from a running node: {result.silence}",)
