"""The demo in the browser: `python app.py`; `python app.py --help` lists the options."""

import sys

from lite.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
