"""This project's server with a journal that writes nothing: what durability is compared with.

    python -m ops.bench.no_journal FLAG…       the flags of python -m ingest

Records are made, collected and handed to the native thread as ever; only the calls that would
put bytes on a disk do nothing. There is no such setting.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from ingest.cli import main  # noqa: E402
from ingest.journal import committer  # noqa: E402
from ingest.journal.storage import Storage  # noqa: E402


class Forgetful(Storage):
    """Takes everything and keeps nothing."""

    def write(self, descriptor: int, parts: Sequence[bytes], position: int) -> None:
        pass

    def sync(self, descriptor: int) -> None:
        pass

    def shorten(self, descriptor: int, size: int) -> None:
        pass


if __name__ == "__main__":
    committer.Storage = Forgetful  # type: ignore[misc]
    sys.exit(main(sys.argv[1:]))
