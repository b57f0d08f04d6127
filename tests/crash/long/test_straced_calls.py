"""What strace sees of a gateway is what was recorded, and it stands power loss as well."""

from __future__ import annotations

from pathlib import Path

from tests.crash.conftest import Report
from tests.support.audit import read_acks
from tests.support.chance import SEED
from tests.support.disk import Disk
from tests.support.gateway import Gateway
from tests.support.recorder import Call
from tests.support.recording import FLAGS, Storming, read_log, recorder
from tests.support.replay import Bench, place, replay
from tests.support.straced import calls, effects, tracer


def traced(directory: Path, program: list[str], answers: int) -> list[Call]:
    """Run a gateway under load and strace; its calls, with the acknowledgements it sent."""
    acks, output, root = directory / "acks", directory / "strace", directory / "disk"
    acks.touch()
    root.mkdir()
    storming = Storming(acks, clients=5, batch_max=4)
    gateway = Gateway(root / "data", *FLAGS, program=program, wrapper=tracer(output)).start()
    storming.against(gateway.port)
    storming.wait_for(answers, gateway)
    assert gateway.stop() == 0, gateway.log()
    storming.result()
    storming.end()
    return calls(output, root, read_acks(acks))


def test_nothing_goes_past_the_recorder(tmp_path: Path) -> None:
    log = tmp_path / "log"
    seen = effects(traced(tmp_path, recorder(log), answers=150))
    recorded = effects(read_log(log))
    assert len(seen) > 100
    assert recorded == seen


def test_power_lost_between_any_two_calls_that_strace_saw_costs_nothing(
    tmp_path: Path, report: Report
) -> None:
    log = traced(tmp_path, ["-m", "ingest"], answers=200)
    assert sum(1 for call in log if call["call"] == "ack") >= 200
    with place() as root:
        states = replay(log, Disk(tmp_path / "disk"), Bench(root), seed=SEED, most=40)
    report(f"seed {SEED}: {states} states of {len(log)} calls and acknowledgements")
    assert states >= 1000
