"""ingest: an HTTP event gateway. JSON in, validated, durable, and only then 202.

For handlers: `ingest.Reject` refuses an event, `ingest.Event` is what `handle` is given.
"""

from ingest.errors import Reject
from ingest.handlers.event import Event
from ingest.version import __version__

__all__ = ["Event", "Reject", "__version__"]
