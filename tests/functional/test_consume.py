"""Consumers: `consume(events)` is given what is stored, after the answer."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.waiting import until
from tests.support.workers import all_ready

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

#: Appends a line for each call to a file of the test's.
RECORD = """
import json, os
from pathlib import Path

SEEN = Path(os.environ["SEEN"])

def note(events, **more):
    with SEEN.open("a") as file:
        numbers = [event.data["n"] for event in events]
        offsets = [event.offset for event in events]
        file.write(json.dumps({"n": numbers, "offsets": offsets, **more}) + "\\n")
"""

QUICK = {
    "INGEST_CONSUME_BACKOFF_MIN_SECONDS": "0.001",
    "INGEST_CONSUME_BACKOFF_MAX_SECONDS": "0.002",
    "INGEST_CONSUME_LINGER_SECONDS": "0",
    "INGEST_CONSUME_CHECKPOINT_SECONDS": "0",
}

Serve = Callable[..., "Served"]


class Served:
    """A gateway with a consumer of type `thing`, and what that has written down."""

    def __init__(self, gateway: Gateway, seen: Path) -> None:
        self.gateway = gateway
        self._seen = seen

    def calls(self) -> list[dict[str, Any]]:
        """Each call, in order; a line that is being written is left out."""
        if not self._seen.exists():
            return []
        lines = self._seen.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def numbers(self) -> list[int]:
        return [n for call in self.calls() for n in call["n"]]

    def post(self, *numbers: int) -> None:
        documents = [{"n": n} for n in numbers]
        answer = self.gateway.post("/v1/batch/thing", documents)
        assert answer.status == 202, answer

    def metric(self, name: str, labels: str = 'type="thing"') -> float:
        return self.gateway.metric(f"ingest_consumer_{name}{{{labels}}}")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log with that event; after the gateway's end."""
        return [line for line in self.gateway.log_lines() if line["event"] == event]

    def checkpoint(self) -> int:
        path = self.gateway.data / "checkpoints" / "consume-thing" / "0"
        return int(path.read_text().split()[0])


@pytest.fixture
def serve(tmp_path: Path, new_gateway: Any) -> Serve:
    """Start a gateway whose `handlers/thing.py` holds the given source; again, if called again."""

    def start(source: str, **settings: str) -> Served:
        for name in ("schemas", "handlers"):
            (tmp_path / name).mkdir(exist_ok=True)
        for name in ("thing", "other"):
            (tmp_path / "schemas" / f"{name}.json").write_text(json.dumps(SCHEMA))
        (tmp_path / "handlers" / "thing.py").write_text(RECORD + source)
        seen = tmp_path / "seen"
        folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
        env = {**QUICK, "SEEN": str(seen), **{f"INGEST_{k}": v for k, v in settings.items()}}
        return Served(new_gateway(*folders, env=env), seen)

    return start


