"""The heap that a queue needs, at the measured points, and the zone that setup, compose file and documentation name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.broker.session_limits import (
    HEAP_PER_MESSAGE,
    QUEUE,
    REPORT_BYTES,
    ZoneLimits,
    controller_zone,
    heap_bytes,
    messages_in_heap,
    zone_limits,
)
from tests.support.compose import ROOT, services

MB = 1024**2
DEFAULT_HEAP = 32 * MB  # of EMQX


def _zone(**mqtt: object) -> dict[str, dict[str, object]]:
    return {
        "mqtt": {"max_inflight": 32, "max_mqueue_len": 1000, "session_expiry_interval": "2h", **mqtt},
        "force_shutdown": {"enable": True, "max_heap_size": "32MB", "max_mailbox_size": 1000},
    }


@pytest.mark.parametrize("died_at", [17_500, 20_000, 22_500])
def test_the_default_heap_does_not_hold_what_was_measured_to_outgrow_it(died_at: int) -> None:
    assert heap_bytes(died_at, 0) > DEFAULT_HEAP
    assert messages_in_heap(DEFAULT_HEAP, 0) < died_at


def test_the_default_heap_holds_the_default_queue() -> None:
    assert heap_bytes(1000, REPORT_BYTES) <= DEFAULT_HEAP
    assert messages_in_heap(DEFAULT_HEAP, 0) > 12_500, "not far from the measured point"


def test_a_queue_of_a_hundred_thousand_needs_512_mb() -> None:
    assert heap_bytes(QUEUE, REPORT_BYTES) == 512 * MB


@given(st.integers(0, 10_000_000), st.integers(0, 65_536))
def test_a_heap_holds_the_queue_that_it_was_made_for(messages: int, size: int) -> None:
    needed = heap_bytes(messages, size)
    assert messages_in_heap(needed, size) >= messages
    assert needed <= max(MB, 2 * messages * (HEAP_PER_MESSAGE + size))
    assert heap_bytes(messages + 1, size) >= needed
    assert heap_bytes(messages, size + 1) >= needed


def test_the_limits_of_a_zone_are_read() -> None:
    limits = zone_limits(_zone())
    assert limits == ZoneLimits(32, 1000, DEFAULT_HEAP, "2h")
    assert not limits.outgrows_heap
    assert zone_limits(_zone(max_mqueue_len=100_000)).outgrows_heap
    assert zone_limits(_zone(max_mqueue_len="infinity")).outgrows_heap
    unlimited = _zone(max_mqueue_len="infinity") | {"force_shutdown": {"enable": False, "max_heap_size": "32MB"}}
    assert not zone_limits(unlimited).outgrows_heap
    with pytest.raises(ValueError, match="not a size"):
        zone_limits(_zone() | {"force_shutdown": {"enable": True, "max_heap_size": "much"}})


def test_compose_file_and_documentation_name_the_same_zone_as_setup() -> None:
    wanted = controller_zone(1000)
    given = services()["emqx1"]["environment"]
    assert {key: given[f"EMQX_ZONES__CORDON__{key.upper().replace('.', '__')}"] for key in wanted} == wanted
    page = (ROOT / "docs" / "deployment.md").read_text()
    for section in ("mqtt", "force_shutdown"):
        block = re.search(rf"zones\.cordon\.{section} \{{(.*?)\}}", page, re.DOTALL)
        assert block is not None
        shown = {f"{section}.{key}": value for key, value in re.findall(r"(\w+) = (\S+)", block[1])}
        assert shown == {key: value for key, value in wanted.items() if key.startswith(section)}
