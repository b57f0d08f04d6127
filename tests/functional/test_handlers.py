"""Handlers: plain blocking Python run before the answer."""

import json
import threading
from pathlib import Path

import pytest

from tests.support.gateway import Gateway

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture
def served(tmp_path: Path, new_gateway):  # type: ignore[no-untyped-def]
    """A gateway with one type `thing` and the handler the test gives it."""

    def serve(source: str, *flags: str, env: dict[str, str] | None = None) -> Gateway:
        (tmp_path / "schemas").mkdir()
        (tmp_path / "schemas" / "thing.json").write_text(json.dumps(SCHEMA))
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "thing.py").write_text(source)
        folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
        return new_gateway(*folders, *flags, env=env)

    return serve


def test_none_keeps_the_event(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served("def handle(event):\n    assert event.type == 'thing' and event.data['n']\n")
    assert gateway.post("/v1/events/thing", {"n": 1}).status == 202
    assert gateway.journal()[0]["data"] == {"n": 1}


def test_a_returned_value_is_stored_instead(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served("def handle(event):\n    return {'n': event.data['n'] * 2, 'id': event.id}\n")
    answer = gateway.post("/v1/events/thing", {"n": 21})
    assert gateway.journal()[0]["data"] == {"n": 42, "id": answer.json()["id"]}


@pytest.mark.parametrize("returned", ["{'n': 'x'}", "{1, 2}", "float('nan')"])
def test_a_returned_value_that_does_not_fit_is_500_and_not_stored(served, returned) -> None:  # type: ignore[no-untyped-def]
    gateway = served(f"def handle(event):\n    return {returned}\n")
    answer = gateway.post("/v1/events/thing", {"n": 1})
    assert (answer.status, answer.json()["code"]) == (500, "handler_error")
    assert gateway.journal() == []


def test_reject_is_422_with_the_reason(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served("import ingest\ndef handle(e):\n    raise ingest.Reject('no', pointer='/n')\n")
    answer = gateway.post("/v1/events/thing", {"n": 1})
    assert (answer.status, answer.json()["code"]) == (422, "rejected")
    assert answer.json()["errors"] == [{"pointer": "/n", "keyword": "handler", "message": "no"}]
    assert gateway.metric('ingest_events_rejected_total{reason="handler",type="thing"}') == 1
    assert gateway.journal() == []


def test_an_exception_is_500_with_its_traceback_in_the_log_only(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served("def handle(event):\n    secret = 1 / 0\n")
    answer = gateway.post("/v1/events/thing", {"n": 1}, **{"X-Request-Id": "find-me"})
    assert (answer.status, answer.json()["code"]) == (500, "handler_error")
    assert b"ZeroDivisionError" not in answer.body
    assert gateway.metric('ingest_handler_errors_total{type="thing"}') == 1
    made = gateway.post("/v1/events/thing", {"n": 1}).json()["request_id"]
    gateway.stop()
    lines = [line for line in gateway.log_lines() if line["event"] == "handler.failed"]
    assert [line["request_id"] for line in lines] == ["find-me", made]
    assert "ZeroDivisionError" in json.dumps(lines[0])


def test_a_handler_over_its_time_is_504(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served(
        "import time\ndef handle(event):\n    time.sleep(60)\n",
        env={"INGEST_HANDLER_TIMEOUT_SECONDS": "0.2"},
    )
    answer = gateway.post("/v1/events/thing", {"n": 1})
    assert (answer.status, answer.json()["code"]) == (504, "handler_timeout")
    assert gateway.metric('ingest_timeouts_total{kind="handler"}') == 1
    assert gateway.journal() == []


def test_blocking_calls_of_many_requests_overlap(served) -> None:  # type: ignore[no-untyped-def]
    # All of them must be inside the handler at once for the last to open the gate.
    gateway = served(
        "import threading\n"
        "gate = threading.Barrier(50)\n"
        "def handle(event):\n    gate.wait(timeout=20)\n"
    )
    statuses: list[int] = []

    def post(n: int) -> None:
        statuses.append(gateway.post("/v1/events/thing", {"n": n}).status)

    threads = [threading.Thread(target=post, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [202] * 50


def test_a_batch_goes_through_the_handler_event_by_event(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served(
        "import ingest\n"
        "def handle(event):\n"
        "    if event.data['n'] == 2:\n        raise ingest.Reject('two')\n"
        "    return {'n': event.data['n'] + 100}\n"
    )
    answer = gateway.post("/v1/batch/thing", [{"n": 1}, {"n": 2}, {"n": 3}])
    assert answer.status == 207
    assert [(e["index"], e["message"]) for e in answer.json()["errors"]] == [(1, "two")]
    assert [r["data"]["n"] for r in gateway.journal()] == [101, 103]


def test_a_failure_within_a_batch_stores_none_of_it_and_names_the_event(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served("def handle(event):\n    1 / (event.data['n'] - 2)\n")
    answer = gateway.post("/v1/batch/thing", [{"n": 1}, {"n": 2}, {"n": 3}])
    assert (answer.status, answer.json()["index"]) == (500, 1)
    assert gateway.journal() == []


def test_the_shipped_order_handler_checks_the_total(gateway: Gateway) -> None:
    schema = json.loads(Path("schemas/order.json").read_text())
    order = schema["examples"][0]
    assert gateway.post("/v1/events/order", order).status == 202
    order["total"]["amount"] = "1.00"
    answer = gateway.post("/v1/events/order", order)
    assert answer.status == 422
    assert answer.json()["errors"][0]["pointer"] == "/total/amount"
