"""Outages: what the alerts name, brought about for real in gateways of their own, and ended again.

Each `Outage` has its gateway and the alerts that are to fire about it, in stages. `cause` is called
again and again until those of the stage have fired; then comes `turn` and the next stage, or after
the last one `heal`, and then `calm` again and again until none of the alerts is left.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import ClassVar

from tests.support.certificates import DAY, HOST, NOW, EncryptedGateway
from tests.support.events import METRICS, metric
from tests.support.gateway import Client, Gateway
from tests.support.mock_kafka import MockBrokers
from tests.support.waiting import until
from tests.support.workers import alive, pids

MIB = 1 << 20
JSON = {"Content-Type": "application/json"}
ANY = json.dumps({"type": "object", "x-ingest": {"on_reject": "keep"}, "required": ["do"]})

#: What a producer that traces its requests sends.
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: Does what the event says; each is something that handlers have done to services.
HANDLER = """\
import time
import gevent
from ingest import consumers

def fail():
    raise RuntimeError("nobody sees to this")

def handle(event):
    do = event.data["do"]
    if do == "raise":
        fail()
    elif do == "stray":
        gevent.spawn(fail)
    elif do == "wait":
        gevent.sleep(0.2)
    elif do == "burn":
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            pass
    elif do == "pause":
        consumers.pause("follow")
    elif do == "resume":
        consumers.resume("follow")
"""
#: Writes to another service, which is at SINK.
CONSUMER = """\
import os
import socket
from pathlib import Path

def consume(events):
    if any(event.data["do"] == "poison" for event in events):
        raise ValueError("cannot be processed")
    port = int(Path(os.environ["SINK"]).read_text())
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sink:
        sink.sendall(b"x" * len(events))
