"""How much of what is left to chance the crash tests try, and where chance begins.

`CRASH_SEED` repeats a failure; `CRASH_SCALE` (`make crash` sets it) tries more and says so.
"""

import os

SEED = int(os.environ.get("CRASH_SEED", "20261123"))
SCALE = int(os.environ.get("CRASH_SCALE", "1"))
#: Whether minutes may be taken, and numbers are to be shown.
LONG = "CRASH_SCALE" in os.environ
