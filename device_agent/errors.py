"""The errors a user of the agent sees: one clear line and a documented exit status, never a traceback."""

from enum import IntEnum


class FactsUnavailableError(Exception):
    """The facts cannot be found out here; the text is the reason that the report carries."""


class NotApplicableError(Exception):
    """The section has no meaning on this device; the text is the reason."""


class ExitCode(IntEnum):
    """What the program's end means to whatever started it."""

    OK = 0
    FAILED = 1
    """Something broke while running; the line on standard error says what."""
    USAGE = 2
    """The command line or the configuration is wrong: starting again without a change is pointless."""
    STATE = 3
    """The state folder cannot be read, written or locked: commands could not be guarded."""


class AgentError(Exception):
    """An error with a sentence for whoever runs the agent."""

    exit_code = ExitCode.FAILED


class SettingsError(AgentError):
    """The configuration is wrong; the text names file and key."""

    exit_code = ExitCode.USAGE


class JournalError(AgentError):
    """What must survive a restart cannot be kept or read."""

    exit_code = ExitCode.STATE


class StoppedError(Exception):
    """The agent stops: what was begun stays in the journal, and goes on at the next start."""
