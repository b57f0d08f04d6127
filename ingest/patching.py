"""Whether gevent's patching is in force, and whether anything was imported before it.

Legacy code waits cooperatively because the standard library's blocking functions are replaced
before anything takes a reference to them. This module must not know who serves.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from gevent import monkey

#: Modules of the standard library that must be patched.
PATCHED = (
    "_thread",
    "os",
    "queue",
    "select",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
)

#: Packages that take unpatched functions on purpose.
ON_PURPOSE = ("gevent", "greenlet", "ingest")


class NotPatched(Exception):
    """The process would block where it must not; the message says what to do."""


class Early:
    """What had been imported when the patching began."""

    modules: Collection[str] = ()


def require() -> None:
    """Check that the standard library is patched.

    Raises:
        NotPatched: it is not, or in parts only.
    """
    missing = [
        name for name in PATCHED if name in sys.modules and not monkey.is_module_patched(name)
    ]
    if missing:
        raise NotPatched(
            f"gevent has not patched {', '.join(missing)}: call gevent.monkey.patch_all() before "
            "anything else is imported, as `python -m ingest` does"
        )


def too_late() -> dict[str, list[str]]:
    """Modules that were imported before the patching and still hold blocking functions.

    Returns:
        module name → the names in it that are unpatched.
    """
    originals = {
        id(value): value
        for saved in _saved().values()
        for value in saved.values()
        if callable(value)
    }
    found = {}
    for name in sorted(Early.modules):
        module = sys.modules.get(name)
        if module is None or _is_own_business(name):
            continue
        stale = [key for key, value in _globals(module).items() if id(value) in originals]
        if stale:
            found[name] = sorted(stale)
    return found


def _saved() -> Mapping[str, Mapping[str, Any]]:
    """What the patching replaced, by module."""
    return getattr(monkey, "saved", {})


def _globals(module: ModuleType) -> dict[str, Any]:
    return {key: value for key, value in list(vars(module).items()) if callable(value)}


def _is_own_business(name: str) -> bool:
    """The standard library's modules were patched themselves."""
    root = name.partition(".")[0]
    return root in sys.stdlib_module_names or root in ON_PURPOSE or root == "__main__"
