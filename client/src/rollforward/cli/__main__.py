"""The command `rollforward`, as `python -m rollforward.cli`."""

import sys

from rollforward.cli import main

if __name__ == "__main__":
    sys.exit(main())
