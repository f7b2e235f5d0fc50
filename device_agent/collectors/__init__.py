"""The collectors of this agent, by the section that each of them finds."""

from collections.abc import Mapping
from typing import Final

from device_agent.collectors import openssl, os_release
from device_agent.collectors.base import Collector

COLLECTORS: Final[Mapping[str, Collector]] = {"os": os_release.collect, "openssl": openssl.collect}
