from pathlib import Path

import pytest

from device_agent.identity.certificate_child import main


def test_an_unreadable_certificate_ends_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "malformed.pem").write_text("no")
    assert main(str(tmp_path / "malformed.pem")) == 1
    assert main(str(tmp_path / "missing.pem")) == 1
    assert capsys.readouterr().out == ""
