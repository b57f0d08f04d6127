"""`ingest replay` against real gateways: what arrives, what is reported, and where it goes on."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import ROOT, Gateway
from tests.support.journals import Written
from tests.support.waiting import until

NUMBER = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": "integer"}},
}
#: The types of the target, each with its options.
TYPES: dict[str, dict[str, Any]] = {
    "order": {**NUMBER, "x-ingest": {"dedupe": "idempotency-key"}},
    "visit": NUMBER,
    "small": {
        **NUMBER,
        "properties": {"n": {"type": "integer", "maximum": 2}},
        "x-ingest": {"on_reject": "keep"},
    },
    "known": {**NUMBER, "x-ingest": {"dedupe": "cloudevents"}},
}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "ingest", "replay", *map(str, words)]


def replay(*words: object) -> tuple[int, str]:
    """Exit code and what was said."""
    done = subprocess.run(command(*words), capture_output=True, timeout=60, cwd=ROOT)
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def write_types(directory: Path, **changed: dict[str, Any]) -> None:
    (directory / "schemas").mkdir(parents=True, exist_ok=True)
    for name, schema in {**TYPES, **changed}.items():
        (directory / "schemas" / f"{name}.json").write_text(json.dumps(schema))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts the target, again and again on the same data and types."""
    running: list[Gateway] = []

    def begin(**changed: dict[str, Any]) -> Gateway:
        write_types(tmp_path / "target", **changed)
        gateway = Gateway(
            tmp_path / "target" / "data", cwd=tmp_path / "target", env={"PYTHONPATH": str(ROOT)}
        ).start()
        running.append(gateway)
        return gateway

    yield begin
    for gateway in running:
        gateway.stop()


@pytest.fixture
def target(start: Callable[..., Gateway]) -> Gateway:
    return start()


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """The journal that is replayed: five events in two segments, one of them compressed."""
    made = Written(tmp_path / "data")
    made.commit("order", "visit", "order")
    made.compress()
    made.commit("order", "visit")
    return made


def url(gateway: Gateway) -> str:
    return f"http://127.0.0.1:{gateway.port}"


def stored(gateway: Gateway) -> list[tuple[str, Any]]:
    return [(record["type"], record["data"]) for record in gateway.journal()]


def numbers(gateway: Gateway) -> list[int]:
    return [data["n"] for _, data in stored(gateway)]


# -- where to --------------------------------------------------------------------------------


def test_each_event_goes_to_its_own_type_of_a_gateway(written: Written, target: Gateway) -> None:
    code, said = replay("--data", written.data, "--url", url(target))
    assert code == 0, said
    assert re.fullmatch(rf"5 events sent to {url(target)} in [0-9.]+ s \([0-9,]+/s\)\n", said)
    assert stored(target) == [
        ("order", {"n": 0}), ("visit", {"n": 1}), ("order", {"n": 2}), ("order", {"n": 3}),
        ("visit", {"n": 4}),
    ]  # fmt: skip


def test_one_connection_carries_all_of_them(written: Written, target: Gateway) -> None:
    for _ in range(10):
        written.commit(*["visit"] * 10)
    before = target.metric("ingest_connections_opened_total")
    code, said = replay("--data", written.data, "--url", url(target))
    assert code == 0, said
    # the connection of the replay, and that of the question before and of this one
    assert target.metric("ingest_connections_opened_total") - before == 2
    assert len(target.journal()) == 105


def test_a_range_goes_to_another_type(written: Written, target: Gateway) -> None:
    base = ("--data", written.data, "--url", url(target), "--to-type", "visit")
    assert replay(*base, "--type", "order", "--from-offset", 1)[0] == 0
    assert stored(target) == [("visit", {"n": 2}), ("visit", {"n": 3})]
    assert replay(*base, "--since", "2026-01-01T00:00:04Z")[0] == 0
    assert replay(*base, "--until", "2026-01-01T00:00:01Z", "--partition", 0)[0] == 0
    assert numbers(target) == [2, 3, 4, 0]


