"""Clients that do anything, to a gateway in a process of its own; and what must hold.

Each connection has a script: requests in order, of which more and more bytes are pushed. So
every split, every pipeline and every point at which a client can go away comes up. The model:

* Answers come in the order of the requests, with the statuses that the requests are due,
  and nothing comes after the answer that closes.
* An event whose 202 (or place in a 207) was read is in the journal, once, with that id.
* An event that was sent whole, but whose answer was not read, is there at most once.
* Nothing else is there: what was refused, not sent whole, or stood behind what closes.
* In the end no connection and no slot of the pool is in use, nothing was logged as an
  unexpected error, and the process is the same one.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from tests.fuzz.requests import KINDS, Sent, Source, marker_of
from tests.support.gateway import Answer, Gateway

#: The gateway must be quiet again within this time after the last client has gone, seconds.
QUIET_SECONDS = 8.0
#: An answer that is due must come within this time, seconds.
ANSWER_SECONDS = 8.0

#: The server drops what comes behind its last answer for 2 s and then resets the connection;
#: an answer that was not read until about then may be lost.
LINGER_SECONDS = 1.5

#: How a client goes.
ENDINGS = ("half close", "close", "reset")

_examples = itertools.count(1)
_SAMPLE = re.compile(r"^(\w+)(?:\{.*\})? (\S+)$", re.MULTILINE)

#: Gauges that must be back at this value; the connection that asks counts itself.
AT_REST = {
    "ingest_connections": 1.0,
    "ingest_pool_in_use": 0.0,
    "ingest_pool_waiting": 0.0,
    "ingest_journal_pending_records": 0.0,
}


class Peer:
    """One client connection and its script.

    Attributes:
        script: requests put on it.
        pushed: bytes sent so far.
        answered: answers read so far.
        closed: the last answer read was the connection's last.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.client = gateway.connect(timeout=ANSWER_SECONDS)
        self.script: list[Sent] = []
        self.ends: list[int] = []
        self.bytes = b""
        self.pushed = 0
        self.answered = 0
        self.closed = False
        self.half_closed = False
        self.closing_since = 0.0

    def put(self, sent: Sent) -> None:
        self.script.append(sent)
        self.bytes += sent.raw
        self.ends.append(len(self.bytes))

    @property
    def whole(self) -> int:
        """How many requests were pushed to their end."""
        return sum(end <= self.pushed for end in self.ends)

    @property
    def due(self) -> int:
        """How many answers must come: those up to the first request that closes."""
        for index, sent in enumerate(self.script[: self.whole]):
            if sent.closes:
                return index + 1
        return self.whole

    def push(self, count: int) -> None:
        data = self.bytes[self.pushed : self.pushed + count]
        if count <= 0 or not data or self.half_closed:
            return
        try:
            self.client.send(data)
        except (BrokenPipeError, ConnectionResetError):
            assert self.lingered(), "the server went away from a connection in use"
            return
        self.pushed += len(data)
        if not self.closing_since and any(s.closes is not False for s in self.script[: self.whole]):
            self.closing_since = time.monotonic()

    def lingered(self) -> bool:
        """Whether the server may have reset the connection by now, behind its last answer."""
        return self.closing_since > 0 and time.monotonic() - self.closing_since > LINGER_SECONDS

    def half_close(self) -> None:
        """Every answer that is due still comes, then the server closes, too."""
        try:
            self.client.sock.shutdown(socket.SHUT_WR)
        except OSError:
            assert self.lingered(), "the server went away from a connection in use"
        self.half_closed = True

    def reset_when_closed(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class Stage:
    """The gateway that all examples share; a new one takes its place when one has failed.

    Args:
        directory: for data.
        flags: of the gateways.
    """

    def __init__(self, directory: Path, *flags: str) -> None:
        self._directory = directory
        self._flags = flags
        self._count = 0
        self.gateway = self._start()

    def _start(self) -> Gateway:
        self._count += 1
        return Gateway(self._directory / f"data-{self._count}", *self._flags).start()

    def replace(self) -> None:
        self.gateway.kill()
        self.gateway = self._start()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """The last gateway must end well."""
        code = self.gateway.stop()
        if error is None:
            assert code == 0 and "Traceback" not in self.gateway.log(), self.gateway.log()[-4000:]


class SocketMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.gateway = stage.gateway
        self.journal = JournalReader(self.gateway.data)
        self.source = Source(f"e{next(_examples)}")
        self.open_peers: list[Peer] = []
        #: id of each event of which the client knows that it is stored
        self.stored: dict[str, str] = {}
        #: events that were sent whole and may be stored
        self.possible: set[str] = set()

    peers = Bundle("peers")

    # -- what clients do ----------------------------------------------------------------

    @rule(target=peers)
    def connect(self) -> Peer:
        peer = Peer(self.gateway)
        self.open_peers.append(peer)
        return peer

    @rule(
        peer=peers,
        kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6),
        seed=st.integers(0, 2**16),
        whole=st.booleans(),
    )
    def put_requests(self, peer: Peer, kinds: list[str], seed: int, whole: bool) -> None:
        self.put(peer, kinds, seed)
        if whole:
            self.push(peer, len(peer.bytes))

    @rule(peer=peers, count=st.integers(1, 400) | st.integers(1, 9000))
    def push_some(self, peer: Peer, count: int) -> None:
        self.push(peer, count)

    @rule(peer=peers)
    def push_until_request_lacks_one_byte(self, peer: Peer) -> None:
        end = next((end for end in peer.ends if end > peer.pushed + 1), None)
        if end is not None:
            self.push(peer, end - 1 - peer.pushed)

    @rule(peer=peers, count=st.integers(1, 40))
    def push_byte_by_byte(self, peer: Peer, count: int) -> None:
        for _ in range(count):
            self.push(peer, 1)

    @rule(peer=peers, count=st.integers(1, 4))
    def read(self, peer: Peer, count: int) -> None:
        for _ in range(min(count, peer.due - peer.answered)):
            if peer.closed or not self.read_answer(peer):
                return

    @rule(peer=consumes(peers), ending=st.sampled_from(ENDINGS))
    def go(self, peer: Peer, ending: str) -> None:
        self.end(peer, ending)

    @rule(
        peer=consumes(peers),
        kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8),
        seed=st.integers(0, 2**16),
        lacking=st.integers(0, 300),
        ending=st.sampled_from(ENDINGS),
    )
    def burst_and_go(
        self, peer: Peer, kinds: list[str], seed: int, lacking: int, ending: str
    ) -> None:
        """All at once: a pipeline that may be cut off, and the end of the client."""
        self.put(peer, kinds, seed)
        self.push(peer, len(peer.bytes) - peer.pushed - lacking)
        self.end(peer, ending)

    @rule(path=st.sampled_from(["/livez", "/readyz", "/startupz", "/health"]))
    def probe(self, path: str) -> None:
        assert self.gateway.request("GET", path).status == 200

    # -- the model ----------------------------------------------------------------------

    def put(self, peer: Peer, kinds: list[str], seed: int) -> None:
        for number, kind in enumerate(kinds):
            peer.put(self.source.make(kind, seed + number))

    def end(self, peer: Peer, ending: str) -> None:
        if ending == "half close":
            peer.half_close()
            self.finish(peer)
            return
        if ending == "reset":
            peer.reset_when_closed()
        peer.client.sock.close()
        self.open_peers.remove(peer)

    def push(self, peer: Peer, count: int) -> None:
        before = peer.whole
        peer.push(count)
        for index in range(before, min(peer.whole, peer.due)):
            self.possible.update(filter(None, peer.script[index].events))

    def read_answer(self, peer: Peer) -> bool:
        """Read the next answer that is due; False: it was lost to a reset, which may be."""
        sent = peer.script[peer.answered]
        try:
            answer = peer.client.answer(without_body=sent.head)
            while answer.status == 100:
                assert b"100-continue" in sent.raw
                answer = peer.client.answer(without_body=sent.head)
        except ConnectionResetError:
            assert peer.lingered(), "reset before the answer"
            peer.closed = True
            return False
        peer.answered += 1
        assert answer.status == sent.status, (sent, answer)
        says_close = answer.headers.get("connection") == "close"
        peer.closed = says_close
        if sent.closes is not None:
            assert says_close is sent.closes, (sent, answer)
        if sent.request_id and not says_close:
            assert answer.headers["x-request-id"] == sent.request_id
        self.note_stored(sent, answer)
        if peer.closed:  # what stands behind it is no request
            for behind in peer.script[peer.answered :]:
                self.possible.difference_update(filter(None, behind.events))
        return True

    def note_stored(self, sent: Sent, answer: Answer) -> None:
        if answer.status not in (202, 207):
            self.possible.difference_update(filter(None, sent.events))
            return
        document = answer.json()
        ids = document.get("ids", [document.get("id")])
        assert len(ids) == len(sent.events)
        assert document["accepted"] == sum(marker is not None for marker in sent.events)
        for marker, event_id in zip(sent.events, ids, strict=True):
            assert (marker is None) == (event_id is None), (sent, document)
            if marker is not None:
                assert marker not in self.stored
                self.stored[marker] = event_id
                self.possible.discard(marker)

    def finish(self, peer: Peer) -> None:
        """Read every answer that is due; then, where it must, the server closes."""
        self.open_peers.remove(peer)
        lost = False
        while not lost and not peer.closed and peer.answered < peer.due:
            lost = not self.read_answer(peer)
        if lost:
            pass
        elif peer.closed:
            assert peer.client.closed(), "something came behind the last answer"
        elif peer.half_closed:
            self.read_last_word(peer)
        peer.client.sock.close()

    def read_last_word(self, peer: Peer) -> None:
        """A request that was cut off may be refused; but it is not served."""
        try:
            answer = peer.client.answer()
            while answer.status == 100:
                answer = peer.client.answer()
        except (EOFError, ConnectionResetError):
            return
        assert peer.pushed > (peer.ends[peer.answered - 1] if peer.answered else 0)
        assert 400 <= answer.status < 600 and answer.headers["connection"] == "close"
        assert peer.client.closed()

    def teardown(self) -> None:
        # A failure is on its way, or (not an Exception) this example has come to its end.
        failed = isinstance(sys.exc_info()[1], Exception)
        try:
            if not failed:
                self.judge()
        except BaseException:
            failed = True
            raise
        finally:
            if failed:
                for peer in self.open_peers:
                    peer.client.sock.close()
                self.stage.replace()

    def judge(self) -> None:
        """What must hold when all clients have gone."""
        for peer in list(self.open_peers):
            self.finish(peer)
        assert_at_rest(self.gateway)
        for record in self.journal.new_records():
            marker = marker_of(record)
            known = self.stored.pop(marker, None)
            if known is None:
                assert marker in self.possible, f"{marker} is stored, but must not be"
                self.possible.remove(marker)
            else:
                assert known == record["id"], f"{marker} is stored under another id"
        assert not self.stored, f"answered, but not in the journal: {self.stored}"


