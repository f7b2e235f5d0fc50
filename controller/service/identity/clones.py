"""Detects clones from presence messages: two clients with one identity. A suspicion is an alert, never more."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.domain.events import CloneSuspected
from controller.domain.identity.clones import TAKEN_OVER, CloneDetector, CloneSuspicion, SessionTakenOver
from controller.ports.broker import AuthStrength, BrokerControl
from controller.ports.errors import BrokerError, StoreError
from controller.ports.log import Log
from controller.ports.messages import IncomingMessage
from controller.service.fleet_state import FleetState
from schemas.topics import TopicError, parse_presence

MAX_PRESENCE: Final = 4096  # bytes of one presence message
MAX_WAITING: Final = 1000  # pending suspicions; more are dropped


class _Ended(BaseModel):
    """The fields of EMQX's message about an ended connection."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    reason: Annotated[str, Field(max_length=256)] = ""
    ipaddress: Annotated[str, Field(max_length=64)] = ""


class CloneMonitor:
    """`observe` is called on the hot path; `run` reports suspicions."""

    def __init__(self, fleet: FleetState, broker: BrokerControl, log: Log) -> None:
        self._fleet = fleet
        self._broker = broker
        self._log = log
        self._detector = CloneDetector()
        self._waiting: deque[CloneSuspicion] = deque()
        self._wake = asyncio.Event()

    def observe(self, messages: Sequence[IncomingMessage]) -> None:
        """Processes presence messages; others are ignored."""
        for message in messages:
            if b"take" not in message.payload and b"discarded" not in message.payload:
                continue  # the usual case
            event = self._read(message)
            suspicion = None if event is None else self._detector.observe(event)
            if suspicion is not None:
                self._enqueue(suspicion)

    def _enqueue(self, suspicion: CloneSuspicion) -> None:
        if len(self._waiting) >= MAX_WAITING:
            return
        self._waiting.append(suspicion)
        self._wake.set()

    def _read(self, message: IncomingMessage) -> SessionTakenOver | None:
        if len(message.payload) > MAX_PRESENCE:
            return None
        try:
            device_id, is_connected = parse_presence(message.topic)
            ended = _Ended.model_validate_json(message.payload)
        except (TopicError, ValidationError):
            return None
        cache = self._fleet.cache
        is_unknown = not cache.is_shared and device_id in cache and cache.peek(device_id) is None
        if is_connected or ended.reason not in TAKEN_OVER or is_unknown:
            return None
        return SessionTakenOver(device_id, self._fleet.clock.now(), ended.ipaddress)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.run_once()

    async def run_once(self) -> None:
        """Reports the pending suspicions."""
        while self._waiting:
            await self._report(self._waiting.popleft())

    async def _report(self, suspicion: CloneSuspicion) -> None:
        if await self._fleet.find(suspicion.device_id) is None:
            return  # it was not in memory, and is no device
        try:
            grade = await self._broker.auth_strength(suspicion.device_id)
        except BrokerError:
            grade = AuthStrength.UNSEEN
        event = CloneSuspected(
            self._fleet.new_id(), suspicion.how, suspicion.peers, suspicion.times, str(getattr(grade, "value", grade))
        )
        try:
            await self._fleet.apply_and_commit(suspicion.device_id, event)
        except StoreError as e:
            self._log("suspicion not recorded", {"device": suspicion.device_id, "error": str(e)})
