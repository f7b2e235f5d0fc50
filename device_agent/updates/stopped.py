"""What is raised where work is left for the next start."""


class StoppedError(Exception):
    """The agent stops: what was begun stays in the journal, and goes on at the next start."""
