"""What the long crash tests share; `make crash` runs them."""

import pytest


@pytest.fixture(autouse=True)
def no_unhandled_hub_errors() -> None:
    """In the place of the shared fixture, whose alarm is for tests of seconds."""
