"""EMQX as the port's broker: the sequences and settings behind one object."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import controller.adapters.emqx.setup as wiring
from controller.adapters.emqx import containment, letting_out
from controller.adapters.emqx.api import EmqxApi
from controller.adapters.emqx.containment import Scene
from controller.adapters.emqx.grading import Grading
from controller.adapters.emqx.http import EmqxHttp, HttpLimits
from controller.adapters.emqx.readback import Nodes
from controller.adapters.emqx.setup import SetupSnapshot
from controller.ports.broker import Ban, BrokerControl, Change, Grade, KeepRules, Proof, Rules
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError


class EmqxBroker(BrokerControl):
    """Contains, reads back and releases over EMQX's HTTP API."""

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        """Use these calls; `open_emqx` builds both."""
        self.api = api
        self._clock = clock
        self._nodes = Nodes(clock)
        self._grading = Grading(api, clock)

    async def restrict(self, client_id: str, keep: KeepRules) -> Proof:
        """See the port."""
        return await containment.restrict(self._scene(client_id), keep)

    async def isolate(self, client_id: str, keep: KeepRules, *, case: str, reason: str, until: float | None) -> Proof:
        """See the port."""
        return await containment.isolate(self._scene(client_id), keep, case=case, reason=reason, until=until)

    async def end_isolation(self, client_id: str) -> Proof:
        """See the port."""
        return await letting_out.end_isolation(self._scene(client_id))

    async def release(self, client_id: str, kept: Rules) -> Proof:
        """See the port."""
        return await letting_out.release(self._scene(client_id), kept)

    async def grade(self, client_id: str) -> Grade:
        """See the port."""
        return await self._grading.grade(client_id)

    async def has_session(self, client_id: str) -> bool:
        """See the port."""
        return await self.api.client(client_id) is not None

    def bans(self) -> AsyncIterator[Ban]:
        """See the port."""
        return self.api.bans()

    def client_rules(self) -> AsyncIterator[tuple[str, Rules]]:
        """See the port."""
        return self.api.client_rules()

    async def ping(self) -> Sequence[tuple[str, bool, str]]:
        """See the port."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ping(base)) for base in self.api.addresses]
        return [task.result() for task in tasks]

    async def plan_setup(self, controller_id: str) -> Sequence[Change]:
        """See the port."""
        return [todo.change for todo in wiring.plan(await self.snapshot(controller_id))]

    async def apply_setup(self, controller_id: str, *, safe_only: bool = False) -> Sequence[Change]:
        """See the port."""
        todos = wiring.plan(await self.snapshot(controller_id))
        return await wiring.apply(self.api, tuple(one for one in todos if not (safe_only and one.change.danger)))

    async def snapshot(self, controller_id: str) -> SetupSnapshot:
        """The settings that setup may change, as they are now."""
        return await wiring.snapshot(self.api, controller_id)

    async def restore(self, before: SetupSnapshot) -> Sequence[str]:
        """Take a setup back; what had to be left, in words."""
        return await wiring.restore(self.api, before)

    async def _ping(self, base: str) -> tuple[str, bool, str]:
        here = self.api.at(base)
        try:
            rows = await here.nodes()
            await self._nodes.learn(here, base)
        except BrokerError as e:
            return base, False, str(e)
        name = self._nodes.name(base)
        mine = next((row for row in rows if row.node == name), None)
        return base, True, "" if mine is None else f"{mine.edition} {mine.version}".strip()

    def _scene(self, client_id: str) -> Scene:
        return Scene.of(self.api, self._nodes, self._clock, client_id)


@asynccontextmanager
async def open_emqx(
    addresses: Sequence[str],
    key: str,
    secret: str,
    *,
    clock: Clock,
    limits: HttpLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[EmqxBroker]:
    """The broker behind these API addresses (base URLs without a path).

    Raises:
        ValueError: an address that is none.
    """
    async with EmqxHttp(addresses, key, secret, clock=clock, limits=limits, tls=tls) as http:
        yield EmqxBroker(EmqxApi(http), clock)
