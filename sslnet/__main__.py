"""``python -m sslnet``: the same as the ``sslnet`` command."""

import sys

from sslnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
