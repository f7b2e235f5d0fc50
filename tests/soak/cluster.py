"""Several real controllers on one PostgreSQL and a stand-in, each started again whenever it ends, as a service is."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.sealing import KEY_SUFFIX, open_sealer
from controller.adapters.system import SystemClock
from tests.support.certs import Certs
from tests.support.deployment import CONTROLLER_ID, START_SECONDS, Deployment, Timings, make_config, with_name
from tests.support.emqx_calls import PATIENT
from tests.support.operator import OperatorClient
from tests.support.postgres import PostgresServer
from tests.support.postgres_proxy import CommitLosingProxy
from tests.support.processes import ModuleProcess
from tests.support.simulated_fleet import SimulatedFleetProcess
from tests.support.standin import StandInProcess

RESTART_SECONDS: Final = 1.0  # between the end of a controller and its next start
_FIRST_SECONDS: Final = 120.0  # until the leader has written the rules of all, and they tried again to subscribe
_SKEWED: Final = "tests.soak.skewed"


@dataclass
class Member:
    """One controller: `process` is the present run; `skew` seconds are added to its clock from the next start on."""

    name: str
    client_id: str
    config: Path
    proxy: CommitLosingProxy
    process: ModuleProcess | None = None
    operator: OperatorClient | None = None
    skew: float = 0.0
    starts: int = 0
    exits: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def is_ready(self) -> bool:
        """Whether it runs and says that it can work."""
        if self.process is None or self.process.exit_code is not None or self.operator is None:
            return False
        return await self.operator.is_ready()

    def signal(self, number: int) -> None:
        """Sends a signal to the present run, if there is one."""
        if self.process is not None and self.process.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def supervise(self) -> None:
        """Starts it, and again each time it has ended; until cancelled."""
        while True:
            self.starts += 1
            module, more = ("controller.main", []) if not self.skew else (_SKEWED, [str(self.skew)])
            arguments = [*more, "serve", "--config", str(self.config)]
            self.operator = None
            self.process = process = await ModuleProcess.start(self.name, module, arguments, self.config.parent.parent)
            try:
                line = await process.line()  # once it listens; none if it ends before
                if line is not None:
                    self.operator = OperatorClient(line["api"], self.token)
                    while await process.line() is not None:
                        pass
            finally:
                if process.exit_code is None:
                    self.signal(signal.SIGCONT)
                    await process.stop()
            self.exits.append(process.exit_code or 0)
            await asyncio.sleep(RESTART_SECONDS)

    @property
    def token(self) -> str:
        return (self.config.parent / "operator.token").read_text().strip()


@dataclass
class Cluster:
    """The running parts."""

    server: PostgresServer
    database: str
    emqx: StandInProcess
    broker: EmqxBroker
    members: list[Member]
    deployment: Deployment

    async def start_fleet(self, devices: int) -> SimulatedFleetProcess:
        """Connects simulated devices; returns when each has a receipt."""
        return await self.deployment.start_fleet(devices)

    async def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the database.

        Raises:
            psycopg.Error: the server is away.
        """
        return await asyncio.to_thread(self.server.query, self.database, statement)

    async def ready_members(self) -> list[Member]:
        return [member for member in self.members if await member.is_ready()]

    async def until_ready(self, seconds: float = START_SECONDS) -> None:
        """Waits until every controller is ready.

        Raises:
            AssertionError: one is not in time; with its log.
        """
        try:
            async with asyncio.timeout(seconds):
                while len(await self.ready_members()) < len(self.members):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            ready = await self.ready_members()
            late = next((one for one in self.members if one not in ready), None)
            if late is None:
                return
            log = late.process.log_tail() if late.process else ""
            raise AssertionError(f"{late.name} is not ready within {seconds:g} s, exits {late.exits}:\n{log}") from None


@contextlib.asynccontextmanager
async def open_cluster(
    folder: Path, server: PostgresServer, emqx: StandInProcess, certs: Certs, controllers: int, timings: Timings
) -> AsyncIterator[Cluster]:
    """Ready controllers, each with a connection to the database that can lose the answer of a commit."""
    database = server.new_database()
    first = await make_config(folder, emqx, certs, timings=timings, store_url=server.url(database))
    async with contextlib.AsyncExitStack() as stack:
        members: list[Member] = []
        for number in range(1, controllers + 1):
            proxy = await stack.enter_async_context(CommitLosingProxy(server.port))
            members.append(_member(first, number, certs, proxy, server, database))
        broker = await stack.enter_async_context(
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT)
        )
        running = [asyncio.get_running_loop().create_task(member.supervise()) for member in members]

        async def end() -> None:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

        stack.push_async_callback(end)
        nothing: Any = None  # the deployment is used for its fleet only
        deployment = Deployment(folder, first, emqx, certs, timings, broker, stack, nothing, nothing)
        cluster = Cluster(server, database, emqx, broker, members, deployment)
        await cluster.until_ready(_FIRST_SECONDS)
        yield cluster


def _member(
    first: Path, number: int, certs: Certs, proxy: CommitLosingProxy, server: PostgresServer, database: str
) -> Member:
    """The first has the folder that `cordon init` made, others a copy with a name and a certificate of their own."""
    home, name = first.parent, f"c{number}"
    text = first.read_text()
    open_sealer(home / f"cordon{KEY_SUFFIX}")  # the same key on every host
    if number > 1:
        copied = home.with_name(f"{home.name}-{number}")
        shutil.copytree(home, copied)
        text = with_name(text.replace(str(home), str(copied)), certs, name, "c1")
        home = copied
    config = home / "cordon.toml"
    config.write_text(text.replace(server.url(database), server.url(database, port=proxy.port)))
    return Member(name, f"{CONTROLLER_ID}-{name}", config, proxy)
