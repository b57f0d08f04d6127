"""The journal: the durable log of accepted events, and the only thing a 202 stands on.

`record` and `frame` are PURE (lines, commits); `storage` is every file system call;
`segment`, `recovery`, `reader` build on them; `writer` (native thread) and `committer`
(hub) are the commit path; `lock` keeps a second process out; `commands` is the CLI.

The bytes: docs/journal-format.md. What happens when the disk fails: docs/durability.md.
"""

from ingest.journal.committer import Journal
from ingest.journal.lock import DataDirectoryLocked, DirectoryLock
from ingest.journal.recovery import RecoveryReport

__all__ = ["DataDirectoryLocked", "DirectoryLock", "Journal", "RecoveryReport"]
