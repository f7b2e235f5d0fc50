"""What the summary of a test run has to say beside passed and failed."""

import pytest
from _pytest.terminal import TerminalReporter

_MARK = "recorded_fake"


def pytest_configure(config: pytest.Config) -> None:
    """Marks of our own."""
    config.addinivalue_line("markers", f"{_MARK}: a part of the system is played by a recorded fake, not the real one")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Count what was shown with a recorded fake only, so that nobody takes it for the real thing."""
    passed = [one for one in terminalreporter.stats.get("passed", []) if _MARK in getattr(one, "keywords", {})]
    if passed:
        terminalreporter.write_line(f"{len(passed)} passed with a recorded fake in place of a part of the system")
