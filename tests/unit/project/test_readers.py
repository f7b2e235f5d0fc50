"""Every reader of the agent is in the table of the property tests."""

from pathlib import Path

import device_agent.collectors
from tests.property.readers import FINDINGS, NO_READER, OUTPUTS


def test_every_reader_has_a_finding() -> None:
    folder = Path(device_agent.collectors.__file__).parent
    modules = {
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in folder.rglob("*.py")
        if path.name != "__init__.py"
    }
    read = {reader for finding in FINDINGS.values() for reader in finding.readers} | {
        output.reader for output in OUTPUTS.values()
    }
    assert modules - read - NO_READER == set(), "name their findings in tests/property/readers.py"
    assert (read | NO_READER) - modules == set()
    assert not read & NO_READER
