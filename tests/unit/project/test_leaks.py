"""Nothing of the machine it was written on gets into the project."""

import re
from typing import Final

import pytest

from tests.support.project_tree import ROOT, name_of, text_files

_TRACES: Final = {
    # A home or work folder of somebody; `\w` before it is a variable or a longer path of ours.
    "a machine's path": re.compile(r"(?<![\w})./-])/(?:root|work|Users|home/\w+|private)/"),
    "a package index": re.compile(
        r"--(?:extra-)?index-url|--find-links|pypi\.org/simple|\.pkg\.dev\b|artifactory", re.IGNORECASE
    ),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}"),
}


@pytest.mark.parametrize("trace", _TRACES)
def test_no_trace_of_a_machine(trace: str) -> None:
    files = [path for path in text_files() if path != ROOT / "tests" / "unit" / "project" / "test_leaks.py"]
    assert len(files) > 100
    found = [
        f"{name_of(path)}:{number} {line.strip()[:100]}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if _TRACES[trace].search(line)
    ]
    assert found == []


def test_the_search_knows_what_it_looks_for() -> None:
    assert _TRACES["a machine's path"].search("see /home/someone/notes")
    assert not _TRACES["a machine's path"].search("$here/root/usr/sbin")
    assert _TRACES["a package index"].search("pip install --index-url https://example/simple")


def test_every_version_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*( ; [^@]+)?", line)] == []
