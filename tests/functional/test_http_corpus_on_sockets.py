"""The corpus of raw requests against the whole server, over a real socket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocol.http.corpus import Case, load_cases
from tests.support.gateway import Gateway


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(Path(tmp_path_factory.mktemp("corpus")) / "data").start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log()


@pytest.mark.parametrize("case", list(load_cases()), ids=lambda case: case.name)
def test_each_raw_request_gets_its_answers_and_no_other(server: Gateway, case: Case) -> None:
    with server.connect() as client:
        client.send(case.raw)
        methods = [part.split(b" ")[0] for part in case.raw.split(b"\r\n\r\n")]
        statuses: list[int] = []
        while len(statuses) < len(case.statuses):
            head_only = methods[0] == b"HEAD" and not statuses
            answer = client.answer(without_body=head_only)
            if answer.status >= 200:
                statuses.append(answer.status)
        assert statuses == case.statuses, case.why
        if case.closes:
            assert answer.headers["connection"] == "close"
            assert client.closed(), "nothing behind it is answered"
        else:
            # The stream is where it should be: the next request is answered as itself.
            client.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().body == b"ok\n"
