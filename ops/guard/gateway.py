"""The gateway as it is, but for what would make two counts of the same work differ.

Started by counting.py instead of `python -m ingest`, with the same arguments.

* Threads hand the interpreter's lock over only where one waits. By default they also do so every
  5 ms, which is a matter of how fast the machine is just now.
* The clock that dates events goes on by a fixed step each time it is read. Some of the work is
  done once a millisecond, and under valgrind each request takes several.
"""

from __future__ import annotations

import itertools
import runpy
import sys
import time

#: Seconds; about what a request takes on a machine of today.
STEP = 20e-6
START = 1.8e9

if __name__ == "__main__":
    sys.setswitchinterval(1000)
    time.time = itertools.count(START, STEP).__next__
    runpy.run_module("ingest", run_name="__main__", alter_sys=True)
