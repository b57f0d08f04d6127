"""Patch the standard library for gevent, then start: the order is the point.

Nothing may be imported before the patching, or it would keep the blocking functions.
"""

import sys

EARLY = frozenset(sys.modules)

from gevent import monkey

monkey.patch_all()


def main() -> int:
    """Entry point of `python -m ingest` and of the console script."""
    from ingest import patching
    from ingest.cli import main as run

    patching.Early.modules = EARLY
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