class JournalReader:
    """Reads what is new in a journal of one partition, without the product's help."""

    _positions: dict[Path, int] = {}

    def __init__(self, data: Path) -> None:
        self._data = data

    def new_records(self) -> list[dict[str, Any]]:
        records = []
        for segment in sorted(self._data.glob("journal/*/*.ndjson")):
            with segment.open("rb") as file:
                file.seek(self._positions.get(segment, 0))
                text = file.read().rstrip(b"\n")  # a segment may be filled up with empty lines
            if text:
                self._positions[segment] = self._positions.get(segment, 0) + len(text) + 1
                records += [json.loads(line) for line in text.split(b"\n")]
        return records


def assert_at_rest(gateway: Gateway) -> None:
    """Everything is given back, and nothing unexpected was logged.

    Raises:
        AssertionError: not so within QUIET_SECONDS.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        samples: dict[str, float] = {}
        for name, value in _SAMPLE.findall(gateway.request("GET", "/metrics").body.decode()):
            samples[name] = samples.get(name, 0.0) + float(value)
        busy = {name: samples[name] for name, value in AT_REST.items() if samples[name] != value}
        if not busy:
            break
        assert time.monotonic() < deadline, f"not at rest: {busy}"
        time.sleep(0.002)  # between two looks; the server has the processor meanwhile
    assert samples.get("ingest_unhandled_errors_total", 0.0) == 0.0, gateway.log()[-4000:]
    log = gateway.log()
    assert "Traceback" not in log, log[-4000:]


#: How the gateways are started that machines run against. Slow clients are not the
#: subject here, and a machine may stand still for long while a failure is minimised.
PATIENT = (
    "--header-timeout=10m", "--body-timeout=10m", "--idle-timeout=10m", "--access-log=off",
)  # fmt: skip
#: One slot only: every request stands in line, none is refused.
CRAMPED = (*PATIENT, "--pool-size=1", "--pool-residents=1", "--pool-queue-max=100000")
