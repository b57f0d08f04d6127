"""Real brokers for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.kafka.cluster import Cluster


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """Three brokers; whoever kills one starts it again."""
    with Cluster(brokers=3) as cluster:
        yield cluster