"""


class Outage:
    """A gateway to which something happens.

    Args:
        directory: all its own.

    Attributes:
        stages: alerts that are to fire, one set after the other, and then to resolve.
        stage: the one that is on.
        several: it has workers that may hang, and so may a scrape.
    """

    stages: ClassVar[tuple[set[str], ...]] = ()
    flags: ClassVar[tuple[str, ...]] = ()
    several: ClassVar[bool] = False

    def __init__(self, directory: Path) -> None:
        self.name = type(self).__name__
        self.stage = 0
        self.directory = directory / self.name
        self.env: dict[str, str] = {}
        for folder in ("schemas", "handlers"):
            (self.directory / folder).mkdir(parents=True)
        self.prepare()
        self.gateway = self.made()

    def prepare(self) -> None:
        """Files and variables, before the gateway starts."""
        for name in ("act", "follow"):
            (self.directory / "schemas" / f"{name}.json").write_text(ANY)
        (self.directory / "schemas" / "metrics.json").write_text(
            Path("schemas/metrics.json").read_text()
        )
        (self.directory / "handlers" / "act.py").write_text(HANDLER)

    def made(self, *wrapper: str) -> Gateway:
        folders = [f"--{name}={self.directory}/{name}" for name in ("schemas", "handlers")]
        return Gateway(
            self.directory / "data", *folders, *self.flags, env=self.env, wrapper=wrapper
        )

    @property
    def port(self) -> int:
        """Where its metrics are."""
        return self.gateway.port

    def cause(self) -> None:
        """Bring it about, or keep it up; called several times a second."""

    def turn(self) -> None:
        """The next stage begins."""

    def heal(self) -> None:
        """End it."""

    def calm(self) -> None:
        """What the gateway has to do afterwards; called several times a second."""

    def end(self) -> None:
        """Let go of everything."""
        if self.gateway.alive():
            self.gateway.stop()

    def post(self, kind: str, do: str) -> None:
        self.gateway.post(f"/v1/events/{kind}", {"do": do})


class Nothing(Outage):
    """Traffic and nothing else: no alert may be about it."""

    def cause(self) -> None:
        assert self.gateway.post("/v1/events/metrics", METRICS, traceparent=TRACE).status == 202
        assert self.gateway.post("/v1/events/act", {"do": "nothing"}).status == 202

    calm = cause


class Crash(Outage):
    """The process is killed while a commit is half written, and stays away for a while."""

    stages = ({"IngestInstanceDown"}, {"IngestTornBytes"})

    def cause(self) -> None:
        if self.gateway.alive() and not self.stage:
            self.gateway.post("/v1/events/metrics", METRICS)
            self.gateway.kill()
            (segment,) = (self.directory / "data" / "journal" / "0").glob("*.ndjson")
            with segment.open("r+b") as file:
                file.seek(len(segment.read_bytes().rstrip(b"\0")))
                file.write(b'{"specversion":"1.0","id":"half a rec')

    def turn(self) -> None:
        """It is started again, as systemd would."""
        self.gateway = self.made().start()

    def heal(self) -> None:
        """A start that finds all well ends what the first one found."""
        self.gateway.stop()
        self.gateway = self.made().start()


class DeadWorkers(Outage):
    """One worker dies whenever it is up again; then one stands still."""

    stages = ({"IngestWorkerRestarting"}, {"IngestWorkerDown"})
    flags = ("--workers", "2")
    several = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._killed: set[int] = set()

    def cause(self) -> None:
        victim = pids(self.gateway)[1]
        if not self.stage and victim not in self._killed:
            self._killed.add(victim)
            os.kill(victim, signal.SIGKILL)

    def turn(self) -> None:
        self._signal(signal.SIGSTOP)

    def heal(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        """To the newest process of the worker."""
        until(lambda: alive(pids(self.gateway)[1]))
        os.kill(pids(self.gateway)[1], number)

    def end(self) -> None:
        if self.gateway.alive():
            self.heal()
        super().end()


class FailingHandler(Outage):
    """A handler raises, in its own greenlet and in one that nobody looks after."""

    stages = ({"IngestHandlerFailing", "IngestServerErrors", "IngestUnhandledErrors"},)

    def cause(self) -> None:
        self.post("act", "raise")
        self.post("act", "stray")

    def calm(self) -> None:
        self.post("act", "nothing")


class BlockedHub(Outage):
    """A handler computes and lets nobody else run."""

    stages = ({"IngestHubBlocked"},)

    def cause(self) -> None:
        self.post("act", "burn")


class Overload(Outage):
    """Many producers at a pool with one slot."""

    stages = ({"IngestOverloaded"},)
    flags = ("--pool-size", "1", "--pool-queue-max", "1")

    def cause(self) -> None:
        asking = [threading.Thread(target=self.post, args=("act", "wait")) for _ in range(6)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()


class Crowd(Outage):
    """One client opens more connections than it may."""

    stages = ({"IngestConnectionsRefused"},)
    flags = ("--connections-max", "8")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._open: list[Client] = []

    def cause(self) -> None:
        self._open = [*self._open[-6:], *(self.gateway.connect() for _ in range(4))]

    def heal(self) -> None:
        for client in self._open:
            client.sock.close()


class WrongKeys(Outage):
    """Producers without a key, and a keys file that an editor has spoilt."""

    stages = ({"IngestAccessRefused", "IngestReloadFailed"},)

    def prepare(self) -> None:
        super().prepare()
        self.keys = self.directory / "keys.json"
        self.env = {"INGEST_KEYS_FILE": str(self.keys)}
        add = ("-m", "ingest", "keys", "add", "shop", "--keys-file", str(self.keys))
        subprocess.run([os.sys.executable, *add], check=True, capture_output=True)  # type: ignore[attr-defined]
        self.good = self.keys.read_bytes()

    def cause(self) -> None:
        self.keys.write_bytes(self.good + b"\n" + os.urandom(8).hex().encode())
        for _ in range(5):
            assert self.gateway.post("/v1/events/metrics", METRICS).status == 401

    def heal(self) -> None:
        self.keys.write_bytes(self.good)


class FillingDisk(Outage):
    """Something else fills the disk, slowly."""

    stages = ({"IngestDiskFilling"},)
    room = 3 << 30

    def prepare(self) -> None:
        super().prepare()
        found = os.statvfs(self.directory)
        reserve = found.f_bavail * found.f_frsize - self.room
        assert reserve > 0, f"needs {self.room} bytes of free disk, and only reserves them"
        self.env = {"INGEST_DISK_RESERVE_BYTES": str(reserve)}
        self._filler = self.directory / "filler"
        self._size = 0

    def grow(self, size: int) -> None:
        """Take room; nothing is written."""
        with self._filler.open("ab") as file:
            os.posix_fallocate(file.fileno(), self._size, size)
        self._size += size

    def cause(self) -> None:
        self.grow(8 * MIB)

    def heal(self) -> None:
        self._filler.unlink()

    def end(self) -> None:
        self._filler.unlink(missing_ok=True)
        super().end()


class FullDisk(FillingDisk):
    """Something else has filled the disk."""

    stages = ({"IngestDiskFull", "IngestNotReady"},)
    room = 1 << 30

    def cause(self) -> None:
        if not self._size:
            self.grow(3 * self.room // 2)
        self.gateway.post("/v1/events/metrics", METRICS)


class BrokenDisk(Outage):
    """No file of the process can grow any more: journal, rejected events, closed segments, log."""

    stages = (
        {
            "IngestJournalFailing", "IngestJanitorFailing", "IngestRejectedDropped",
            "IngestEventsRejected", "IngestLogLinesDropped",
        },
    )  # fmt: skip

    def prepare(self) -> None:
        super().prepare()
        self.env = {
            "INGEST_SEGMENT_MAX_BYTES": "64KiB", "INGEST_SEGMENT_COMPRESS_AFTER_SECONDS": "3",
            "INGEST_SEGMENT_FILL_BYTES": "0", "INGEST_ACCESS_LOG": "all",
        }  # fmt: skip

        self._filled = False

    def _limit(self, size: int) -> None:
        _, hard = resource.prlimit(self.gateway.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.gateway.pid, resource.RLIMIT_FSIZE, (size, hard))

    def cause(self) -> None:
        if not self._filled:
            self._filled = True
            for _ in range(3):  # some whole segments first, for the janitor
                self.gateway.post("/v1/batch/metrics", [metric(n) for n in range(500)])
        self._limit(1)
        self.gateway.post("/v1/events/metrics", METRICS)
        self.gateway.post("/v1/events/follow", {"not": "what the schema asks for"})

    def heal(self) -> None:
        self._limit(resource.prlimit(self.gateway.pid, resource.RLIMIT_FSIZE)[1])

    def calm(self) -> None:
        self.post("follow", "nothing")


class SlowDisk(Outage):
    """Each fdatasync takes a third of a second."""

    stages = ({"IngestJournalSlow"},)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._tracer: subprocess.Popen[bytes] | None = None

    def cause(self) -> None:
        if self._tracer is None:
            slow = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=330000")
            command = ["strace", "-f", "-qq", "-o", os.devnull, *slow, "-p", str(self.gateway.pid)]
            self._tracer = subprocess.Popen(command)
        self.gateway.post("/v1/events/metrics", METRICS)

    def heal(self) -> None:
        if self._tracer is not None:
            self._tracer.send_signal(signal.SIGINT)  # it lets go of the process
            self._tracer.wait(60)

    def calm(self) -> None:
        self.gateway.post("/v1/events/metrics", METRICS)

    def end(self) -> None:
        if self._tracer is not None and self._tracer.poll() is None:
            self.heal()
        super().end()


class HeldBrokers(Outage):
    """Kafka's brokers hang; what waits for them is given up in the end."""

    stages = ({"IngestKafkaStalled"}, {"IngestKafkaErrors", "IngestKafkaSlow"})

    def prepare(self) -> None:
        super().prepare()
        options = {"sink": "kafka", "ack": "remote"}
        schema = json.dumps({"x-ingest": options})
        (self.directory / "schemas" / "sent.json").write_text(schema)
        self._brokers = MockBrokers()
        self.env["INGEST_KAFKA_BROKERS"] = self._brokers.addresses
        self.env["INGEST_KAFKA_DELIVERY_TIMEOUT_SECONDS"] = "8s"
        self._clients: list[Client] = []
        self._held = False

    def cause(self) -> None:
        if not self._held:
            self.gateway.post("/v1/events/sent", 1)
            self._brokers.hold()
            self._held = True
        if len(self._clients) < 200:
            self._clients.append(self.gateway.connect())
            self._clients[-1].send(
                b"POST /v1/events/sent HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
                b"Content-Type: application/json\r\n\r\n1"
            )

    def heal(self) -> None:
        self._brokers.go_on()
        for client in self._clients:
            client.sock.close()

    def calm(self) -> None:
        self.gateway.post("/v1/events/sent", 1)

    def end(self) -> None:
        super().end()
        self._brokers.kill()