def test_events_come_in_journal_order_in_batches_of_bounded_size(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n", CONSUME_BATCH_EVENTS_MAX="40")
    for first in range(0, 300, 100):
        served.post(*range(first, first + 100))
    until(lambda: len(served.numbers()) >= 300)
    assert served.numbers() == list(range(300))
    assert [o for call in served.calls() for o in call["offsets"]] == list(range(300))
    assert max(len(call["n"]) for call in served.calls()) == 40
    until(lambda: served.metric("events_total") == 300)
    assert served.metric("attempts_total") == len(served.calls())
    until(lambda: served.checkpoint() == 300)


def test_a_batch_is_full_at_its_size_in_bytes(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n", CONSUME_BATCH_MAX_BYTES="1")
    served.post(1, 2, 3)
    until(lambda: len(served.numbers()) == 3)
    assert [call["n"] for call in served.calls()] == [[1], [2], [3]]


def test_only_events_of_its_type_come(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n")
    served.post(1)
    assert served.gateway.post("/v1/events/other", {"n": 2}).status == 202
    served.post(3)
    until(lambda: len(served.numbers()) == 2)
    assert served.numbers() == [1, 3]
    assert [o for call in served.calls() for o in call["offsets"]] == [0, 2]


def test_an_event_brings_what_the_journal_says_of_it(serve: Serve) -> None:
    served = serve(
        "def consume(events):\n"
        "    event = events[0]\n"
        "    note(events, id=event.id, type=event.type, time=event.time, data=event.data,\n"
        "         partition=event.partition, attributes=event.attributes)\n"
    )
    answer = served.gateway.post("/v1/events/thing", {"n": 7, "more": [1.5, None]})
    until(served.calls)
    (call,) = served.calls()
    (stored,) = served.gateway.journal()
    assert call["id"] == stored["id"] == answer.json()["id"]
    assert (call["type"], call["time"]) == ("thing", stored["time"])
    assert (call["partition"], call["offsets"]) == (0, [0])
    assert call["data"] == stored.pop("data") == {"n": 7, "more": [1.5, None]}
    assert call["attributes"] == stored


def test_what_fails_is_tried_again_after_pauses_that_grow(serve: Serve) -> None:
    served = serve(
        "from time import monotonic\n"
        "def consume(events):\n"
        "    note(events, at=monotonic())\n"
        "    events[0].data['n'] = 'changed'\n"
        "    assert len(SEEN.read_text().splitlines()) > 4, 'not yet'\n",
        CONSUME_BACKOFF_MIN_SECONDS="0.05",
        CONSUME_BACKOFF_MAX_SECONDS="10",
    )
    served.post(1)
    until(lambda: served.metric("events_total") == 1)
    # Each attempt gets the event as it is stored, whatever the one before did to it.
    assert [call["n"] for call in served.calls()] == [[1]] * 5
    at = [call["at"] for call in served.calls()]
    for number, (before, after) in enumerate(pairwise(at)):
        assert after - before >= 0.05 * 2**number / 2
    assert served.metric("attempts_total") == 5
    assert served.metric("failures_total", 'reason="error",type="thing"') == 4
    served.gateway.stop()
    failures = served.logged("consumer.failed")
    assert [line["attempt"] for line in failures] == [1, 2, 3, 4]
    assert "not yet" in json.dumps(failures[0])
    assert served.logged("consumer.dead_letter") == []


def test_the_one_bad_event_becomes_a_dead_letter_and_the_others_are_consumed(
    serve: Serve,
) -> None:
    served = serve(
        "def consume(events):\n"
        "    if any(event.data['n'] == 13 for event in events):\n"
        "        raise ValueError('unlucky \"13\"')\n"
        "    note(events)\n",
        CONSUME_MAX_ATTEMPTS="3",
        CONSUME_BATCH_EVENTS_MAX="16",
    )
    served.post(*range(32))
    until(lambda: len(served.numbers()) >= 31)
    assert served.numbers() == [n for n in range(32) if n != 13]
    until(lambda: served.checkpoint() == 32)
    assert served.metric("dead_letters_total") == 1
    assert served.metric("events_total") == 31
    # A batch of 16 three times; 8 to 15, 12 to 15, 12 and 13 once each; 13 alone three times.
    assert served.metric("failures_total", 'reason="error",type="thing"') == 9
    served.gateway.stop()
    (letter,) = served.gateway.journal("--dead")
    (stored,) = [record for record in served.gateway.journal() if record["data"]["n"] == 13]
    assert letter["ingestdeaderror"] == 'ValueError: unlucky "13"'
    assert letter["ingestdeadattempts"] == 3
    assert (letter["ingestdeadpartition"], letter["ingestdeadoffset"]) == (0, 13)
    assert letter["ingesttime"] >= stored["time"]
    assert {name: letter[name] for name in stored} == stored
    assert served.logged("consumer.dead_letter")[0]["offset"] == 13


def test_reject_is_not_tried_again(serve: Serve) -> None:
    served = serve(
        "import ingest\n"
        "def consume(events):\n"
        "    if any(event.data['n'] == 2 for event in events):\n"
        "        raise ingest.Reject('never')\n"
        "    note(events)\n"
    )
    served.post(1, 2, 3)
    until(lambda: served.numbers() == [1, 3])
    assert served.metric("failures_total", 'reason="reject",type="thing"') <= 3
    served.gateway.stop()
    assert [letter["ingestdeadattempts"] for letter in served.gateway.journal("--dead")] == [1]


def test_an_event_with_its_producers_id_keeps_it_as_a_dead_letter(serve: Serve) -> None:
    served = serve("def consume(events):\n    raise KeyError('k')\n", CONSUME_MAX_ATTEMPTS="1")
    event = {"specversion": "1.0", "id": "theirs", "source": "/t", "type": "thing", "mine": "x",
             "time": "2020-01-01T00:00:00Z", "data": {"n": 1}}  # fmt: skip
    fields = {"Content-Type": "application/cloudevents+json"}
    body = json.dumps(event).encode()
    assert served.gateway.request("POST", "/v1/events", body, fields).status == 202
    until(lambda: served.metric("dead_letters_total") == 1)
    served.gateway.stop()
    (letter,) = served.gateway.journal("--dead", "--type", "thing")
    (stored,) = served.gateway.journal()
    assert (letter["id"], letter["time"]) == ("theirs", "2020-01-01T00:00:00Z")
    assert letter["ingestid"] > stored["ingestid"]
    assert (letter["mine"], letter["data"]) == ("x", {"n": 1})


def test_a_call_over_its_time_counts_as_failed(serve: Serve) -> None:
    served = serve(
        "import time\n"
        "def consume(events):\n"
        "    note(events)\n"
        "    if len(SEEN.read_text().splitlines()) == 1:\n"
        "        time.sleep(60)\n",
        CONSUME_TIMEOUT_SECONDS="0.1",
    )
    served.post(1)
    until(lambda: served.numbers() == [1, 1])
    assert served.metric("failures_total", 'reason="timeout",type="thing"') == 1


def test_sys_exit_in_consume_ends_nothing(serve: Serve) -> None:
    served = serve(
        "import sys\n"
        "def consume(events):\n"
        "    note(events)\n"
        "    if len(SEEN.read_text().splitlines()) == 1:\n"
        "        sys.exit(3)\n"
    )
    served.post(1)
    until(lambda: served.numbers() == [1, 1])
    assert served.gateway.stop() == 0


def test_a_signal_pauses_and_the_next_one_resumes(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n")
    served.post(1)
    until(lambda: served.numbers() == [1])
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: served.metric("paused") == 1)
    served.post(2, 3)
    until(lambda: served.metric("lag_events") == 2 and served.metric("lag_bytes") > 100)
    until(lambda: served.metric("lag_seconds") > 0)
    assert served.numbers() == [1]
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: served.numbers() == [1, 2, 3])
    until(lambda: [served.metric(n) for n in ("paused", "lag_events", "lag_bytes")] == [0, 0, 0])
    assert served.metric("lag_seconds") == 0
    served.gateway.stop()
    for word in ("paused", "resumed"):
        (line,) = served.logged(f"consumer.{word}")
        assert (line["type"], line["by"]) == ("thing", "signal")


def test_a_consumer_can_pause_itself_and_be_resumed_by_a_handler(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "other.py").write_text(
        "from ingest import consumers\n"
        "def handle(event):\n"
        "    return {'n': 0, 'paused': consumers.paused(), 'was': consumers.resume('thing')}\n"
    )
    served = serve(
        "from ingest import consumers\n"
        "def consume(events):\n"
        "    note(events)\n"
        "    if events[0].data['n'] == 1:\n"
        "        consumers.pause('thing')\n",
        CONSUME_BATCH_EVENTS_MAX="1",
    )
    served.post(1, 2)
    until(lambda: served.metric("paused") == 1)
    assert served.numbers() == [1]
    assert served.gateway.post("/v1/events/other", {"n": 1}).status == 202
    until(lambda: served.numbers() == [1, 2])
    (stored,) = [record for record in served.gateway.journal() if record["type"] == "other"]
    assert stored["data"] == {"n": 0, "paused": ["thing"], "was": ["thing"]}


def test_a_restart_goes_on_at_the_checkpoint(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n")
    served.post(*range(10))
    until(lambda: len(served.numbers()) == 10)
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: served.metric("paused") == 1)
    served.post(*range(10, 20))
    assert served.gateway.stop() == 0
    assert served.checkpoint() == 10
    served.gateway.start()
    until(lambda: len(served.numbers()) >= 20)
    served.post(20)
    until(lambda: len(served.numbers()) >= 21)
    assert served.numbers() == list(range(21))


def test_a_stop_saves_what_is_done_though_no_checkpoint_was_due(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n", CONSUME_CHECKPOINT_SECONDS="1h")
    served.post(1, 2, 3)
    until(lambda: served.metric("events_total") == 3)
    assert served.checkpoint() == 0
    assert served.gateway.stop() == 0
    assert served.checkpoint() == 3


def test_a_stop_waits_for_the_call_that_runs_and_begins_no_other(
    serve: Serve, tmp_path: Path
) -> None:
    served = serve(
        "import time\n"
        "def consume(events):\n"
        "    note(events)\n"
        "    while not SEEN.with_name('go').exists():\n"
        "        time.sleep(0.01)\n",
        CONSUME_BATCH_EVENTS_MAX="1",
    )
    served.post(1, 2)
    until(lambda: served.numbers() == [1])
    served.gateway.send_signal(signal.SIGTERM)
    until(lambda: "service.draining" in served.gateway.log())
    (tmp_path / "go").touch()
    assert served.gateway.wait() == 0
    assert served.numbers() == [1]
    assert served.checkpoint() == 1


def test_a_call_that_outlasts_the_drain_is_killed_and_its_events_come_again(
    serve: Serve, tmp_path: Path
) -> None:
    served = serve(
        "import time\n"
        "def consume(events):\n"
        "    note(events)\n"
        "    while not SEEN.with_name('go').exists():\n"
        "        time.sleep(0.01)\n",
        DRAIN_TIMEOUT_SECONDS="0.2",
    )
    served.post(1)
    until(lambda: served.numbers() == [1])
    assert served.gateway.stop() == 0
    assert served.logged("consumer.killed")
    assert served.checkpoint() == 0
    (tmp_path / "go").touch()
    served.gateway.start()
    until(lambda: served.numbers() == [1, 1])


def test_answers_do_not_wait_for_a_consumer(serve: Serve, tmp_path: Path) -> None:
    # The consumer holds on until every answer has been given, and takes no request's slot.
    served = serve(
        "import time\n"
        "def consume(events):\n"
        "    while not SEEN.with_name('go').exists():\n"
        "        time.sleep(0.01)\n"
        "    note(events)\n",
        POOL_SIZE="1",
        POOL_RESIDENTS="1",
    )
    for n in range(50):
        served.post(n)
    assert served.calls() == []
    assert served.gateway.metric("ingest_pool_in_use") == 0
    (tmp_path / "go").touch()
    until(lambda: served.numbers() == list(range(50)))


def test_a_new_consumer_may_begin_with_the_next_event(serve: Serve) -> None:
    served = serve("def handle(event):\n    pass\n")
    served.post(1)
    served.gateway.stop()
    served = serve("def consume(events):\n    note(events)\n", CONSUME_FROM="end")
    served.post(2)
    until(lambda: served.numbers() == [2])


def test_a_new_consumer_begins_with_the_oldest_event(serve: Serve) -> None:
    served = serve("def handle(event):\n    pass\n")
    served.post(1)
    served.gateway.stop()
    served = serve("def consume(events):\n    note(events)\n")
    served.post(2)
    until(lambda: served.numbers() == [1, 2])


def test_a_checkpoint_ahead_of_the_journal_passes_over_no_new_event(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n")
    served.post(1, 2)
    until(lambda: served.checkpoint() == 2)
    served.gateway.stop()
    # As a power cut may leave it with `ack: write`: the records are gone, the checkpoint not.
    for path in (served.gateway.data / "journal" / "0").iterdir():
        path.unlink()
    served.gateway.start()
    served.post(3)
    until(lambda: served.numbers() == [1, 2, 3])
    assert served.gateway.log().count("consumer.checkpoint_ahead") == 1


def test_a_broken_checkpoint_starts_over(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n")
    served.post(1)
    until(lambda: served.checkpoint() == 1)
    served.gateway.stop()
    (served.gateway.data / "checkpoints" / "consume-thing" / "0").write_bytes(b"1 00000000\n")
    served.gateway.start()
    until(lambda: served.numbers() == [1, 1])
    assert "consumer.checkpoint_broken" in served.gateway.log()


def test_records_that_are_gone_are_named_and_passed_over(serve: Serve) -> None:
    small = {"SEGMENT_MAX_BYTES": "1KiB", "SEGMENT_FILL_BYTES": "0"}
    served = serve("def consume(events):\n    note(events)\n", **small)
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: served.metric("paused") == 1)
    for n in range(20):
        served.post(n)
    served.gateway.stop()
    segments = sorted((served.gateway.data / "journal" / "0").glob("*.ndjson*"))
    assert len(segments) > 4
    for path in segments[:3]:
        path.unlink()
    missing = int(segments[3].name[:20])
    served.gateway.start()
    until(lambda: served.numbers() == list(range(missing, 20)))
    assert served.metric("missed_events_total") == missing


def test_a_partition_that_no_worker_writes_is_consumed_to_its_end(
    serve: Serve, tmp_path: Path
) -> None:
    served = serve("def consume(events):\n    note(events, partition=events[0].partition)\n")
    served.post(1)
    until(lambda: served.numbers() == [1])
    served.gateway.stop()
    journal = served.gateway.data / "journal"
    (journal / "0").rename(journal / "3")  # as after a time with more workers
    served.gateway.start()
    served.post(2)
    until(lambda: len(served.numbers()) == 3)
    assert sorted((call["partition"], call["n"]) for call in served.calls()[1:]) == [
        (0, [2]),
        (3, [1]),
    ]


def test_a_checkpoint_without_a_consumer_is_named_at_the_start(serve: Serve) -> None:
    served = serve("def consume(events):\n    note(events)\n")
    served.gateway.stop()
    served = serve("def handle(event):\n    pass\n")
    served.gateway.stop()
    (line,) = served.logged("consumer.checkpoint_without_consumer")
    assert line["name"] == "consume-thing"


def test_each_worker_consumes_its_partition_and_a_signal_reaches_all(serve: Serve) -> None:
    served = serve(
        "def consume(events):\n    note(events, partition=events[0].partition)\n", WORKERS="2"
    )
    until(lambda: all_ready(served.gateway, 2))
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: served.metric("paused") == 2)
    for n in range(40):
        served.post(n)
    assert served.calls() == []
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: len(served.numbers()) == 40)
    assert sorted(served.numbers()) == list(range(40))
    for partition in (0, 1):
        calls = [call for call in served.calls() if call["partition"] == partition]
        offsets = [offset for call in calls for offset in call["offsets"]]
        assert offsets and offsets == list(range(len(offsets)))


def test_a_second_signal_to_stop_cuts_a_call_short(serve: Serve) -> None:
    served = serve(
        "import time\ndef consume(events):\n    note(events)\n    time.sleep(600)\n",
        DRAIN_TIMEOUT_SECONDS="10m",
        WORKERS="2",
    )
    served.post(1)
    until(lambda: served.numbers() == [1])
    served.gateway.send_signal(signal.SIGTERM)
    until(lambda: "service.draining" in served.gateway.log())
    served.gateway.send_signal(signal.SIGTERM)
    served.gateway.wait()
    (killed,) = served.logged("consumer.killed")
    checkpoint = served.gateway.data / "checkpoints" / "consume-thing" / str(killed["partition"])
    assert checkpoint.read_text().startswith("0 ")
