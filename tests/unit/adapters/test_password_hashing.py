"""argon2id in one thread, with a bounded queue."""

import asyncio

import pytest
from argon2 import PasswordHasher, extract_parameters

from controller.adapters.password_hashing import MAX_WAITING, MEMORY, PASSES, Argon2Hasher
from controller.ports.accounts import TooManyLoginsError

CHEAP = PasswordHasher(1, 8, 1)


async def test_what_is_hashed_matches_and_says_with_what() -> None:
    hasher = Argon2Hasher()
    phc = await hasher.hashed("pa\u0308ssword of mine")
    found = extract_parameters(phc)
    assert (found.type.name, found.memory_cost, found.time_cost, found.parallelism) == ("ID", MEMORY, PASSES, 1)
    assert await hasher.matches("p\u00e4ssword of mine", phc)
    assert not await hasher.matches("password of mine", phc)
    assert not hasher.is_outdated(phc)
    hasher.close()


@pytest.mark.parametrize("phc", ["", "$argon2id$nonsense", CHEAP.hash("x")], ids=["none", "malformed", "cheaper"])
async def test_each_answer_costs_one_hash(phc: str) -> None:
    hasher = Argon2Hasher()
    assert not await hasher.matches("y\ud800", phc)
    assert hasher.made == 1
    assert hasher.is_outdated(phc)
    hasher.close()


async def test_beyond_the_queue_nothing_is_hashed() -> None:
    hasher, phc = Argon2Hasher(), CHEAP.hash("x")
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(hasher.matches("x", phc)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyLoginsError):
            await hasher.matches("x", "")
    assert all(task.result() for task in waiting)
    assert hasher.made == MAX_WAITING
    await asyncio.sleep(0)
    assert await hasher.matches("x", phc), "there is room again"
    hasher.close()