class HeldForwarder(Outage):
    """Brokers hang and events wait in the journal; some of it is removed; and one is too large."""

    stages = (
        {"IngestForwardLagging"}, {"IngestForwardMissedEvents", "IngestForwardDeadLetters"},
    )  # fmt: skip

    def prepare(self) -> None:
        super().prepare()
        schema = json.dumps({"x-ingest": {"sink": "kafka"}})
        (self.directory / "schemas" / "sent.json").write_text(schema)
        self._brokers = MockBrokers()
        self.env |= {
            "INGEST_KAFKA_BROKERS": self._brokers.addresses,
            "INGEST_KAFKA": "message.max.bytes=3000", "INGEST_KAFKA_INFLIGHT_MAX_BYTES": "64KiB",
            "INGEST_SEGMENT_MAX_BYTES": "64KiB", "INGEST_SEGMENT_FILL_BYTES": "0",
            "INGEST_SEGMENT_COMPRESSION": "off", "INGEST_FORWARD_MAX_ATTEMPTS": "1",
        }  # fmt: skip
        self._held = False

    def cause(self) -> None:
        if self.stage:
            self.gateway.post("/v1/events/sent", "x" * 4000)
        elif not self._held:
            self._held = True
            self.gateway.post("/v1/events/sent", "the first")
            self._brokers.hold()
            for _ in range(20):
                self.gateway.post("/v1/batch/sent", ["x" * 1000] * 40)

    def turn(self) -> None:
        """What the forwarder has yet to read goes; then it can go on."""
        segments = sorted((self.directory / "data" / "journal" / "0").glob("*.ndjson*"))
        for lost in segments[4:-1]:
            lost.unlink()
        self._brokers.go_on()

    def calm(self) -> None:
        self.gateway.post("/v1/events/sent", "small")

    def end(self) -> None:
        super().end()
        self._brokers.kill()


