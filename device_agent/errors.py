"""Errors of the agent. The text of an `AgentError` is what users see, with a documented exit status."""

from enum import IntEnum


class FactsUnavailableError(Exception):
    """Facts cannot be determined on this device; the text is the reason in the report."""


class NotApplicableError(Exception):
    """The section does not apply to this device; the text is the reason."""


class StoppedError(Exception):
    """The agent stops: a running command stays in the journal and continues at the next start."""


class ExitCode(IntEnum):
    """The exit status of the program."""

    OK = 0
    FAILED = 1
    """Something failed while running."""
    USAGE = 2
    """The command line or the configuration is wrong: a restart without a change is pointless."""
    STATE = 3
    """The state folder cannot be read, written or locked, so that replayed commands could not be detected."""


class AgentError(Exception):
    """An error that the program reports in one line."""

    exit_code = ExitCode.FAILED


class SettingsError(AgentError):
    """The configuration is wrong; the text names file and key."""

    exit_code = ExitCode.USAGE


class JournalError(AgentError):
    """A file of the state folder cannot be written or read."""

    exit_code = ExitCode.STATE