def test_a_type_of_the_gateway_that_bind_names(written: Written, target: Gateway) -> None:
    bind = f"127.0.0.1:{target.port}"
    code, said = replay("--data", written.data, "--bind", bind, "--to-type", "visit")
    assert code == 0 and f"visit of http://{bind}" in said
    assert numbers(target) == [0, 1, 2, 3, 4]


def test_a_url_takes_data_and_the_type_in_its_path(written: Written, target: Gateway) -> None:
    to = f"{url(target)}/v1/events/{{type}}"
    assert replay("--data", written.data, "--to", to, "--to-offset", 2)[0] == 0
    assert stored(target) == [("order", {"n": 0}), ("visit", {"n": 1})]


def test_a_whole_event_keeps_its_attributes_whether_it_came_as_one_or_not(
    written: Written, target: Gateway
) -> None:
    written.commit("known", "visit")
    events = run_bytes("--data", written.data, "--to", "-", "--from-offset", 5)
    original = [json.loads(line) for line in events.splitlines()]
    base = ("--data", written.data, "--from-offset", 5, "--url", url(target), "--as", "event")
    assert replay(*base)[0] == 0
    code, said = replay(*base)
    assert code == 0 and "1 it had before" in said  # the type that tells events by source and id
    first, second, again = target.journal()
    for one, other in ((first, original[0]), (second, original[1]), (again, original[1])):
        assert (one["id"], one["source"], one["time"]) == (
            other["id"], other["source"], other["time"],
        )  # fmt: skip
        assert "ingestid" in one and one["data"] == other["data"]


def test_what_came_as_a_cloudevent_goes_as_one(tmp_path: Path, target: Gateway) -> None:
    event = {"specversion": "1.0", "id": "A1", "source": "/shop", "type": "known", "data": {"n": 1}}
    event.update(time="2020-02-03T04:05:06Z", subject="cart", level=3, good=True)
    media = {"Content-Type": "application/cloudevents+json"}
    body = json.dumps({**event, "dataschema": "https://example.com/s"}).encode()
    assert target.request("POST", "/v1/events", body, media).status == 202
    (before,) = target.journal()
    base = ("--data", target.data, "--url", url(target))
    code, said = replay(*base)
    assert (code, "1 it had before" in said) == (0, True), said
    code, said = replay(*base, "--to-type", "order")
    assert code == 0, said
    after = target.journal()[-1]
    assert after["type"] == "order"
    for name in ("id", "source", "time", "subject", "level", "good", "dataschema", "data"):
        assert after[name] == before[name], name


