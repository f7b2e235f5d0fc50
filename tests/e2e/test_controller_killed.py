"""A controller that is killed during a containment completes it after its restart."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.ports.broker_tables import restriction
from tests.e2e.closing_proxy import ClosingProxy
from tests.support.certs import Certs
from tests.support.deployment import WAIT_SECONDS, Deployment, open_deployment
from tests.support.emqx_calls import ban_of, rules_of
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

CONTAINED = "dev-002"


@contextlib.asynccontextmanager
async def _behind_proxies(
    folder: Path, emqx: StandInProcess, certs: Certs
) -> AsyncIterator[tuple[Deployment, list[ClosingProxy]]]:
    async with contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(ClosingProxy(url)) for url in emqx.api_urls]
        api = [proxy.url for proxy in proxies]
        yield await stack.enter_async_context(open_deployment(folder, emqx, certs, api=api)), proxies


async def _until_proven(deployment: Deployment, level: str) -> None:
    async def is_proven() -> bool:
        row = (await deployment.operator.devices(CONTAINED))[CONTAINED]
        return bool(row["level"] == level and row["case"]["proven"])

    await eventually(is_proven, f"{CONTAINED} is {level}, and proven so")


@pytest.mark.parametrize(
    ("last", "is_cut"),
    [(b"POST /api/v5/banned", True), (b"GET /api/v5/clients/dev-002", False)],
    ids=["ban", "nothing"],
)
async def test_isolation_is_completed_after_kill_9(
    tmp_path: Path, emqx: StandInProcess, certs: Certs, last: bytes, is_cut: bool
) -> None:
    """Killed right after the ban was sent, or before anything was: in the end the device is isolated."""
    async with _behind_proxies(tmp_path, emqx, certs) as (deployment, proxies):
        fleet = await deployment.start_fleet(3)
        observed = fleet.observations
        begun = time.monotonic()
        for proxy in proxies:
            proxy.close_after(last)
        await fleet.change(CONTAINED, {"open_port": 2375})
        await observed.wait_for(CONTAINED, "receipt", seconds=WAIT_SECONDS, since=begun, verdict="accepted")
        await eventually(lambda: any(proxy.is_closed for proxy in proxies), "the last call")
        if is_cut:
            await observed.wait_for(CONTAINED, "disconnected", seconds=WAIT_SECONDS, since=begun, code=152)
        await deployment.kill_controller()

        api = deployment.broker.api
        assert await rules_of(api, CONTAINED) == ()
        for proxy in proxies:
            proxy.open()
        await deployment.start_controller()
        await _until_proven(deployment, "isolated")

        assert await rules_of(api, CONTAINED) == restriction(CONTAINED)
        ban = await ban_of(api, CONTAINED)
        assert ban is not None
        assert ban.is_ours
        await observed.wait_for(CONTAINED, "refused", seconds=WAIT_SECONDS, since=begun, code=138)
        levels = {device: row["level"] for device, row in (await deployment.operator.devices("dev-")).items()}
        assert levels == {"dev-001": "none", CONTAINED: "isolated", "dev-003": "none"}


async def test_restriction_is_completed_after_kill_9(tmp_path: Path, emqx: StandInProcess, certs: Certs) -> None:
    """Killed between writing the rules and clearing the broker's cache, by which the device could still publish."""
    async with _behind_proxies(tmp_path, emqx, certs) as (deployment, proxies):
        fleet = await deployment.start_fleet(3)
        for proxy in proxies:
            proxy.close_after(b"PUT /api/v5/authorization/sources/built_in_database/rules/clients/dev-002")
        # No command repairs this process, so the restriction stays.
        await fleet.change(CONTAINED, {"open_port": 23, "process": "not-telnetd"})

        async def has_rules() -> bool:
            return await rules_of(deployment.broker.api, CONTAINED) == restriction(CONTAINED)

        await eventually(has_rules, "the rules of a restriction")
        await deployment.kill_controller()
        for proxy in proxies:
            proxy.open()
        await deployment.start_controller()
        await _until_proven(deployment, "restricted")
        timeline = (await deployment.operator.device(CONTAINED))["timeline"]
        assert [line["kind"] for line in timeline].count(AuditKind.CONTAINMENT_DECIDED) == 1
