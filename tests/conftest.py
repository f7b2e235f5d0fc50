"""What holds for every test: Hypothesis without time limits, marks, and which tests may be skipped."""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # only some tests need the driver
    from tests.support.postgres import PostgresServers

RECORDED_FAKE: Final = "recorded_fake"

# Reasons for which a test may be skipped where nothing else is missing (`--fail-on-skip`).
EXPECTED_SKIPS: Final = (
    "no EMQX with mutual TLS: set CORDON_TEST_EMQX_TLS",  # a licensed broker, see CONTRIBUTING.md
    "the stand-in checks no revocation lists",  # EMQX and mosquitto do
)

# A busy machine is slow, which is no failure.
settings.register_profile("cordon", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cordon")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="fail if a test is skipped for an unexpected reason")


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator["PostgresServers"]:
    """The PostgreSQL servers of this process, by kind."""
    from tests.support.postgres import PostgresServers

    with contextlib.ExitStack() as stack:
        yield PostgresServers(stack)


def pytest_sessionfinish(session: pytest.Session) -> None:
    unexpected = _unexpected_skips(session.config)
    if unexpected and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Names what no real part has shown, and the skipped tests that should have run."""
    passed = [one for one in terminalreporter.stats.get("passed", []) if RECORDED_FAKE in getattr(one, "keywords", {})]
    if passed:
        terminalreporter.write_line(f"{len(passed)} passed with a recorded fake in place of a part of the system")
    for line in _unexpected_skips(config):
        terminalreporter.write_line(f"SKIPPED UNEXPECTEDLY {line}", red=True)


def _unexpected_skips(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("--fail-on-skip"):
        return []
    skipped = [(one.nodeid, str(one.longrepr[2])) for one in reporter.stats.get("skipped", [])]
    expected = re.compile("|".join(map(re.escape, EXPECTED_SKIPS)))
    return [f"{nodeid}: {reason}" for nodeid, reason in skipped if not expected.search(reason)]
