"""Starts real Kafka brokers on this machine and keeps them until it is told to end.

    python -m ops.kafka                      one broker; prints its address
    python -m ops.kafka --brokers 3          three, with three replicas of each topic
    python -m ops.kafka --directory DIR      keeps their data in DIR

It needs Java and Maven, which brings Kafka's published jars once (about 50 MB, build/kafka).
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from ops.kafka import install
from ops.kafka.cluster import BrokerFailed, Cluster
from ops.kafka.install import Unavailable


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ops.kafka",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--brokers", type=int, default=1, help="how many; default 1")
    parser.add_argument(
        "--directory", type=Path, help="of their data; default: one that is removed"
    )
    parser.add_argument("--fetch", action="store_true", help="only bring the jars")
    options = parser.parse_args()
    # SIGTERM ends it as Ctrl-C does, whatever it is about: brokers that were started are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.fetch:
            print(f"real Kafka brokers: {install.java()}, {install.jars()}")
            return 0
        with Cluster(options.brokers, options.directory) as cluster:
            print(cluster.bootstrap, flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except (Unavailable, BrokerFailed) as error:
        print(f"ops.kafka: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
