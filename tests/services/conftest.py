"""Real servers for handlers to talk to: PostgreSQL and Redis, of this test run only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import databases


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Connection string of an empty PostgreSQL server."""
    with databases.postgres() as connection_string:
        yield connection_string


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """Port of an empty Redis server."""
    with databases.redis() as port:
        yield port
