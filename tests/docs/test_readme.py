"""The curl lines of the README and of other pages give the answers printed there."""

from pathlib import Path

import pytest

from tests.support.examples import check_examples
from tests.support.gateway import Gateway


@pytest.mark.parametrize(("page", "examples"), [("README.md", 3), ("docs/cloudevents.md", 4)])
def test_every_curl_line_of_a_page_gives_the_answer_printed_there(
    gateway: Gateway, page: str, examples: int
) -> None:
    assert check_examples(Path(page), gateway) == examples
