"""This project's server with a clock around each call into librdkafka on the event loop.

    python -m ops.bench.kafka_timed FLAG…       the flags of python -m ingest

At its end it writes to KAFKA_TIMES how long these calls held the event loop up: `produce`, and
`poll` with the reports that it brings. Wall time, so what the kernel gave to others is in it;
the CPU time of the longest call tells that apart. Python collects its garbage when some object
is made, be it within such a call: that is timed by itself and taken off.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402
from typing import Any  # noqa: E402

from ingest.cli import main  # noqa: E402
from ingest.sinks import kafka_producer  # noqa: E402

LIMIT_SECONDS = 0.010
THREAD = monkey.get_original("_thread", "get_ident")
HUB = THREAD()


class Calls:
    """Calls of one kind, on the event loop's thread."""

    def __init__(self) -> None:
        self.count = self.above = 0
        self.longest = self.longest_cpu = self.sum = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        clock, cpu = time.perf_counter, time.thread_time

        def timed(*arguments: Any, **named: Any) -> Any:
            if THREAD() != HUB:
                return call(*arguments, **named)
            started, started_cpu, collected = clock(), cpu(), COLLECTIONS.sum
            try:
                return call(*arguments, **named)
            finally:
                collected = COLLECTIONS.sum - collected
                took = clock() - started - collected
                self.add(took, cpu() - started_cpu - collected if took > self.longest else 0.0)

        return timed

    def add(self, took: float, took_cpu: float) -> None:
        """Count a call that took so many seconds; those of the CPU matter if it is the longest."""
        self.count += 1
        self.sum += took
        self.above += took > LIMIT_SECONDS
        if took > self.longest:
            self.longest, self.longest_cpu = took, took_cpu

    def collecting(self) -> Callable[[str, dict[str, int]], None]:
        """For `gc.callbacks`: counts collections on the event loop from the first message on."""
        started = started_cpu = 0.0

        def collecting(phase: str, _: dict[str, int]) -> None:
            nonlocal started, started_cpu
            if THREAD() != HUB or not CALLS["produce"].count:
                return
            if phase == "start":
                started, started_cpu = time.perf_counter(), time.thread_time()
            else:
                self.add(time.perf_counter() - started, time.thread_time() - started_cpu)

        return collecting

    def document(self) -> dict[str, float]:
        return {
            "calls": self.count,
            "mean_us": self.sum / max(1, self.count) * 1e6,
            "longest_ms": self.longest * 1e3,
            "longest_cpu_ms": self.longest_cpu * 1e3,
            "above_10_ms": self.above,
        }


CALLS = {"produce": Calls(), "poll": Calls(), "garbage collection": Calls()}
COLLECTIONS = CALLS["garbage collection"]


def timed_library() -> Any:
    import confluent_kafka

    def producer(*arguments: Any, **named: Any) -> Any:
        made = confluent_kafka.Producer(*arguments, **named)
        return SimpleNamespace(
            produce=CALLS["produce"].timed(made.produce),
            poll=CALLS["poll"].timed(made.poll),
            list_topics=made.list_topics,
        )

    return SimpleNamespace(Producer=producer, KafkaException=confluent_kafka.KafkaException)


if __name__ == "__main__":
    kafka_producer.library_or_refuse = timed_library
    gc.callbacks.append(COLLECTIONS.collecting())
    code = main(sys.argv[1:])
    times = {name: calls.document() for name, calls in CALLS.items()}
    Path(os.environ["KAFKA_TIMES"]).write_text(json.dumps(times))
    sys.exit(code)
