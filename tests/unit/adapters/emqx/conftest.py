"""Fast limits for every test here, so that a fault is seen in milliseconds."""

import pytest

from controller.adapters.emqx.client.http import HttpLimits


@pytest.fixture
def quick() -> HttpLimits:
    """Time-outs of tenths of a second."""
    return HttpLimits(
        connect_seconds=0.3,
        read_seconds=0.3,
        attempt_seconds=0.6,
        call_seconds=3.0,
        attempts=2,
        wait_first_seconds=0.01,
        wait_most_seconds=0.02,
        wait_jitter_seconds=0.01,
        rest_seconds=30.0,
        max_answer_bytes=10_000,
    )
