"""The operating system (section `os`)."""

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.host.os_release import describe_os
from device_agent.host.system import System


def collect(system: System) -> Section:
    """Collects the `os` section."""
    return SectionBuilder(**describe_os(system)).build()
