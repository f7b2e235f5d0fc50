"""Devices that violate a policy and repair it again and again, and what must be true of each step and at the end."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from controller.ports.broker_tables import restriction
from tests.soak.cluster import Cluster
from tests.support.emqx_calls import clients_with_rules, rules_of
from tests.support.simulated_fleet import SimulatedFleetProcess

STEP_SECONDS: Final = 180.0  # for a receipt, and for what follows from it; longer than any fault lasts
SLOW_SECONDS: Final = 10.0  # of a step that is told
_POLL: Final = 0.25  # seconds
_VIOLATION: Final = {"open_port": 23, "process": "not-telnetd"}  # no command repairs it
_REPAIR: Final = {"close_port": 23}
_STEPS: Final = ("containment.decided", "containment.release_decided")
_FAILURES: Final = (psycopg.Error, OSError)


@dataclass
class Load:
    """`quiet` devices only send heartbeats; each of the others goes through `rounds` of its own."""

    cluster: Cluster
    fleet: SimulatedFleetProcess
    quiet: int = 2
    is_ending: bool = False
    rounds: Counter[str] = field(default_factory=Counter)
    receipts: int = 0
    slowest: float = 0.0  # seconds from a violation to the rules that contain the device
    _told: dict[str, int] = field(default_factory=dict)  # the highest sequence number of a receipt
    _ends: dict[int, tuple[int, int]] = field(default_factory=dict)  # of fenced runs: commits, end of the chain

    async def run(self) -> None:
        """Until `is_ending` and each device has ended its round.

        Raises:
            AssertionError: something is not as it must be.
        """
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch())
            active = self.fleet.device_ids[self.quiet :]
            rounds = [group.create_task(self._rounds(device, number)) for number, device in enumerate(active)]
            await asyncio.wait(rounds)
            watching.cancel()

    async def _rounds(self, device: str, number: int) -> None:
        chance = random.Random(number)
        while not self.is_ending:
            begun = time.monotonic()
            await self._step(device, _VIOLATION, "restricted")
            self.slowest = max(self.slowest, time.monotonic() - begun)
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            await self._step(device, _REPAIR, "none")
            self.rounds[device] += 1
            await asyncio.sleep(chance.uniform(0.0, 2.0))

    async def _step(self, device: str, change: dict[str, Any], level: str) -> None:
        """Lets the device report a change; a receipt comes, then the level, then the rules at the broker."""
        begun = time.monotonic()
        await self.fleet.change(device, change)
        observed = self.fleet.observations
        await observed.wait_for(device, "receipt", seconds=STEP_SECONDS, since=begun, verdict="accepted")
        answered = time.monotonic() - begun
        wanted = restriction(device) if level == "restricted" else ()
        found: object = None
        while time.monotonic() < begun + STEP_SECONDS:
            try:
                rules = await rules_of(self.cluster.broker.api, device)
                levels = await self.cluster.query(f"SELECT level, state FROM devices WHERE device_id = '{device}'")
                found = (levels, rules)
                if levels and levels[0][0] == level and rules == wanted:
                    if (took := time.monotonic() - begun) > SLOW_SECONDS:
                        print(
                            f"    {device} {level}: receipt after {answered:.1f} s, rules after {took:.1f} s",
                            flush=True,
                        )
                    return
            except _FAILURES as error:
                found = error
            await asyncio.sleep(_POLL)
        raise AssertionError(f"{device} reported {change}, is not {level} after {STEP_SECONDS:g} s: {found}")

    async def _watch(self) -> None:
        """Nothing that a receipt was sent for is ever missing, and no run that was fenced changes anything."""
        while True:
            receipts = 0
            for device in self.fleet.device_ids:
                told = self.fleet.observations.of(device, "receipt", verdict="accepted")
                seqs = [int(one.data["seq"]) for one in told]
                self._told[device] = max(seqs, default=0)
                receipts += len(seqs)
            self.receipts = receipts
            try:
                await self.check_stored()
                await self._check_fenced()
            except _FAILURES:
                pass
            await asyncio.sleep(_POLL)

    async def check_stored(self) -> None:
        """Every report that a device has a receipt for is stored, or one after it.

        Raises:
            AssertionError: one is lost.
            psycopg.Error: the server is away.
        """
        told = dict(self._told)
        stored = dict(await self.cluster.query("SELECT device_id, report_seq FROM contacts"))
        lost = {device: (seq, stored.get(device)) for device, seq in told.items() if stored.get(device, 0) < seq}
        assert not lost, f"acknowledged reports are lost (acknowledged, stored): {lost}"

    async def _check_fenced(self) -> None:
        rows = await self.cluster.query("SELECT writer, commits, chain_seq FROM writers WHERE fenced AND writer > 0")
        for writer, commits, chain_seq in rows:
            before = self._ends.setdefault(writer, (commits, chain_seq))
            assert before == (commits, chain_seq), f"run {writer} was fenced at {before} and is at {commits, chain_seq}"

    async def check_end(self) -> None:
        """Every violation was contained once and released once, and nothing else was.

        Raises:
            AssertionError: otherwise.
        """
        await self.check_stored()
        await self._check_fenced()
        await self._until_nothing_is_left()
        held = set(await clients_with_rules(self.cluster.broker.api)).intersection(self.fleet.device_ids)
        assert not held, f"devices that are not contained have rules at the broker: {held}"
        levels = dict(await self.cluster.query("SELECT device_id, level FROM devices"))
        assert levels == dict.fromkeys(self.fleet.device_ids, "none")
        kinds = ", ".join(f"'{kind}'" for kind in _STEPS)
        lines = await self.cluster.query(f"SELECT device_id, kind FROM audit WHERE kind IN ({kinds}) ORDER BY at, id")
        for device in self.fleet.device_ids:
            steps = [kind for of, kind in lines if of == device]
            assert steps == list(_STEPS) * self.rounds[device], f"{device}, {self.rounds[device]} rounds: {steps}"

    async def _until_nothing_is_left(self) -> None:
        """Effects under way end."""
        end = time.monotonic() + STEP_SECONDS
        while (left := await self.cluster.query("SELECT effect_id, kind FROM outbox")) and time.monotonic() < end:
            await asyncio.sleep(_POLL)
        assert not left, f"effects are not done: {left}"