def run_bytes(*words: object) -> bytes:
    done = subprocess.run(command(*words), capture_output=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_standard_output_gets_what_cat_prints(written: Written) -> None:
    cat = [sys.executable, "-m", "ingest", "journal", "cat", "--data", str(written.data)]
    printed = subprocess.run(cat, capture_output=True, check=True, cwd=ROOT).stdout
    assert run_bytes("--data", written.data, "--to", "-") == printed
    assert run_bytes("--data", written.data, "--to", "-", "--as", "data", "--type", "visit") == (
        b'{"n": 1}\n{"n": 4}\n'
    )


def test_header_fields_are_sent_along(written: Written, target: Gateway) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    flags = ("--url", url(target), "--header", f"traceparent: {trace}", "--to-offset", 1)
    assert replay("--data", written.data, *flags)[0] == 0
    assert target.journal()[0]["traceparent"] == trace


# -- what the target does not want ---------------------------------------------------------------


def test_a_refusal_is_reported_with_its_pointer_and_counted(
    written: Written, target: Gateway
) -> None:
    base = ("--data", written.data, "--url", url(target), "--to-type", "small")
    code, said = replay(*base)
    assert code == 1
    refusals = [line for line in said.splitlines() if "refused: " in line]
    assert refusals == [
        f"ingest: partition 0, offset {n} refused: 422 schema_violation, /n: "
        f"{n} is greater than the maximum of 2"
        for n in (3, 4)
    ]
    assert "3 events sent" in said and ", 2 refused" in said
    assert numbers(target) == [0, 1, 2]


def test_a_refusal_may_be_the_end_and_is_the_first_the_next_time(
    written: Written, start: Callable[..., Gateway]
) -> None:
    target = start()
    flags = ("--to-type", "small", "--on-refusal", "stop", "--checkpoint", "one")
    code, said = replay("--data", written.data, "--url", url(target), *flags)
    assert code == 1 and ", 1 refused" in said and "checkpoint one" in said
    target.stop()
    target = start(small=NUMBER)
    code, said = replay("--data", written.data, "--url", url(target), *flags)
    assert code == 0 and said.startswith("2 events sent")
    assert numbers(target) == [0, 1, 2, 3, 4]


def test_without_a_checkpoint_it_is_said_where_it_was(written: Written, target: Gateway) -> None:
    flags = ("--url", url(target), "--to-type", "small", "--on-refusal", "stop")
    code, said = replay("--data", written.data, *flags)
    assert code == 1 and said.endswith("it was at --partition 0 --from-offset 3\n")


def test_a_type_that_the_target_does_not_know_is_a_refusal(
    written: Written, target: Gateway
) -> None:
    code, said = replay("--data", written.data, "--url", url(target), "--to-type", "nobody")
    assert code == 1 and "refused: 404 unknown_type" in said and ", 5 refused" in said


def test_of_very_many_refusals_the_first_hundred_are_reported(
    written: Written, target: Gateway
) -> None:
    written.commit(*["nobody"] * 150)
    code, said = replay("--data", written.data, "--url", url(target))
    assert code == 1 and said.count("unknown_type") == 100
    assert "and more, which are only counted" in said and ", 150 refused" in said


# -- where it goes on -----------------------------------------------------------------------------


def test_a_checkpoint_goes_on_with_what_came_since(written: Written, target: Gateway) -> None:
    base = ("--data", written.data, "--url", url(target), "--checkpoint", "copy")
    assert replay(*base)[0] == 0
    assert replay(*base)[1].startswith("0 events sent")
    written.commit("order", "visit")
    assert replay(*base)[1].startswith("2 events sent")
    written.new_segment(partition=1)
    written.commit("visit")
    assert replay(*base)[1].startswith("1 events sent")
    assert numbers(target) == [0, 1, 2, 3, 4, 5, 6, 0]


def test_a_killed_replay_goes_on_and_duplicates_nothing_where_the_type_tells_repetitions(
    tmp_path: Path, target: Gateway
) -> None:
    written = Written(tmp_path / "data")
    for _ in range(30):
        written.commit(*["order"] * 50)
    base = ("--data", written.data, "--url", url(target), "--checkpoint", "copy")
    place = written.data / "checkpoints" / "copy" / "0"

    def sent() -> float:
        return target.metric('ingest_events_accepted_total{type="order"}')

    kills = 0
    for share in (200, 500):
        with subprocess.Popen(
            command(*base, "--rate", 400), stderr=subprocess.DEVNULL, cwd=ROOT
        ) as process:
            until(lambda least=share: place.exists() and sent() >= least)
            process.send_signal(signal.SIGKILL)
            kills += process.wait(60) == -signal.SIGKILL
    assert kills == 2
    assert 0 < int(place.read_bytes().split()[0]) < sent()  # it was sent more than it was told
    code, said = replay(*base)
    assert code == 0, said
    found = re.search(r"([0-9,]+) it had before", said)
    assert found is not None and int(found[1].replace(",", "")) > 0
    assert numbers(target) == list(range(1500))


def test_an_interrupted_replay_keeps_its_place_to_the_event(
    tmp_path: Path, target: Gateway
) -> None:
    written = Written(tmp_path / "data")
    written.commit(*["visit"] * 300)
    base = ("--data", written.data, "--url", url(target), "--checkpoint", "copy")
    with subprocess.Popen(
        command(*base, "--rate", 100), stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        until(lambda: target.metric('ingest_events_accepted_total{type="visit"}') >= 5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"goes on where it was: checkpoint copy" in said and b"Traceback" not in said
    assert replay(*base)[0] == 0
    # The event that was on its way at Ctrl-C may have been taken without our knowing.
    count = Counter(numbers(target))
    assert sorted(count) == list(range(300)) and count.total() <= 301


def test_a_replay_of_a_target_that_comes_back_loses_and_repeats_nothing(
    tmp_path: Path, start: Callable[..., Gateway]
) -> None:
    written = Written(tmp_path / "data")
    written.commit(*["order"] * 400)
    target = start()
    port = target.port
    with subprocess.Popen(
        command("--data", written.data, "--url", url(target), "--rate", 400, "--retries", 20),
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        until(lambda: target.metric('ingest_events_accepted_total{type="order"}') >= 50)
        target.kill()
        target.flags = ("--bind", f"127.0.0.1:{port}")
        target.start()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    assert b"attempts repeated" in said
    assert numbers(target) == list(range(400))


def test_a_target_that_is_not_there_is_exit_8_in_words_and_the_place_is_kept(
    written: Written, start: Callable[..., Gateway]
) -> None:
    target = start()
    target.stop()
    flags = ("--retries", 1, "--checkpoint", "copy")
    code, said = replay("--data", written.data, "--url", url(target), *flags)
    assert code == 8
    lines = said.splitlines()
    refused = os.strerror(errno.ECONNREFUSED)
    assert lines[0].startswith(f"ingest: {url(target)} does not take it, after 2 attempts: ")
    assert lines[0].endswith(refused)
    assert lines[1].startswith("0 events sent") and "1 attempts repeated" in lines[1]
    assert lines[2] == "the same command goes on where it was: checkpoint copy"
    target = start()
    assert replay("--data", written.data, "--url", url(target), *flags)[0] == 0
    assert numbers(target) == [0, 1, 2, 3, 4]


def test_two_replays_cannot_go_by_one_checkpoint(tmp_path: Path, target: Gateway) -> None:
    written = Written(tmp_path / "data")
    written.commit(*["visit"] * 100)
    base = ("--data", written.data, "--url", url(target), "--checkpoint", "copy")
    with subprocess.Popen(command(*base, "--rate", 5), cwd=ROOT) as process:
        until(lambda: target.metric('ingest_events_accepted_total{type="visit"}') >= 1)
        assert replay(*base) == (3, "ingest: another replay goes by the checkpoint 'copy'\n")
        process.kill()


def test_a_checkpoint_beyond_the_end_is_of_another_journal(
    written: Written, target: Gateway
) -> None:
    base = ("--data", written.data, "--url", url(target), "--checkpoint", "copy")
    assert replay(*base)[0] == 0
    written.path.write_bytes(b"")
    code, said = replay(*base)
    assert code == 2 and "of another data directory" in said
    (written.data / "checkpoints" / "copy" / "0").write_bytes(b"3 00000000\n")
    code, said = replay(*base)
    assert code == 6 and "checkpoints/copy/0 is broken" in said


def test_events_that_retention_has_taken_are_told(written: Written, target: Gateway) -> None:
    base = ("--data", written.data, "--url", url(target), "--checkpoint", "copy")
    assert replay(*base, "--to-offset", 2)[0] == 0
    for compressed in written.path.parent.glob("*.zst"):
        compressed.unlink()
    code, said = replay(*base)
    assert code == 1 and said.startswith("ingest: partition 0, offset 2 to 2: gone\n")
    assert numbers(target) == [0, 1, 3, 4]


# -- rejected events ---------------------------------------------------------------------------


def test_rejected_events_get_in_once_their_schema_is_right(start: Callable[..., Gateway]) -> None:
    target = start()
    for n in (1, 7, 8):
        assert target.post("/v1/events/small", {"n": n}).status == (202 if n == 1 else 422)
    assert target.post("/v1/events/small", {"n": "x"}).status == 422
    assert target.post("/v1/events/small", b'{"n":1,}').status == 400
    event = {"specversion": "1.0", "id": "A1", "source": "/shop", "type": "small", "data": {"n": 9}}
    media = {"Content-Type": "application/cloudevents+json"}
    assert target.request("POST", "/v1/events", json.dumps(event).encode(), media).status == 422
    target.stop()
    target = start(small={**NUMBER, "x-ingest": {"on_reject": "keep"}})
    flags = ("--rejected", "--data", target.data, "--bind", f"127.0.0.1:{target.port}")
    code, said = replay(*flags)
    assert code == 1  # two are as wrong as before
    assert "3 events sent" in said and ", 2 refused" in said
    assert "refused: 422 schema_violation, /n: " in said and "refused: 400 malformed_json" in said
    assert numbers(target) == [1, 7, 8, 9]
    assert (target.journal()[-1]["id"], target.journal()[-1]["source"]) == ("A1", "/shop")
    # They are remembered as sent; those two were refused again, and so kept again.
    until(lambda: len(target.journal("--rejected")) == 7)
    code, said = replay(*flags)
    assert code == 1 and "0 events sent" in said and ", 2 refused" in said
    assert numbers(target) == [1, 7, 8, 9]
    assert not (target.data / "checkpoints").exists()  # which are of the other journal


def test_of_what_was_too_long_to_keep_nothing_is_sent(tmp_path: Path, target: Gateway) -> None:
    written = Written(tmp_path / "data", "rejected")
    written.commit("visit", more=b',"rejectedcode":"schema","rejectedsize":70000')
    written.commit("visit", more=b',"rejectedcode":"schema"')
    code, said = replay("--data", written.data, "--rejected", "--url", url(target))
    assert code == 1 and ", 1 left out" in said
    assert "offset 0 left out: only the beginning of its 70,000 bytes was kept" in said
    assert numbers(target) == [1]


# -- on a terminal, and what cannot be done ------------------------------------------------------


def test_a_progress_bar_with_the_rate_is_drawn_on_a_terminal(
    written: Written, target: Gateway
) -> None:
    words = command("--data", written.data, "--url", url(target), "--rate", 5)
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=theirs, timeout=60, cwd=ROOT)
        drawn = os.read(ours, 1 << 16).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    assert re.search(r"\rreplaying: .*5\.00 \[.* events/s\]", drawn), drawn
    assert re.search(r"\r5 events sent to [^\r]*\r\n$", drawn), drawn


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "say where to"),
        (("--to", "-", "--url", "http://127.0.0.1:1"), "--to goes without --url"),
        (("--to", "ftp://example.com/"), "is no URL like"),
        (("--to", "http://me@example.com/"), "its host can be a name or an address only"),
        (("--url", "http://127.0.0.1:8080/?x"), "is no gateway's URL"),
        (("--to-type", "x", "--bind", "127.0.0.1:0"), "--url says it"),
        (("--to", "-", "--rate", "0"), "'0' is no number"),
        (("--to", "-", "--retries", "few"), "'few' is no number"),
        (("--to", "-", "--header", "none"), "is no header field"),
        (("--to", "-", "--header", "Host: x"), "Host is said by the messages"),
        (("--to", "-", "--checkpoint", "../x"), "can be no checkpoint's name"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_in_words(
    written: Written, flags: tuple[str, ...], said: str
) -> None:
    code, words = replay("--data", written.data, *flags)
    assert code == 2
    assert said in words and "Traceback" not in words
    assert not (written.data / "checkpoints").exists()


def test_standard_output_that_cannot_be_written_is_exit_7_and_the_place_stays(
    written: Written,
) -> None:
    words = ("--data", written.data, "--to", "-", "--checkpoint", "out")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*words), stdout=full, stderr=subprocess.PIPE, timeout=60, cwd=ROOT
        )
    assert done.returncode == 7
    said = f"ingest: standard output: {os.strerror(errno.ENOSPC)}\n"
    assert done.stderr.decode() == said
    assert len(run_bytes(*words).splitlines()) == 5
