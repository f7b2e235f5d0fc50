"""`cordon knowledge` against the API on a real socket: shown, signed, imported; and a file for a report."""

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli.app import run_safely
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer
from tests.support.knowledge import TODAY
from tests.support.playbook import policies, rule
from tests.support.reports import full

Cordon = Callable[..., str]


def written(path: Path, version: int, **entry: Any) -> Path:
    known = {
        "kind": "os",
        "name": "debian",
        "version": "12",
        "ends": "2028-06-30",
        "source": "https://example.org/\u2028life",
        "verified": str(TODAY),
        **entry,
    }
    content = {"knowledge": "support", "version": version, "issued": str(TODAY), "entries": [known]}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def cordon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Cordon]:
    """Runs a command for a controller with a rule about the distribution's support; returns its output."""
    with ApiServer(tmp_path / "c.db", {}, policy_set=policies(rule("supported", check="os_supported"))) as server:

        def call(*argv: str, status: int = 0) -> str:
            capsys.readouterr()
            code = run_safely([*argv, "--url", server.url, "--token", f"command:echo {TOKEN}"])
            output = capsys.readouterr()
            assert code == status, output.out + output.err
            return output.out + output.err

        yield call


def test_knowledge_is_shown_and_replaced_by_a_newer_file(cordon: Cordon, tmp_path: Path) -> None:
    assert "version 1 of 2026-11-30, shipped" in cordon("knowledge", "show")
    file = written(tmp_path / "k.json", 5, good_for=10)
    assert "in force: version 5 of 2026-11-30, 1 entries, without a signature" in cordon(
        "knowledge", "import", str(file)
    )
    text = cordon("knowledge", "show")
    about, until, verified, *others = (cell.strip() for cell in text.splitlines()[1].split("  ") if cell)
    assert (about, until, verified) == ("debian 12", "2028-06-30", "2026-11-30")
    assert others == ["46d", "2026-12-10 (too old)", "https://example.org/\\u2028life", "p/supported"]
    assert "imported by operator:tests, not signed" in text
    assert "1 entries are too old" in text
    (item,) = json.loads(cordon("knowledge", "show", "-o", "json"))["items"]
    assert (item["too_old"], item["rules"]) == (True, ["p/supported"])
    older = written(tmp_path / "older.json", 4)
    assert "is not newer than version 5" in cordon("knowledge", "import", str(older), status=1)
    assert "version 4" in cordon("knowledge", "import", str(older), "--force")


def test_a_signed_file_is_refused_where_no_key_can_check_it(
    cordon: Cordon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, secret = written(tmp_path / "k.json", 5), tmp_path / "passphrase"
    secret.write_text("a long passphrase")
    secret.chmod(0o600)
    key = ["--passphrase-file", str(secret)]
    assert run_safely(["keys", "new", str(tmp_path / "key.pem"), *key]) == 0
    public = capsys.readouterr().out.strip()
    assert run_safely(["knowledge", "sign", str(file), "--key", str(tmp_path / "key.pem"), *key]) == 0
    assert capsys.readouterr().out.strip() == public
    beside = tmp_path / "k.json.sig"
    assert stat.S_ISREG(beside.stat().st_mode)
    assert "is not among [policy] knowledge_keys" in cordon("knowledge", "import", str(file), status=1)
    assert run_safely(["knowledge", "sign", str(file), "--key", str(tmp_path / "key.pem"), *key]) == 2
    beside.write_text("[]")
    assert "not a signature made by" in cordon("knowledge", "import", str(file), status=2)


@pytest.mark.parametrize("content", [b"\xff", b" " * (256 * 1024 + 1)])
def test_what_is_no_text_of_that_size_is_not_sent(cordon: Cordon, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k.json").write_bytes(content)
    cordon("knowledge", "import", str(tmp_path / "k.json"), status=2)
    cordon("knowledge", "import", str(tmp_path / "none.json"), status=2)


def test_a_report_is_explained_by_a_knowledge_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    report.write_bytes(full("edge-1", 1))
    ended = written(tmp_path / "k.json", 5, ends="2026-01-01", verified="2026-01-02", good_for=3660)
    assert run_safely(["policy", "explain", "--report", str(report), "--knowledge", str(ended)]) == 0
    text = capsys.readouterr().out
    assert "fail          starter/os-supported" in text
    assert "by debian 12: fixes until 2026-01-01 (verified 2026-01-02, good until " in text
    assert run_safely(["policy", "test", "starter", str(report), "--knowledge", str(ended)]) == 1
    assert run_safely(["policy", "explain", "--report", str(report), "--knowledge", str(report)]) != 0
    assert "not a knowledge file" in capsys.readouterr().err
    assert run_safely(["policy", "explain", "edge-1", "--knowledge", str(ended)]) == 2
