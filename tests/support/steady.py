"""A well-behaved client in a process of its own: one post after the other, at a steady pace.

    python -m tests.support.steady --port 8080 --seconds 20

Most requests go over one connection that is kept; every tenth opens one of its own. Whatever
is not a 202 is a failure. Latencies, in milliseconds from before the connect or the send to
the last byte of the answer, and the failures stand on stdout as JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections import Counter

from tests.support.events import METRICS

PER_SECOND = 100
OWN_CONNECTION_EACH = 10
BODY = json.dumps(METRICS).encode()
HEADERS = {"Content-Type": "application/json"}


def post(connection: http.client.HTTPConnection) -> int:
    connection.request("POST", "/v1/events/metrics", BODY, HEADERS)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(argv)
    kept = http.client.HTTPConnection("127.0.0.1", options.port, timeout=30)
    took: list[float] = []
    failures: Counter[str] = Counter()
    began = time.monotonic()
    for n in range(int(options.seconds * PER_SECOND)):
        time.sleep(max(0.0, began + n / PER_SECOND - time.monotonic()))
        start = time.monotonic()
        own = n % OWN_CONNECTION_EACH == 0
        connection = kept
        if own:
            connection = http.client.HTTPConnection("127.0.0.1", options.port, timeout=30)
        try:
            status = post(connection)
            if status != 202:
                failures[str(status)] += 1
        except (OSError, http.client.HTTPException) as error:
            failures[repr(error)] += 1
            connection.close()
        took.append((time.monotonic() - start) * 1000)
        if own:
            connection.close()
        if time.monotonic() - began > options.seconds:
            break
    took.sort()
    summary = {
        "requests": len(took),
        "failures": dict(failures),
        "p50_ms": round(took[len(took) // 2], 3),
        "p99_ms": round(took[len(took) * 99 // 100], 3),
        "max_ms": round(took[-1], 3),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
