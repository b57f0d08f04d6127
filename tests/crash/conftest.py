"""What all crash tests share."""

import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.chance import LONG
from tests.support.gateway import RUNNING

Report = Callable[[str], None]

if LONG:

    @pytest.fixture(autouse=True)
    def no_unhandled_hub_errors() -> None:
        """In the place of the shared fixture, whose alarm is for tests of seconds."""


@pytest.fixture(autouse=True)
def no_gateway_left() -> Iterator[None]:
    """A test that fails takes its gateways along."""
    yield
    for gateway in list(RUNNING):
        gateway.kill()


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str]) -> Report:
    """Write a line with what was done, also when the test passes; `make test` stays quiet."""

    def line(text: str) -> None:
        if LONG:
            with capfd.disabled():
                sys.stdout.write(f"\n    {text}\n")

    return line


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/crash/" in item.nodeid:
            item.add_marker(pytest.mark.timeout(1800 if LONG else 120))
