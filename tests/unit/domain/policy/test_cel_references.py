"""Names in a serialized CEL expression, and bytes that are something else."""

import pytest

from controller.domain.policy.cel import referenced_names
from tests.support.playbook import language

TYPE = b"type.googleapis.com/cel.expr.CheckedExpr"


def wrapped(body: bytes) -> bytes:
    return b"\x0a" + bytes([len(TYPE)]) + TYPE + b"\x12" + bytes([len(body)]) + body


def test_names_of_a_compiled_expression_are_read() -> None:
    compiled = language().compile('older(os_id, "1", "deb") && firewall_active').compiled
    assert referenced_names(compiled.serialize()) >= {"os_id", "firewall_active"}


def test_fields_of_fixed_size_are_skipped() -> None:
    reference = b"\x0a\x02on"
    entry = b"\x08\x07\x12" + bytes([len(reference)]) + reference
    fixed = b"\x11" + bytes(8) + b"\x1d" + bytes(4)
    assert referenced_names(wrapped(fixed + b"\x12" + bytes([len(entry)]) + entry)) == {"on"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x0a\x02on", "not a checked CEL expression"),
        (wrapped(b"\x0b"), "unknown wire type 3"),
        (wrapped(b"\x12\xff"), "truncated"),
    ],
)
def test_other_bytes_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        referenced_names(raw)
