"""A cluster of Kafka brokers as processes of this machine, which can be killed and come back.

    with Cluster(brokers=3) as kafka:
        print(kafka.bootstrap)        # 127.0.0.1:41001,127.0.0.1:41002,…
        kafka.topic("events.order", partitions=3)
        kafka.kill(1)                 # kill -9
        kafka.start(1)

Every node is broker and controller (KRaft, no ZooKeeper), on free ports of 127.0.0.1. With three
of them a topic has three replicas, of which two must have a message before it counts.

This module must not know the gateway.

Source: Kafka's documentation, KRaft and broker configurations.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from ops.kafka import install

HEAP = "-Xmx384m"
START_SECONDS = 90.0
STOP_SECONDS = 15.0
#: Any 16 bytes in URL-safe base64; all nodes of a cluster have the same.
CLUSTER_ID = "aW5nZXN0LXRlc3RzAAAAAA"
OPTIONS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "true",
    "num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "unclean.leader.election.enable": "false",
    "log.cleaner.enable": "false",
}


class BrokerFailed(Exception):
    """A broker does not start; the message has its last words."""


class Cluster:
    """Brokers 1 to `brokers`.

    Args:
        brokers: how many; an odd number keeps a majority longest.
        directory: where they keep their data; None for one that is removed at the end.
        options: further configuration of each broker.

    Attributes:
        bootstrap: addresses of all of them, for clients.
    """

    def __init__(
        self,
        brokers: int = 1,
        directory: Path | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.brokers = brokers
        self._directory = directory
        self._options = options or {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()
        self._ports = _free_ports(2 * brokers)
        self.bootstrap = ",".join(f"127.0.0.1:{self.port(n)}" for n in self.numbers)

    @property
    def numbers(self) -> range:
        """The brokers' ids."""
        return range(1, self.brokers + 1)

    def port(self, number: int) -> int:
        """Where clients reach a broker."""
        return self._ports[number - 1]

    def pid(self, number: int) -> int:
        """The process of a broker that runs."""
        return self._processes[number].pid

    def __enter__(self) -> Cluster:
        """Format, start all and wait until they serve.

        Raises:
            install.Unavailable: there can be no broker here.
            BrokerFailed: one does not start.
        """
        if self._directory is None:
            made = tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True)
            self._directory = Path(self._stack.enter_context(made))
        self._java = [install.java(), "-cp", f"{install.jars()}/*"]
        try:
            for number in self.numbers:
                self._format(number)
            for number in self.numbers:
                self._spawn(number)
            for number in self.numbers:
                self.wait(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop all brokers, and remove their data if it was made here."""
        for process in self._processes.values():
            process.terminate()
        for number in list(self._processes):
            self._reap(number)
        self._stack.close()

    # -- one broker ------------------------------------------------------------------------

    def kill(self, number: int) -> None:
        """End a broker at once, as by kill -9 or a power cut of its process."""
        process = self._processes.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, number: int) -> None:
        """Shut a broker down: it hands its partitions over first."""
        self._processes[number].terminate()
        self._reap(number)

    def pause(self, number: int) -> None:
        """Let a broker hang: its connections stay, nothing is answered."""
        self._processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a paused broker go on."""
        self._processes[number].send_signal(signal.SIGCONT)

    def start(self, number: int, wait: bool = True) -> None:
        """Start a broker that was ended, with the data it had.

        Raises:
            BrokerFailed: it does not.
        """
        self._spawn(number)
        if wait:
            self.wait(number)

    def wait(self, number: int) -> None:
        """Wait until a broker takes clients.

        Raises:
            BrokerFailed: it does not.
        """
        deadline = time.monotonic() + START_SECONDS
        process = self._processes[number]
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BrokerFailed(f"broker {number} ended: {self._last_words(number)}")
            try:
                socket.create_connection(("127.0.0.1", self.port(number)), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise BrokerFailed(f"broker {number} does not serve: {self._last_words(number)}")

    def _reap(self, number: int) -> None:
        process = self._processes.pop(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _home(self, number: int) -> Path:
        assert self._directory is not None
        return self._directory / str(number)

    def _format(self, number: int) -> None:
        home = self._home(number)
        home.mkdir(parents=True, exist_ok=True)
        lines = {**OPTIONS, **self._replication(), **self._own(number), **self._options}
        config = home / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted"]
        done = subprocess.run(
            [*self._java, *tool, "-t", CLUSTER_ID, "-c", str(config)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BrokerFailed(f"its data cannot be formatted: {done.stdout}{done.stderr}")

    def _own(self, number: int) -> dict[str, str]:
        controllers = self._ports[self.brokers :]
        voters = (f"{n}@127.0.0.1:{controllers[n - 1]}" for n in self.numbers)
        client = f"PLAINTEXT://127.0.0.1:{self.port(number)}"
        return {
            "node.id": str(number),
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"{client},CONTROLLER://127.0.0.1:{controllers[number - 1]}",
            "advertised.listeners": client,
            "log.dirs": str(self._home(number) / "data"),
        }

    def _replication(self) -> dict[str, str]:
        replicas = str(min(3, self.brokers))
        return {
            "default.replication.factor": replicas,
            "min.insync.replicas": str(max(1, min(3, self.brokers) - 1)),
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "1",
        }

    def _spawn(self, number: int) -> None:
        home = self._home(number)
        command = [*self._java[:1], HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                   *self._java[1:], "kafka.Kafka", str(home / "server.properties")]  # fmt: skip
        with open(home / "log", "ab") as log:
            self._processes[number] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=home,
                env={**os.environ, "KAFKA_LOG4J_OPTS": ""},
            )  # fmt: skip

    def _last_words(self, number: int) -> str:
        return (self._home(number) / "log").read_text(errors="replace")[-2000:]

    # -- for tests ---------------------------------------------------------------------------

    @cached_property
    def admin(self) -> Any:
        """A client that manages the cluster (confluent-kafka)."""
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.bootstrap}, logger=_silent)

    def topic(self, name: str, partitions: int = 3, **config: str) -> None:
        """Make a topic and wait until every partition of it has a leader."""
        from confluent_kafka.admin import NewTopic

        self._until(
            lambda: len(self.admin.list_topics(timeout=10).brokers) == len(self._processes),
            "not all brokers have joined",
        )
        made = self.admin.create_topics([NewTopic(name, partitions, config=config)])
        for future in made.values():
            future.result(30)
        self.wait_for_leaders(name, partitions)

    def leaders(self, topic: str) -> dict[int, int]:
        """The broker that leads each partition of a topic; without those that have none."""
        found = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        return {number: part.leader for number, part in found.items() if part.leader > 0}

    def wait_for_leaders(self, topic: str, partitions: int, but: int | None = None) -> None:
        """Wait until every partition of a topic has a leader.

        Args:
            but: a broker that must lead none.
        """

        def led() -> bool:
            leaders = self.leaders(topic)
            return len(leaders) == partitions and but not in leaders.values()

        self._until(led, f"{topic} has no leaders")

    @staticmethod
    def _until(condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise BrokerFailed(otherwise)
            time.sleep(0.1)


#: For a client that is expected to lose brokers.
_silent = logging.Logger("kafka", logging.CRITICAL + 1)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has; brokers must know each other's before they start."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))
            found.append(taken.getsockname()[1])
    return found
