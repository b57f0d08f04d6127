"""ingest: an HTTP event gateway. JSON in, validated, durable, and only then 202.

For handlers: `ingest.Event` is what `handle` is given, `ingest.Reject` refuses it, and
`ingest.offload` marks functions that would hold the event loop.
"""

from ingest.errors import OffloadFull, Reject
from ingest.handlers.event import Event
from ingest.handlers.offload import OffloadDied, offload
from ingest.version import __version__

__all__ = ["Event", "OffloadDied", "OffloadFull", "Reject", "__version__", "offload"]
