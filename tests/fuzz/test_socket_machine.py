"""Any splits, pipelines and disconnects, over real sockets; see `machine`.

FUZZ_EXAMPLES sets how many scripts of clients are tried; `make fuzz` tries as many as
its time allows.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.machine import CRAMPED, PATIENT, SocketMachine, Stage

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "30"))


@pytest.mark.parametrize("flags", [PATIENT, CRAMPED], ids=["roomy", "cramped"])
def test_whatever_clients_do_the_answers_and_the_journal_agree(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with Stage(tmp_path, *flags) as stage:
        run_state_machine_as_test(
            lambda: SocketMachine(stage),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                # A test has 100 seconds; `make fuzz` takes the time to find the shortest script.
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
            ),
        )
