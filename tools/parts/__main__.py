"""Runs the command line of this folder."""

import sys

from tools.parts import __doc__ as description
from tools.parts.cli import main

if __name__ == "__main__":
    try:
        sys.exit(main(description=description))
    except KeyboardInterrupt:
        sys.exit(130)
