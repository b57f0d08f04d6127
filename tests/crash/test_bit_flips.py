"""A disk that changes bytes: `verify` says so, a start gets over it, the rest is still there.

A thousand random damages of a directory with closed segments and one that a killed gateway
left open, fill and all; each is to be seen. What `verify` cannot see are bytes that are gone, or
never counted: docs/durability.md names them.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.journal import verify
from ingest.journal.storage import Storage
from ingest.journal.verify import Problem, verify_partition
from tests.crash.conftest import Report
from tests.support.audit import require_stored, stored_in
from tests.support.chance import SCALE, SEED
from tests.support.events import signed
from tests.support.flips import Undamaged
from tests.support.gateway import Gateway
from tests.support.recording import FLAGS, Storming, wait_until_compressed
from tests.support.replay import QUICK, empty, leave_open, place, recover_and_append

FLIPS = 1000 * SCALE
STARTS = 2 * SCALE


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Undamaged:
    directory = tmp_path_factory.mktemp("flips")
    return Undamaged(data_directory(directory))


def data_directory(directory: Path) -> Path:
    """Of gateways that were killed under load: with compressed segments, plain ones, and one
    that is open and has fill."""
    data = directory / "data"
    acks = directory / "acks"
    acks.touch()
    storming = Storming(acks, clients=5, batch_max=4)
    for compress_after in ("0.1s", "60s"):
        gateway = Gateway(data, *FLAGS, "--segment-compress-after", compress_after).start()
        storming.against(gateway.port)
        storming.wait_for(60, gateway)
        gateway.kill()
        storming.result()
        if compress_after == "0.1s":
            idle = Gateway(data, *FLAGS).start()
            wait_until_compressed(data, idle, upto=0)
            assert idle.stop() == 0
    storming.end()
    leave_open(Storage(), data / "journal" / "0", commits=5, fill_bytes=2000)
    return data


@pytest.fixture
def directory() -> Iterator[Path]:
    with place() as root:
        yield root


def test_a_thousand_damages_are_seen_survived_and_cost_nothing_else(
    undamaged: Undamaged, directory: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.setattr(verify, "SETTLE_SECONDS", 0.0)  # nobody writes here
    kinds = [name.rpartition(".")[2] for name in undamaged.segments]
    assert kinds.count("zst") > 1 and kinds.count("ndjson") > 1, undamaged.segments
    chance = random.Random(SEED)
    hit: set[str] = set()
    for number in range(FLIPS):
        flip = undamaged.flip(chance)
        where = f"seed {SEED}, damage {number}: {flip.where}"
        hit.add(flip.path)
        empty(directory)
        undamaged.put(directory, flip)
        problems = [p for p in verify_partition(Storage(), directory) if isinstance(p, Problem)]
        assert problems, f"{where} was not seen"
        recover_and_append(QUICK, directory)
        stored = stored_in(directory, damage_allowed=True)
        kept = {one: key for one, key in undamaged.stored.items() if one not in flip.may_lose}
        require_stored(stored, kept, where)
    assert hit == set(undamaged.segments)
    report(f"{FLIPS} damages of {kinds}, {len(undamaged.stored)} events")


def test_a_damaged_directory_keeps_no_gateway_from_starting(
    undamaged: Undamaged, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    for number in range(STARTS):
        flip = undamaged.flip(chance)
        data = tmp_path / str(number)
        partition = data / "journal" / "0"
        partition.mkdir(parents=True)
        undamaged.put(partition, flip)
        gateway = Gateway(data, *FLAGS).start()
        answer = gateway.post("/v1/events/durable", signed("after", 10))
        assert answer.status == 202, flip.where
        assert gateway.request("GET", "/readyz").status == 200, flip.where
        assert gateway.stop() == 0, flip.where
        stored = stored_in(partition, damage_allowed=True)
        assert stored[answer.json()["id"]] == "after", flip.where
