"""Lets `python -m rollforward.cli` be the command `rollforward`."""

import sys

from rollforward.cli import main

if __name__ == "__main__":
    sys.exit(main())
