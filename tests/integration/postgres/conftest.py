"""A server of each kind that is installed, with a new database for each test."""

import pytest

from tests.support.postgres import SERVERS, PostgresServer, PostgresServers


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> PostgresServer:
    return postgres_servers[request.param]


@pytest.fixture
def database(server: PostgresServer) -> str:
    return server.new_database()
