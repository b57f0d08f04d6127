"""What this process may use of the machine: cores and descriptors.

This module must not know what they are used for.

Source: sched_setaffinity(2), getrlimit(2).
"""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

from ingest.settings_values import parse_cores

#: Descriptors beside those of connections: the journal's files, pipes, what handlers open.
DESCRIPTORS_BESIDE = 256


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def core_of(worker: int, affinity: str) -> int | None:
    """The core a worker is kept on.

    Args:
        worker: its number.
        affinity: the setting: `off`, `on` or a list of cores.

    Returns:
        None: wherever the kernel puts it.
    """
    if affinity == "off":
        return None
    cores = usable_cores() if affinity == "on" else parse_cores(affinity)
    return cores[worker % len(cores)]


def cores_missing(affinity: str) -> list[int]:
    """Those of a list of cores that this process may not use."""
    if affinity in ("off", "on"):
        return []
    return sorted(set(parse_cores(affinity)) - set(usable_cores()))


def keep_on(core: int) -> None:
    """Keep this process on one core, with the threads that it starts from now on.

    Raises:
        OSError: it may not use that one.
    """
    os.sched_setaffinity(0, {core})


class Descriptors(NamedTuple):
    """The limit on open descriptors (RLIMIT_NOFILE).

    Attributes:
        before: what it was.
        now: what it is.
    """

    before: int
    now: int

    def shortage(self, connections_max: int) -> str | None:
        """What is to be said if so many connections may be open at a time, else None."""
        wanted = connections_max + DESCRIPTORS_BESIDE
        if wanted <= self.now:
            return None
        return (
            f"connections_max is {connections_max}, which takes some {wanted} descriptors, and "
            f"the limit is {self.now} (ulimit -Hn, LimitNOFILE); connections beyond it wait "
            "unanswered, so raise that limit or lower connections_max"
        )


def descriptors() -> Descriptors:
    """The limit as it could be: the soft one may be raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Descriptors(soft, hard)


def raise_descriptor_limit() -> Descriptors:
    """Raise the soft limit to the hard one; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return Descriptors(soft, hard)
