"""`python -m ops.bench`."""

import sys

from ops.bench.bench import main

if __name__ == "__main__":
    sys.exit(main())
