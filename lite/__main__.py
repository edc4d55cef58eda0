"""`python -m lite`, where the script `lite` is not on the PATH."""

import sys

from lite.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
