"""What several callers write is merged into what one after the other would have left."""

from controller.adapters.postgres.connection import numbered
from controller.adapters.postgres.statements import BUCKETS, bucket_of


def test_placeholders_are_numbered() -> None:
    assert numbered("SELECT ?, a FROM t WHERE b = ? LIMIT ?") == "SELECT $1, a FROM t WHERE b = $2 LIMIT $3"
    assert numbered("SELECT 1") == "SELECT 1"


def test_a_device_keeps_its_bucket_and_buckets_are_filled_alike() -> None:
    assert (bucket_of("dev-1"), bucket_of("\ud800")) == (bucket_of("dev-1"), bucket_of("\ud800"))
    counts = [0] * BUCKETS
    for number in range(BUCKETS * 100):
        counts[bucket_of(f"dev-{number:06d}")] += 1
    assert min(counts) > 50
    assert max(counts) < 150
