"""One authority and one broker for a module; each test takes a client id's worth of it."""

from collections.abc import Iterator

import pytest

from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto

# The default of 20 in flight and 1,000 queued belongs to the broker's own tests, not to these.
ROOMY = "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true"


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture
def broker(certs: Certs) -> Iterator[Mosquitto]:
    with Mosquitto(tls=certs, extra_conf=ROOMY) as running:
        yield running
