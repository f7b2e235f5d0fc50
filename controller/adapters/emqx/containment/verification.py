"""Reads back on every running node what a stage changed, and repairs until it holds: tables take time to travel."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.adapters.emqx.containment.context import Findings, RunContext
from controller.adapters.emqx.containment.steps import BrokerAction, BrokerCheck
from controller.ports.broker_tables import ClusterReading
from controller.ports.errors import BrokerError, BrokerWaitsError

# Seconds before each repeated read: tables reach other nodes in milliseconds, a dead node is noticed in a second.
WAITS_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
# Of one plan, after which nothing is read again: an address that swallows packets costs seconds each time.
HOLD_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _NodeResult:
    base: str
    missing: tuple[str, ...]
    error: BrokerError | None = None  # the node did not answer


async def read_back(run: RunContext, checks: Sequence[BrokerCheck], repairs: Sequence[BrokerAction]) -> Findings:
    """Runs the checks; repairs and runs them again until nothing is missing or the time is up.

    Returns:
        What is missing in the end. A node that cannot be read is not waited for.
    """
    findings = await find_missing(run, checks)
    for wait in WAITS_SECONDS:
        if not findings.missing or run.clock.monotonic() > run.deadline:
            break
        for repair in repairs:
            await act(run, repair)
        await asyncio.sleep(wait)
        findings = await find_missing(run, checks)
    return findings


async def act(run: RunContext, action: BrokerAction) -> None:
    """Takes an action; one whose call waits for a hung node has had its effect on the others, which is read back.

    Raises:
        BrokerError: it may not have been taken.
    """
    try:
        await action.run(run)
    except BrokerWaitsError as e:
        run.record.observe("not waited for", str(e))


async def find_missing(run: RunContext, checks: Sequence[BrokerCheck]) -> Findings:
    """Runs the checks once, where each of them is answered: on every node, or on one."""
    findings = Findings()
    for check in checks:
        if check.on_every_node:
            findings.add(await _check_every_node(run, check))
        else:
            findings.add(await _check_one_node(run, check))
    return findings


async def _check_one_node(run: RunContext, check: BrokerCheck) -> Findings:
    try:
        found = await check.missing(run, run.api)
    except BrokerWaitsError as e:
        return await _hidden(run, check, e)
    run.record.observe(check.label, "; ".join(found) or "as wanted")
    return Findings(found)


async def _check_every_node(run: RunContext, check: BrokerCheck) -> Findings:
    """What is missing, over every running node: EMQX says which nodes run.

    An address that does not answer is excused only if the cluster says that its node is not running.
    """
    cluster = await run.cluster.read()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_check_node(run, check, base)) for base in cluster.answering]
    results = [task.result() for task in tasks]
    if any(result.error is not None for result in results):
        cluster = await run.cluster.read(fresh=True)
    findings = Findings(unread={one.node: one.reason for one in cluster.unread})
    for result in results:
        if result.error is None:
            run.record.observe(check.label, "; ".join(result.missing) or "as wanted", result.base)
            findings.missing += result.missing
        elif isinstance(result.error, BrokerWaitsError):
            findings.add(await _hidden(run, check, result.error))
        elif result.base not in cluster.stopped:
            findings.unread[cluster.names.get(result.base, result.base)] = str(result.error)
    if all(result.error is not None and not isinstance(result.error, BrokerWaitsError) for result in results):
        return Findings([f"no node answered: {_first_error(results, cluster)}"])
    for base, name in cluster.stopped.items():
        answer = f"the cluster lists {name or 'its node'} as not running"
        run.record.observe("node not running", answer, base)
    for node, reason in findings.unread.items():
        run.record.observe("node not read", reason, node)
    return findings


def _first_error(results: Sequence[_NodeResult], cluster: ClusterReading) -> str:
    texts = [str(result.error) for result in results] + list(cluster.silent.values())
    return texts[0] if texts else "no address"


async def _hidden(run: RunContext, check: BrokerCheck, error: BrokerWaitsError) -> Findings:
    """What can only be read from a node that does not answer, as the session of a client that is there."""
    run.record.observe(check.label, f"not read: {error}")
    cluster = await run.cluster.read()
    return Findings(unread={one.node: one.reason for one in cluster.unread} or {"": str(error)})


async def _check_node(run: RunContext, check: BrokerCheck, base: str) -> _NodeResult:
    try:
        missing = await check.missing(run, run.api.on_node(base))
        return _NodeResult(base, tuple(f"{base}: {text}" for text in missing))
    except BrokerError as e:
        return _NodeResult(base, (), e) if e.transient else _NodeResult(base, (str(e),))
