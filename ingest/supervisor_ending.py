"""The end of the workers' processes: asked for, waited for, and what it means for the whole.

This module must not know when it is the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from ingest import logs
from ingest.exits import ExitCode
from ingest.service_process import Refused
from ingest.settings import Settings
from ingest.supervisor_process import State, WorkerProcess
from ingest.supervisor_slot import END_SECONDS

log = logs.get_logger(__name__)

#: Workers that are of no use because another cannot start have ended by then: they load first.
GIVE_UP_SECONDS = 10.0


def stop_all(processes: Sequence[WorkerProcess], settings: Settings) -> ExitCode:
    """Have them shut down, and kill those that do not; returns the worst exit code."""
    for process in processes:
        process.say("stop")
    deadline = monotonic() + (
        settings.drain_delay_seconds
        + settings.drain_timeout_seconds
        + settings.handler_setup_timeout_seconds
        + END_SECONDS
    )
    code = ExitCode.OK
    for process in processes:
        if not process.wait_end(deadline - monotonic()):
            log.error("supervisor.worker_killed", number=process.number, pid=process.pid)
            process.kill()
            process.wait(State.ENDED)
        code = max(code, _code_of(process))
    return code


def give_up(processes: Sequence[WorkerProcess]) -> None:
    """End them, because starting them has failed."""
    for process in processes:
        process.say("stop")
    deadline = monotonic() + GIVE_UP_SECONDS
    for process in processes:
        if not process.wait_end(deadline - monotonic()):
            process.kill()
            process.wait(State.ENDED)


def _code_of(process: WorkerProcess) -> ExitCode:
    """What a worker's end means for that of all."""
    code = process.exit_code
    if code in (ExitCode.OK, ExitCode.DRAIN_INCOMPLETE):
        return ExitCode(code)
    return ExitCode.WORKER_FAILED


def refusal(process: WorkerProcess) -> Refused:
    """Why nothing can be served at all."""
    if process.failure is not None:
        return Refused(process.failure.message, ExitCode(process.failure.code))
    reason = f"worker {process.number} cannot serve: {process.how_it_ended()}"
    return Refused(reason, ExitCode.WORKER_FAILED)
