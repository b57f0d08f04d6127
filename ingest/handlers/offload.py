"""`@ingest.offload`: calls that would hold the event loop run beside it.

    @ingest.offload                    # C code that waits or computes without the interpreter's
    def thumbnail(image): ...          # lock: a native thread

    @ingest.offload(process=True)      # Python that computes: a process
    def score(order): ...

The caller waits as for any other blocking call, and the event loop serves on. Where no
service runs, such as in a unit test of the function, it is simply called.

PURE: what runs the calls is put in place at start, so that whoever imports a handler needs
no more than this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])


class Runner(Protocol):
    """Runs offloaded calls."""

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any, process: bool) -> Any:
        """Call a function elsewhere and wait for what it returns or raises."""


class State:
    """This process's: decorators are applied before there is anything else.

    Attributes:
        runner: runs the calls; None: they are made in place.
        processes_wanted: whether a function was marked for a process.
    """

    runner: Runner | None = None
    processes_wanted = False


class OffloadDied(RuntimeError):
    """The process that ran an offloaded function ended before it returned."""


@overload
def offload(function: F) -> F: ...
@overload
def offload(*, process: bool = False) -> Callable[[F], F]: ...
def offload(function: Callable[..., Any] | None = None, *, process: bool = False) -> Any:
    """Mark a function whose calls are to run beside the event loop.

    Args:
        process: in another process instead of a thread. Arguments and what it returns or
            raises are pickled, and the module is imported there as well.

    Raises (when the function is called):
        OffloadFull: as many calls wait as may.
        OffloadDied: the process it ran in ended, by a crash for example.
    """
    if function is None:
        return lambda marked: offload(marked) if not process else _marked(marked, True)
    return _marked(function, process)


def _marked(function: Callable[..., Any], process: bool) -> Callable[..., Any]:
    if process:
        State.processes_wanted = True

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        runner = State.runner
        if runner is None:
            return function(*args, **kwargs)
        return runner.call(function, args, kwargs, process)

    return call
