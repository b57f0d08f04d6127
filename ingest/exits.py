"""Exit codes of the command line, named once. Knows nothing else."""

from __future__ import annotations

import enum

#: Ctrl-C: 128 + SIGINT, as shells report it.
INTERRUPTED = 130


class ExitCode(enum.IntEnum):
    """What the process's exit code says."""

    OK = 0
    #: `check` or `journal verify` found something wrong.
    PROBLEMS = 1
    #: The command line, the environment or a settings file is not usable.
    USAGE = 2
    #: Another process holds the data directory.
    DATA_LOCKED = 3
    #: The address cannot be listened on.
    BIND_FAILED = 4
    #: Time ran out at shutdown with requests in flight; none of those was answered 2xx.
    DRAIN_INCOMPLETE = 5
    #: The data directory cannot be written or read.
    DATA_UNUSABLE = 6
    #: What was read cannot be written where it is to go.
    OUTPUT_FAILED = 7
    #: `replay` gave up: its target does not answer, or refuses everything for now.
    TARGET_FAILED = 8
    #: A worker ended before it served, or died while all were stopping.
    WORKER_FAILED = 9
