"""What counts as one address, and how listeners share descriptors."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.http_server.admission import (
    MIN_CONNECTIONS,
    AddressCounts,
    ConnectionLimits,
    share_descriptors,
)


def test_an_address_is_counted_as_the_host_that_has_it() -> None:
    counts = AddressCounts(ConnectionLimits(100, 2, (ip_network("192.0.2.0/28"), ip_network("2001:db8:f::/48"))))

    def taken(*addresses: str) -> list[bool]:
        return [counts.take(each) for each in addresses]

    assert taken("2001:db8::1", "2001:db8::2", "2001:db8::3") == [True, True, False], "one /64"
    assert taken("2001:db8:0:1::1") == [True], "another /64"
    assert taken("198.51.100.1", "::ffff:198.51.100.1", "198.51.100.1") == [True, True, False]
    assert taken("fe80::1%eth0", "fe80::2%eth1", "fe80::3") == [True, True, False]
    assert all(taken(*["192.0.2.3", "2001:db8:f::1", "::ffff:192.0.2.3"] * 5)), "proxies"
    counts.release("2001:db8::9")
    assert taken("2001:db8::1") == [True]


@given(
    wanted=st.lists(st.integers(MIN_CONNECTIONS, 20_000), min_size=1, max_size=4), available=st.integers(-500, 70_000)
)
def test_listeners_never_have_more_descriptors_than_there_are(wanted: list[int], available: int) -> None:
    limits = [ConnectionLimits(each, max(1, each // 4)) for each in wanted]
    if available < MIN_CONNECTIONS * len(limits):
        with pytest.raises(ValueError, match="descriptors"):
            share_descriptors(limits, available)
        return
    shares = share_descriptors(limits, available)
    assert sum(each.total for each in shares) <= max(available, MIN_CONNECTIONS * len(limits))
    assert all(MIN_CONNECTIONS <= share.total <= limit.total for share, limit in zip(shares, limits, strict=True))
    assert all(share.per_address <= share.total for share in shares)
    if sum(wanted) <= available:
        assert shares == tuple(limits)
