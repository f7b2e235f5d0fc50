"""Two controllers on one PostgreSQL under load, with faults one after the other; `make soak-ha` does many more."""

import pytest

from tests.soak.ha import run

FAULTS = 10


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_nothing_acknowledged_is_lost_and_nothing_is_contained_wrongly() -> None:
    shown = await run(FAULTS, 2, None, seed=1)
    assert shown.kills == FAULTS
    assert shown.containments > 0
    assert shown.receipts > 2 * shown.containments
