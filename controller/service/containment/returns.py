"""Isolated devices that come back under another client id, recognised by their user name.

Only a user name that equals the id of an isolated device is taken for its own: so it is where names are bound to
devices, and with a certificate, whose common name is the id. Which other name a device has is not stored.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import BrokerControl, MqttSession
from controller.ports.errors import BrokerError, ControllerError
from controller.ports.fleet_queries import DeviceFilter, DeviceQuery
from controller.ports.log import Log
from controller.ports.messages import IncomingMessage
from controller.service.containment.users import UserContainments
from controller.service.fleet_state import FleetState

MAX_SESSIONS: Final = 10  # of one user name; more are no single device that came back
MAX_CHECKS: Final = 20  # isolated devices that one comparison asks the broker about: each costs a request
MAX_NAMED: Final = 1000  # names that wait to be looked at
_MAX_PRESENCE: Final = 4096  # bytes of one presence message
_MAX_ID: Final = 80  # characters of a foreign client id in a text
_BY: Final = "cordon"  # operators' cases name a person
_USERNAME: Final = re.compile(rb'"username":\s*"([^"\\]+)"')


class ReturnMonitor:
    """Contains the user name of an isolated device while other clients use it; the case ends with the isolation.

    `observe` is called on the hot path; `run` asks the broker, which alone tells whether a client proved its name.
    """

    def __init__(
        self, users: UserContainments, broker: BrokerControl, fleet: FleetState, every: float, log: Log
    ) -> None:
        """`every`: seconds between comparisons."""
        self._users = users
        self._broker = broker
        self._fleet = fleet
        self._every = every
        self._log = log
        self._wake = asyncio.Event()
        self._named: set[str] = set()  # devices that may be isolated, and whose user name connected
        self._told: dict[str, tuple[str, str]] = {}  # by device: its case, and what was decided about the return
        self._last = ""  # the device that the last comparison ended with

    def observe(self, messages: Sequence[IncomingMessage]) -> None:
        """Processes presence messages; only those that have the id of an isolated device as user name count."""
        for message in messages:
            if not message.topic.endswith("/connected") or len(message.payload) > _MAX_PRESENCE:
                continue
            found = _USERNAME.search(message.payload)
            if found is None or len(self._named) >= MAX_NAMED:
                continue
            name = found[1].decode(errors="replace")
            cache, device = self._fleet.cache, self._fleet.cache.peek(name)
            is_certain = name in cache and not cache.is_shared
            if not is_certain or (device is not None and device.level is ContainmentLevel.ISOLATED):
                self._named.add(name)  # the row tells
                self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.compare()
            try:
                async with asyncio.timeout(self._every):
                    while True:
                        await self._wake.wait()
                        await self.run_once()
            except TimeoutError:
                continue

    async def run_once(self) -> None:
        """Asks the broker about the devices whose names connected."""
        self._wake.clear()
        while self._named:
            named, self._named = self._named, set()
            for device in await self._fleet.find_all(named):
                if device.level is ContainmentLevel.ISOLATED:
                    await self._check(device.device_id)

    async def compare(self) -> None:
        """Ends what is over, and asks about the next isolated devices: presence messages may be lost or disabled."""
        await self._follow()
        for device_id in await self._next_isolated():
            self._last = device_id
            await self._check(device_id)

    async def _next_isolated(self) -> list[str]:
        """The next isolated devices by id after the last one, or the first ones after the end."""
        fleet, last = self._fleet, self._last
        query = DeviceQuery(DeviceFilter(level=ContainmentLevel.ISOLATED), limit=MAX_CHECKS, after=(last, last))
        found = (await fleet.queries.devices(query)).devices
        if not found and last:
            found = (await fleet.queries.devices(replace(query, after=None))).devices
        return [device.device_id for device in found]

    async def _isolated(self, device_id: str) -> Device | None:
        device = await self._fleet.find(device_id)
        return device if device is not None and device.level is ContainmentLevel.ISOLATED else None

    async def _follow(self) -> None:
        """Makes each of these user cases as weak as the case of its device; operators' cases are theirs."""
        for device_id in list(self._told):
            if await self._isolated(device_id) is None:
                del self._told[device_id]
        for name in [name for name, case in self._users.cases.items() if case.by == _BY]:
            device = await self._fleet.find(name)
            level = ContainmentLevel.NONE if device is None or device.case is None else device.case.level
            try:
                await self._weaken(name, level)
            except ControllerError as e:
                self._log("user not released", {"user": name, "error": str(e)})

    async def _weaken(self, name: str, level: ContainmentLevel) -> None:
        while (case := self._users.cases.get(name)) is not None and case.by == _BY and case.level.rank > level.rank:
            await self._users.release(name, by=_BY, reason=f"the isolation of device {name} ended")

    async def _check(self, device_id: str) -> None:
        if await self._isolated(device_id) is None:
            return
        try:
            sessions = await self._users.broker.sessions(device_id)
            others = [one for one in sessions if one.client_id != device_id]
            device = await self._isolated(device_id)
            if device is not None and await self._is_proven(others):
                await self._decide(device, others)
        except ControllerError as e:
            self._log("return of an isolated device not checked", {"device": device_id, "error": str(e)})

    async def _is_proven(self, others: Sequence[MqttSession]) -> bool:
        """Whether one of the clients proved its user name; anybody can claim the name of an isolated device."""
        for other in [one for one in others if one.is_connected][:MAX_SESSIONS]:
            if await self._broker.proves_username(other.client_id):
                return True
        return False

    async def _decide(self, device: Device, others: Sequence[MqttSession]) -> None:
        name, case = device.device_id, device.case
        before = self._users.cases.get(name)
        why = await self._reason_against(device, others)
        case_id = case.case_id if case is not None else ""
        if before is not None or self._told.get(name) == (case_id, why):
            return  # in force already, decided by an operator, or released by one
        if not why:
            client = ascii(next(one.client_id for one in others if one.is_connected))[:_MAX_ID]
            reason = f"device {name} is isolated, and client {client} connected with its user name"
            try:
                await self._users.contain(name, ContainmentLevel.ISOLATED, by=_BY, reason=reason, hold=None)
            except BrokerError:
                raise
            except ControllerError as e:
                why = str(e)
        self._told[name] = (case_id, why)
        clients = [ascii(one.client_id)[:_MAX_ID] for one in others[:MAX_SESSIONS]]
        detail = {"username": name, "clients": clients, "contained": not why, "why": why}
        await self._fleet.record(AuditEntry(AuditKind.DEVICE_RETURNED, name, _BY, case_id, detail, alert=True))

    async def _reason_against(self, device: Device, others: Sequence[MqttSession]) -> str:
        """Returns why the user name is not contained, empty if it is."""
        if device.device_id in self._fleet.own.usernames:
            return "it is the user name of a controller"
        if protection := self._fleet.guards.protection.protection_reason(device):
            return f"the device is protected: {protection}"
        shared = await self._fleet.find_all([one.client_id for one in others])
        healthy = [one.device_id for one in shared if one.level is not ContainmentLevel.ISOLATED]
        if healthy:
            return f"device {min(healthy)} uses it too"
        if len(others) > MAX_SESSIONS:
            return f"it has more than {MAX_SESSIONS} other sessions"
        return ""
