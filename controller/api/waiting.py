"""The query parameter `wait`: the response waits until a decision is proven or in trouble, or the time is over."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Final

from fastapi import Depends, Query, Request

from controller.api.auth import CallerDep
from controller.api.context import ContainmentServices, FleetDep, WaitersDep
from controller.domain.containment.plan import Subject
from controller.domain.containment.proof import DecisionProof, ProofState, device_proof, needs_proof
from controller.domain.transition import StepOutcome
from controller.service.waiting import ProofWatch, WaitEnd, Watch

_OF_USER: Final = str(Subject.user(""))  # begins a subject that is no device
MAX_WAIT: Final = 55.0  # seconds; proxies give up after 60, as a rule
WaitQuery = Annotated[
    float, Query(ge=0, le=MAX_WAIT, description="seconds to wait for the proof, or for the end of a command")
]


class RequestWait:
    """The wait of a request."""

    def __init__(
        self, request: Request, waiters: WaitersDep, fleet: FleetDep, caller: CallerDep, wait: WaitQuery = 0.0
    ) -> None:
        self._request = request
        self._fleet = fleet
        self._waiters = waiters
        self._caller = caller
        self._seconds = wait

    async def until(self, watches: Mapping[str, Watch]) -> WaitEnd:
        """Waits until all watches, by subject, are over, the time is over, or the client has disconnected.

        Meanwhile and when it returns, the devices among the subjects are loaded.
        """
        ids = [subject for subject in watches if not subject.startswith(_OF_USER)]
        with self._fleet.cache.keep(ids):
            await self._fleet.load(ids, fresh=True)
            ended = await self._wait(watches) if self._seconds else WaitEnd.NO
            await self._fleet.load(ids, fresh=True)
        return ended

    async def _wait(self, watches: Mapping[str, Watch]) -> WaitEnd:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._waiters.wait(watches, self._seconds, self._caller), name="api-wait")
            gone = group.create_task(self._disconnected(), name="api-disconnect")
            await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            gone.cancel()
        return WaitEnd.DISCONNECTED if waiting.cancelled() else waiting.result()

    async def _disconnected(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


WaitDep = Annotated[RequestWait, Depends()]


def proof_in_force(containment: ContainmentServices, device_id: str, case_id: str | None = None) -> DecisionProof:
    """The proof for a loaded device; with `case_id`, of the decision that left it in that case ("": in none)."""
    device, queue = containment.fleet.get(device_id), containment.outbox.queue
    case = None if device is None else device.case
    if case_id is None:
        case_id = "" if case is None else case.case_id
    busy, trouble = queue.is_containing(device_id), queue.trouble_of(device_id)
    return device_proof(case_id, case, is_busy=busy, trouble=trouble, unread=queue.unread_of(device_id))


def proof_of(containment: ContainmentServices, outcome: StepOutcome) -> DecisionProof:
    """Returns the proof of a decision about a device."""
    assert outcome.decision is not None  # every operator's request has one
    if not needs_proof(outcome.decision):
        return DecisionProof(ProofState.NOT_REQUIRED)
    case = outcome.device.case
    return proof_in_force(containment, outcome.device.device_id, "" if case is None else case.case_id)


def decision_watch(containment: ContainmentServices, outcome: StepOutcome) -> Watch:
    """Returns the watch for the proof of a decision."""
    return ProofWatch(partial(proof_of, containment, outcome))
