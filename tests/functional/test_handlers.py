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


def test_a_handlers_own_time_limit_goes_before_the_setting(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served("import time\nTIMEOUT_SECONDS = 0.2\ndef handle(event):\n    time.sleep(60)\n")
    answer = gateway.post("/v1/events/thing", {"n": 1})
    assert (answer.status, answer.json()["code"]) == (504, "handler_timeout")
    assert "0.2 s" in answer.json()["detail"]


def test_a_gevent_timeout_of_the_handlers_own_is_its_failure_and_no_deadline(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served(
        "import gevent\ndef handle(event):\n"
        "    with gevent.Timeout(0.05):\n        gevent.sleep(60)\n"
    )
    answer = gateway.post("/v1/events/thing", {"n": 1})
    assert (answer.status, answer.json()["code"]) == (500, "handler_error")


def test_a_failed_event_is_kept_where_its_type_wants_that(tmp_path: Path, served) -> None:  # type: ignore[no-untyped-def]
    SCHEMA["x-ingest"] = {"on_reject": "keep"}
    try:
        gateway = served("def handle(event):\n    1 / 0\n")
    finally:
        del SCHEMA["x-ingest"]
    assert gateway.post("/v1/events/thing", {"n": 1}).status == 500
    gateway.stop()
    (kept,) = gateway.journal("--rejected")
    assert (kept["rejectedcode"], kept["data"]) == ("handler_error", {"n": 1})


LIFE = """
from pathlib import Path

HERE = Path(__file__).parent
state = []

def setup():
    state.append("set up")
    with (HERE / "life").open("a") as life:
        life.write("setup ")

def teardown():
    with (HERE / "life").open("a") as life:
        life.write("teardown ")

def handle(event):
    return {"n": len(state), "state": state}
"""


def test_setup_and_teardown_run_once_each(served, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    gateway = served(LIFE)
    for _ in range(3):
        assert gateway.post("/v1/events/thing", {"n": 1}).status == 202
    assert [line["data"]["state"] for line in gateway.journal()] == [["set up"]] * 3
    assert gateway.stop() == 0
    assert (tmp_path / "handlers" / "life").read_text() == "setup teardown "


def test_every_worker_sets_up_and_tears_down_for_itself(served, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    gateway = served(LIFE, "--workers", "2")
    assert gateway.post("/v1/events/thing", {"n": 1}).status == 202
    assert gateway.stop() == 0
    life = (tmp_path / "handlers" / "life").read_text().split()
    assert sorted(life) == ["setup"] * 2 + ["teardown"] * 2


@pytest.mark.parametrize(
    ("source", "line", "why"),
    [
        ("def setup():\n    x = 1\n    1 / 0\n", ":3", "setup() failed: ZeroDivisionError"),
        ("import time\ndef setup():\n    time.sleep(60)\n", "", "setup() took longer than 0.2 s"),
    ],
    ids=["raises", "hangs"],
)
def test_a_failing_setup_ends_the_start_with_file_and_line(
    tmp_path: Path, source: str, line: str, why: str
) -> None:
    gateway = made(tmp_path, source + "def handle(event): pass\n", "--handler-setup-timeout", "0.2")
    gateway.spawn()
    assert not gateway.listens()
    assert gateway.wait() == 1
    assert f"thing.py{line}: {why}" in gateway.log()


def test_what_was_set_up_is_torn_down_when_a_later_setup_fails(tmp_path: Path) -> None:
    gateway = made(tmp_path, "def setup():\n    1 / 0\ndef handle(event): pass\n")
    (tmp_path / "schemas" / "another.json").write_text("{}")
    (tmp_path / "handlers" / "another.py").write_text(LIFE)
    gateway.spawn()
    assert not gateway.listens()
    gateway.wait()
    assert (tmp_path / "handlers" / "life").read_text() == "setup teardown "


def test_a_failing_teardown_is_logged_and_the_end_is_clean(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served("def teardown():\n    1 / 0\ndef handle(event): pass\n")
    assert gateway.stop() == 0
    assert "ZeroDivisionError" in gateway.log() and "handler.teardown_failed" in gateway.log()


def test_a_teardown_that_hangs_is_cut_short(served) -> None:  # type: ignore[no-untyped-def]
    gateway = served(
        "import time\ndef teardown():\n    time.sleep(600)\ndef handle(event): pass\n",
        "--handler-setup-timeout",
        "0.2",
    )
    assert gateway.stop() == 0
    assert "handler.teardown_timeout" in gateway.log()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1\n", "thing.py: it defines no function handle(event) or consume(events), and no"),
        ("async def handle(event): pass\n", "thing.py:1: handle is async"),
        ("\ndef handle(): pass\n", "thing.py:2: handle must take one argument, event"),
        ("def handle(e): pass\ndef setup(a): pass\n", "thing.py:2: setup must take no argument"),
        ("def handle(e): pass\nteardown = 3\n", "thing.py: teardown is not callable"),
        ("def handle(e): pass\nTIMEOUT_SECONDS = '1s'\n", "TIMEOUT_SECONDS must be a number"),
        ("def app(environ): pass\n", "thing.py:1: app must take the arguments environ, start_"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, source: str, why: str) -> None:
    gateway = made(tmp_path, source)
    gateway.spawn()
    assert not gateway.listens()
    assert gateway.wait() == 1
    assert why in gateway.log()


def made(tmp_path: Path, source: str, *flags: str) -> Gateway:
    """A gateway with one type `thing` and this handler, not started."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "thing.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "thing.py").write_text(source)
    folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
    return Gateway(tmp_path / "data", *folders, *flags)


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