class DeadSink(Outage):
    """What a consumer writes to is down."""

    stages = ({"IngestConsumerStuck", "IngestConsumerLagging"},)

    def prepare(self) -> None:
        super().prepare()
        (self.directory / "handlers" / "follow.py").write_text(CONSUMER)
        sink = self.directory / "sink"
        self.sink = socket.socket()
        self.sink.bind(("127.0.0.1", 0))  # and nobody listens
        sink.write_text(str(self.sink.getsockname()[1]))
        self.env = {
            "SINK": str(sink), "INGEST_CONSUME_BACKOFF_MAX_SECONDS": "0.2",
            "INGEST_CONSUME_MAX_ATTEMPTS": "0", "INGEST_CONSUME_LINGER_SECONDS": "0",
        }  # fmt: skip

    def cause(self) -> None:
        self.post("follow", "nothing")

    def heal(self) -> None:
        self.sink.listen(1000)

    def calm(self) -> None:
        self.post("follow", "nothing")

    def end(self) -> None:
        self.sink.close()
        super().end()


class LostPlace(DeadSink):
    """A consumer is paused, what it has yet to read is removed; and an event is poison to it."""

    stages = (
        {"IngestConsumerPaused"}, {"IngestConsumerMissedEvents", "IngestConsumerDeadLetters"},
    )  # fmt: skip

    def prepare(self) -> None:
        super().prepare()
        self.sink.listen(1000)
        self.env |= {
            "INGEST_CONSUME_MAX_ATTEMPTS": "1", "INGEST_SEGMENT_MAX_BYTES": "64KiB",
            "INGEST_CONSUME_BACKOFF_MIN_SECONDS": "0.01", "INGEST_SEGMENT_FILL_BYTES": "0",
            "INGEST_CONSUME_CHECKPOINT_SECONDS": "0", "INGEST_SEGMENT_COMPRESSION": "off",
        }  # fmt: skip
        self._lost = False

    def cause(self) -> None:
        if self.stage:
            self.post("follow", "poison")
        elif not self._lost:
            self._lost = True
            self.post("act", "pause")
            for _ in range(20):
                batch = [{"do": "x" * 1000} for _ in range(20)]
                self.gateway.post("/v1/batch/follow", batch)
            segments = sorted((self.directory / "data" / "journal" / "0").glob("*.ndjson*"))
            for lost in segments[1:-1]:
                lost.unlink()

    def turn(self) -> None:
        """It goes on, and finds what is missing; and then what it cannot process."""
        self.post("act", "resume")

    def heal(self) -> None:
        """Nothing is left to be done: no more is lost, and no more is poison."""


class OldCertificate(Outage):
    """A certificate ends in some days, and is renewed."""

    stages = ({"IngestCertificateExpires"},)

    def made(self, *wrapper: str) -> Gateway:
        folders = [f"--{name}={self.directory}/{name}" for name in ("schemas", "handlers")]
        made = EncryptedGateway(self.directory, *folders, "--admin-bind", "127.0.0.1:0")
        made.authority.issue("server", HOST, not_after=NOW + 10 * DAY)
        self._authority = made.authority
        self._port = 0
        return made

    @property
    def port(self) -> int:
        self._port = self._port or self.gateway.admin_port()
        return self._port

    def heal(self) -> None:
        self._authority.issue("server", HOST, not_after=NOW + 90 * DAY)


OUTAGES: tuple[type[Outage], ...] = (
    Nothing, Crash, DeadWorkers, FailingHandler, BlockedHub, Overload, Crowd, WrongKeys,
    FillingDisk, FullDisk, BrokenDisk, SlowDisk, HeldBrokers, HeldForwarder, DeadSink, LostPlace,
    OldCertificate,
)  # fmt: skip


def start(outages: list[Outage]) -> None:
    """Start their gateways at the same time."""
    for outage in outages:
        outage.gateway.spawn()
    for outage in outages:
        assert outage.gateway.listens(), outage.gateway.log()
    for outage in outages:
        if outage.several:
            until(lambda gateway=outage.gateway: len(pids(gateway)) == 2)
