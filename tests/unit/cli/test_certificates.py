"""Serial numbers as people paste them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.certificates import read_serial
from controller.cli.errors import CliError


@given(st.integers(1, 16**40 - 1))
def test_a_serial_number_is_taken_as_other_tools_write_it(number: int) -> None:
    digits = f"{number:x}"
    even = digits.zfill(len(digits) + len(digits) % 2)
    colons = ":".join(even[at : at + 2] for at in range(0, len(even), 2))
    for text in (digits, digits.upper(), even, f"0x{digits}", f"0X{digits}", f"serial={even.upper()}", f" {colons}\n"):
        assert read_serial(text) == digits


@pytest.mark.parametrize("text", ["", "0", "00:00", "edge-1", "../../x", "1" * 41, "-1", "0x"])
def test_what_is_no_serial_number_is_said_to_be_none(text: str) -> None:
    with pytest.raises(CliError, match="no serial number"):
        read_serial(text)
